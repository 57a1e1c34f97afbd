const element = (id) => document.getElementById(id)
let id = 0

element('form').addEventListener('submit', (event) => {
  event.preventDefault()
  element('answer').textContent = element('text').value
  window.model.ask(++id, element('text').value)
})
element('stop').addEventListener('click', () => window.model.stop(id))

window.model.onMessage((message) => {
  if (message.type === 'piece') element('answer').textContent += message.text
  else if (message.type === 'loaded') element('state').textContent = message.name
  else if (message.type === 'answered') element('state').textContent = message.why === 'abort' ? 'Stopped.' : 'Done.'
  else if (message.type === 'error') element('state').textContent = [message.message, message.hint].join(' ')
})
