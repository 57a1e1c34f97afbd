/** The turns of a conversation as elements. */
import { copied, rendered } from './markdown.js'

/** @typedef {import('./store.js').Turn} Turn */
/** @typedef {{ onEdit: (index: number, text: string) => void, onRegenerate: () => void }} Actions */

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag @param {string} [className] @param {string} [text]
 * @returns {HTMLElementTagNameMap[K]}
 */
export function element(tag, className = '', text = '') {
  const made = document.createElement(tag)
  if (className) made.className = className
  if (text) made.textContent = text
  return made
}

/** @param {string} text @param {() => void} action @param {string} [label] */
export function quietButton(text, action, label) {
  const button = element('button', 'quiet', text)
  button.type = 'button'
  if (label) button.setAttribute('aria-label', label)
  button.addEventListener('click', action)
  return button
}

/** @param {Turn} turn @param {number} index @param {Actions} actions */
export function userTurn(turn, index, { onEdit }) {
  const item = element('li', 'user')
  item.dataset.index = String(index)
  const text = element('div', 'text', turn.content)
  const foot = element('div', 'foot')
  foot.append(quietButton('Edit', () => edit(item, turn, index, onEdit), 'Edit this message and answer it again'))
  item.append(element('p', 'who', 'You'), text, foot)
  return item
}

/** @param {HTMLElement} item @param {Turn} turn @param {number} index @param {Actions['onEdit']} onEdit */
export function edit(item, turn, index, onEdit) {
  const before = [...item.childNodes]
  const area = element('textarea', 'edit')
  area.value = turn.content
  area.setAttribute('aria-label', 'Your message, to be changed')
  const back = () => item.replaceChildren(...before)
  const save = () => {
    if (area.value.trim() !== '') onEdit(index, area.value)
  }
  area.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') {
      event.stopPropagation()
      back()
    } else if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault()
      save()
    }
  })
  const send = element('button', '', 'Send')
  send.type = 'button'
  send.addEventListener('click', save)
  const foot = element('div', 'foot')
  foot.append(send, quietButton('Cancel', back))
  item.replaceChildren(element('p', 'who', 'You'), area, foot)
  area.focus()
}

/** An answer, which may still be coming. */
export class AnswerView {
  /** @param {Turn} turn @param {string} who @param {boolean} plain its text is no Markdown */
  constructor(turn, who, plain) {
    this.turn = turn
    this.plain = plain
    this.item = element('li', 'assistant')
    this.thinking = element('details', 'thinking')
    this.thought = element('div')
    this.thinking.append(element('summary', '', 'Thinking'), this.thought)
    this.thinking.hidden = true
    this.text = element('div', plain ? 'answer raw' : 'answer')
    this.foot = element('div', 'foot')
    this.item.append(element('p', 'who', who), this.thinking, this.text, this.foot)
    this.pending = 0
    this.cost = 0
    this.drawn = 0
    this.onDrawn = () => {}
  }

  /** Soon; often enough for the eye, and so seldom that long answers stay quick. */
  changed() {
    if (this.pending) return
    const wait = Math.max(0, this.drawn + Math.max(40, 8 * this.cost) - performance.now())
    this.pending = window.setTimeout(() => requestAnimationFrame(() => this.draw()), wait)
  }

  draw() {
    clearTimeout(this.pending)
    this.pending = 0
    const started = performance.now()
    const { content, reasoning = '' } = this.turn
    this.thinking.hidden = reasoning === ''
    this.thought.textContent = reasoning
    this.thinking.open = this.thinking.open || (reasoning !== '' && content === '' && !this.wasFolded)
    if (content !== '' && !this.wasFolded) {
      this.thinking.open = false
      this.wasFolded = true
    }
    if (this.plain) this.text.textContent = content
    else this.text.replaceChildren(rendered(content))
    this.drawn = performance.now()
    this.cost = this.drawn - started
    this.onDrawn()
  }

  wasFolded = false

  /** Nothing more comes. @param {Actions['onRegenerate'] | undefined} onRegenerate for the last one */
  end(onRegenerate) {
    this.wasFolded = true
    this.thinking.open = false
    this.draw()
    const { stats, stopped, content } = this.turn
    const said = []
    if (stats?.tokens) {
      said.push(`${stats.tokens} tokens`)
      if (stats.perSecond > 0) said.push(`${stats.perSecond.toFixed(1)} tokens/s`)
      said.push(`prompt of ${stats.promptTokens}${stats.cachedTokens ? `, ${stats.cachedTokens} of them known` : ''}`)
    }
    if (stats?.finish === 'length') said.push('cut off: the limit is reached')
    if (stopped) said.push('stopped')
    this.foot.replaceChildren(element('span', '', said.join(' · ')))
    const copy = quietButton('Copy', async () => {
      copy.textContent = (await copied(content)) ? 'Copied' : 'Not allowed'
    }, 'Copy this answer')
    this.foot.append(copy)
    if (onRegenerate) this.foot.append(quietButton('Answer again', onRegenerate))
  }
}
