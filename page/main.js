/** The page: which conversation is shown, what is asked, and what the keys do. */
import { listModels, ServerError, streamAnswer, useKey } from './api.js'
import {
  asMarkdown,
  changeConversations,
  isFull,
  keepSettings,
  loadConversations,
  loadSettings,
  newConversation,
  onOtherTabs,
  samplingOf,
} from './store.js'
import { AnswerView, edit, element, quietButton, userTurn } from './view.js'

/** @typedef {import('./store.js').Conversation} Conversation */
/** @typedef {import('./store.js').Turn} Turn */
/** @typedef {import('./api.js').ServedModel} ServedModel */

/** @template {HTMLElement} T @param {string} id @param {new () => T} kind @returns {T} */
function find(id, kind) {
  const found = document.getElementById(id)
  if (found instanceof kind) return found
  throw new Error(`#${id} is missing`)
}

const messages = find('messages', HTMLOListElement)
const question = find('question', HTMLTextAreaElement)
const modelChoice = find('model', HTMLSelectElement)
const send = find('send', HTMLButtonElement)
const stop = find('stop', HTMLButtonElement)
const status = find('status', HTMLElement)
const problem = find('problem', HTMLElement)
const drawer = find('drawer', HTMLElement)
const scroller = /** @type {HTMLElement} */ (document.querySelector('main'))

const settings = loadSettings()
let conversations = loadConversations()
/** @type {ServedModel[]} */
let models = []
/** @type {Conversation} */
let current = conversations[0] ?? newConversation(settings.model)
/** the answer under way @type {AbortController | undefined} */
let running
/** the reader wants to see what comes */
let follows = true

// ---- what is kept
function keep() {
  current.changed = Date.now()
  change((list) => {
    const others = list.filter(({ id }) => id !== current.id)
    return current.turns.length === 0 ? others : [current, ...others]
  })
}

/** @param {(list: Conversation[]) => Conversation[]} how */
function change(how) {
  conversations = withCurrent(changeConversations(how))
  if (isFull()) tell('This browser has no room for more. Delete some conversations, or this one is lost when you leave.')
  drawList()
}

/** The list with the conversation that is shown as it is here. @param {Conversation[]} list */
function withCurrent(list) {
  return list.map((one) => (one.id === current.id ? current : one))
}

onOtherTabs({
  conversations(list) {
    const there = list.find(({ id }) => id === current.id)
    if (there && running) Object.assign(current, { title: there.title, named: there.named })
    else if (there && there.changed !== current.changed) {
      current = there
      drawTurns()
    }
    conversations = withCurrent(list)
    drawList()
  },
  settings(changed) {
    Object.assign(settings, changed)
    applyTheme()
  },
})

/** @param {string} text */
function tell(text) {
  problem.textContent = text
  problem.hidden = text === ''
}

// ---- the list of conversations
function drawList() {
  const list = find('conversations', HTMLUListElement)
  list.replaceChildren(
    ...conversations.map((one) => {
      const item = element('li')
      const isCurrent = one.id === current.id
      if (isCurrent) item.dataset.current = ''
      const open = quietButton(one.title, () => show(one))
      open.classList.add('open')
      if (isCurrent) open.setAttribute('aria-current', 'true')
      const rename = quietButton('Rename', () => renameOne(one), `Rename ${one.title}`)
      const remove = quietButton('Delete', () => removeOne(one), `Delete ${one.title}`)
      rename.classList.add('small')
      remove.classList.add('small')
      item.append(open, rename, remove)
      return item
    }),
  )
}

/** @param {Conversation} one */
function renameOne(one) {
  const title = prompt('What shall it be called?', one.title)?.trim()
  if (!title) return
  const named = { title, named: true, changed: Date.now() }
  Object.assign(one, named)
  change((list) => list.map((kept) => (kept.id === one.id ? { ...kept, ...named } : kept)))
}

/** @param {Conversation} one */
function removeOne(one) {
  if (!confirm(`Delete “${one.title}”?`)) return
  change((list) => list.filter(({ id }) => id !== one.id))
  if (one.id === current.id) show(conversations[0] ?? newConversation(modelChoice.value))
  else drawList()
}

/** @param {Conversation} one */
function show(one) {
  running?.abort()
  current = one
  tell('')
  openDrawer(false)
  if (models.some(({ id }) => id === one.model)) modelChoice.value = one.model
  follows = true
  drawTurns()
  drawList()
  question.focus()
}

// ---- the conversation
const actions = { onEdit: editTurn, onRegenerate: regenerate }

function drawTurns() {
  messages.replaceChildren(
    ...current.turns.map((turn, index) => {
      if (turn.role === 'user') return userTurn(turn, index, actions)
      const view = new AnswerView(turn, answerer(), isPlain())
      view.end(index === current.turns.length - 1 ? regenerate : undefined)
      return view.item
    }),
  )
  drawEmpty()
  scrollDown()
}

function drawEmpty() {
  const empty = find('empty', HTMLElement)
  empty.hidden = current.turns.length > 0
  const model = chosenModel()
  if (!model) empty.textContent = ''
  else if (model.has_chat_template) empty.textContent = `Ask ${model.id} something. It runs on this computer.`
  else empty.textContent = `${model.id} does not chat: it continues your text. Begin one.`
}

function chosenModel() {
  return models.find(({ id }) => id === modelChoice.value)
}

function answerer() {
  return chosenModel()?.id ?? current.model ?? 'Model'
}

function isPlain() {
  return chosenModel()?.has_chat_template === false
}

function scrollDown() {
  if (follows) scroller.scrollTop = scroller.scrollHeight
}

scroller.addEventListener('scroll', () => {
  follows = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60
})

/** @param {number} index @param {string} text */
function editTurn(index, text) {
  if (running) return
  current.turns.length = index
  ask(text)
}

function regenerate() {
  if (running) return
  const last = current.turns.at(-1)
  if (last?.role !== 'assistant') return
  current.turns.pop()
  drawTurns()
  answer()
}

/** @param {string} text */
function ask(text) {
  current.turns.push({ role: 'user', content: text })
  if (!current.named && current.turns.length === 1) current.title = text.trim().split('\n')[0].slice(0, 60)
  follows = true
  drawTurns()
  answer()
}

async function answer() {
  const model = chosenModel()
  if (!model) return tell('There is no model to ask.')
  const conversation = current
  conversation.model = model.id
  keep()
  tell('')
  /** @type {Turn} */
  const turn = { role: 'assistant', content: '', reasoning: '' }
  const view = new AnswerView(turn, model.id, !model.has_chat_template)
  view.onDrawn = scrollDown
  messages.append(view.item)
  messages.setAttribute('aria-busy', 'true')
  const controller = new AbortController()
  setRunning(controller)
  status.textContent = 'Waiting for the answer.'
  try {
    turn.stats = await streamAnswer(model, asked(conversation, model), samplingOf(settings), controller.signal, (delta) => {
      if (turn.content === '' && turn.reasoning === '') status.textContent = 'The answer comes.'
      turn.content += delta.text
      turn.reasoning += delta.reasoning
      view.changed()
    })
    status.textContent = 'The answer is complete.'
  } catch (error) {
    if (controller.signal.aborted) {
      turn.stopped = true
      status.textContent = 'Stopped.'
    } else failed(error)
  }
  messages.removeAttribute('aria-busy')
  finish(conversation, turn, view)
}

/** @param {Conversation} conversation @param {Turn} turn @param {AnswerView} view */
function finish(conversation, turn, view) {
  setRunning(undefined)
  if (turn.content === '' && !turn.reasoning) view.item.remove()
  else conversation.turns.push(turn)
  if (conversation !== current) {
    conversation.changed = Date.now()
    change((list) => list.map((kept) => (kept.id === conversation.id ? conversation : kept)))
    return
  }
  view.end(regenerate)
  for (const other of messages.querySelectorAll('li.assistant:not(:last-child) .foot button:last-child')) {
    if (other.textContent === 'Answer again') other.remove()
  }
  keep()
  scrollDown()
  if (document.activeElement === document.body || document.activeElement === stop) question.focus()
}

/** What the server is sent: the system message, and the turns without their thinking. @param {Conversation} conversation @param {ServedModel} model */
function asked(conversation, model) {
  const turns = conversation.turns.map(({ role, content }) => ({ role, content }))
  const system = model.has_chat_template ? settings.system.trim() : ''
  return system === '' ? turns : [{ role: 'system', content: system }, ...turns]
}

/** @param {unknown} error */
function failed(error) {
  status.textContent = ''
  const known = error instanceof ServerError ? error : undefined
  if (known?.status === 401) return void askForKey(known.message)
  if (known?.code === 'context_length_exceeded') {
    return tell(`${known.message} Begin a new conversation, or shorten this one by editing an earlier message.`)
  }
  tell(known ? known.message : 'The connection ended in the middle of the answer.')
}

/** @param {AbortController | undefined} controller */
function setRunning(controller) {
  running = controller
  send.hidden = controller !== undefined
  stop.hidden = controller === undefined
}

// ---- the key
/** @param {string} why */
function askForKey(why) {
  const dialog = find('key', HTMLDialogElement)
  find('key-problem', HTMLElement).textContent = `${why} It stays in this tab until you close it.`
  if (!dialog.open) dialog.showModal()
}

find('key-form', HTMLFormElement).addEventListener('submit', (event) => {
  const key = new FormData(/** @type {HTMLFormElement} */ (event.target)).get('key')
  useKey(String(key))
  void start()
})

// ---- settings
const settingsDialog = find('settings', HTMLDialogElement)
const settingsForm = find('settings-form', HTMLFormElement)
const FIELDS = /** @type {const} */ (['system', 'temperature', 'top_p', 'max_tokens', 'seed'])

find('open-settings', HTMLButtonElement).addEventListener('click', () => {
  for (const name of FIELDS) field(name).value = settings[name]
  settingsDialog.showModal()
})

settingsDialog.addEventListener('close', () => {
  if (settingsDialog.returnValue !== 'save') return
  for (const name of FIELDS) settings[name] = field(name).value
  keepSettings(settings)
})

/** @param {string} name */
function field(name) {
  return /** @type {HTMLInputElement} */ (settingsForm.elements.namedItem(name))
}

// ---- light and dark
const THEMES = ['system', 'light', 'dark']

function applyTheme() {
  if (settings.theme === 'system') delete document.documentElement.dataset.theme
  else document.documentElement.dataset.theme = settings.theme
  find('theme', HTMLButtonElement).textContent = `Theme: ${settings.theme}`
}

find('theme', HTMLButtonElement).addEventListener('click', () => {
  settings.theme = THEMES[(THEMES.indexOf(settings.theme) + 1) % THEMES.length]
  keepSettings(settings)
  applyTheme()
})

// ---- export
find('export', HTMLButtonElement).addEventListener('click', (event) => {
  // With Shift as JSON, with all that is known of each turn.
  const json = /** @type {MouseEvent} */ (event).shiftKey
  const text = json ? JSON.stringify(current, null, 1) : asMarkdown(current)
  const link = element('a')
  link.href = URL.createObjectURL(new Blob([text], { type: json ? 'application/json' : 'text/markdown' }))
  link.download = `${current.title.replace(/[^\p{L}\p{N}]+/gu, '-').slice(0, 40) || 'conversation'}.${json ? 'json' : 'md'}`
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 1000)
})
find('export', HTMLButtonElement).title = 'As Markdown; with Shift as JSON'

// ---- the drawer of narrow windows
/** @param {boolean} open */
function openDrawer(open) {
  if (open) drawer.dataset.open = ''
  else delete drawer.dataset.open
  find('shade', HTMLElement).hidden = !open
  find('open-drawer', HTMLButtonElement).setAttribute('aria-expanded', String(open))
}

find('open-drawer', HTMLButtonElement).addEventListener('click', () => {
  openDrawer(true)
  find('new', HTMLButtonElement).focus()
})
find('close-drawer', HTMLButtonElement).addEventListener('click', () => {
  openDrawer(false)
  find('open-drawer', HTMLButtonElement).focus()
})
find('shade', HTMLElement).addEventListener('click', () => openDrawer(false))

// ---- keys
find('new', HTMLButtonElement).addEventListener('click', () => show(newConversation(modelChoice.value)))
stop.addEventListener('click', () => running?.abort())

find('composer', HTMLFormElement).addEventListener('submit', (event) => {
  event.preventDefault()
  submit()
})

function submit() {
  const text = question.value
  if (running || text.trim() === '') return
  question.value = ''
  grow()
  ask(text)
}

question.addEventListener('keydown', (event) => {
  // While letters are composed (Chinese, Japanese, …) Enter chooses one.
  if (event.isComposing) return
  if (event.key === 'Enter' && !event.shiftKey) {
    event.preventDefault()
    submit()
  } else if (event.key === 'ArrowUp' && question.value === '' && !running) {
    const index = current.turns.findLastIndex(({ role }) => role === 'user')
    const item = messages.querySelector(`li.user[data-index="${index}"]`)
    if (!(item instanceof HTMLElement)) return
    event.preventDefault()
    edit(item, current.turns[index], index, editTurn)
  }
})
question.addEventListener('input', grow)

/** The field is as high as its text. */
function grow() {
  question.style.height = 'auto'
  question.style.height = `${question.scrollHeight + 2}px`
}

document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && !document.querySelector('dialog[open]')) {
    if ('open' in drawer.dataset) openDrawer(false)
    else running?.abort()
  } else if (event.ctrlKey && event.shiftKey && event.key.toLowerCase() === 'o') {
    event.preventDefault()
    show(newConversation(modelChoice.value))
  }
})

modelChoice.addEventListener('change', () => {
  settings.model = modelChoice.value
  keepSettings(settings)
  drawEmpty()
})

// ---- the beginning
async function start() {
  try {
    models = await listModels()
  } catch (error) {
    return failed(error)
  }
  tell('')
  modelChoice.replaceChildren(...models.map(({ id }) => new Option(id, id)))
  const wanted = [current.model, settings.model].find((name) => models.some(({ id }) => id === name))
  if (wanted) modelChoice.value = wanted
  drawTurns()
}

applyTheme()
drawList()
drawTurns()
question.focus()
void start()
