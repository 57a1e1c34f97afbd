/** Markdown of a model, which may write anything: only harmless elements come out, and nothing is loaded. */
// @ts-ignore The browser's own module; its declarations are those of the package.
import { Marked } from '/page/vendor/marked.js'
// @ts-ignore
import DOMPurify from '/page/vendor/dompurify.js'

const TAGS =
  'p br hr strong em del code pre blockquote ul ol li h1 h2 h3 h4 h5 h6 table thead tbody tr th td a sub sup'.split(' ')
const ATTRIBUTES = ['href', 'class', 'start', 'align']

const marked = new Marked({ gfm: true, breaks: true, async: false })
marked.use({
  renderer: {
    /** Pictures would tell their server who reads: they are links. @param {any} token */
    image({ href, text }) {
      const link = document.createElement('a')
      link.setAttribute('href', href)
      link.textContent = text || href
      return link.outerHTML
    },
    /** HTML is shown as it is written. @param {any} token */
    html({ text }) {
      return new Option(text).innerHTML
    },
  },
})

/** @param {string} text @returns {DocumentFragment} */
export function rendered(text) {
  const fragment = DOMPurify.sanitize(marked.parse(text), {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOW_DATA_ATTR: false,
    ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
    RETURN_DOM_FRAGMENT: true,
  })
  for (const link of fragment.querySelectorAll('a')) {
    link.rel = 'noopener noreferrer nofollow'
    link.target = '_blank'
  }
  for (const code of fragment.querySelectorAll('pre > code')) codeBlock(code)
  for (const other of fragment.querySelectorAll('[class]:not(.codeblock, .head, .quiet)')) other.removeAttribute('class')
  return fragment
}

/** With its language and a button that copies it. @param {HTMLElement} code */
function codeBlock(code) {
  const language = /(?:^| )language-([\w+#.-]{1,20})/.exec(code.className)?.[1] ?? ''
  const block = document.createElement('div')
  block.className = 'codeblock'
  const head = document.createElement('div')
  head.className = 'head'
  const name = document.createElement('span')
  name.textContent = language
  const copy = document.createElement('button')
  copy.type = 'button'
  copy.className = 'quiet'
  copy.textContent = 'Copy'
  copy.setAttribute('aria-label', language ? `Copy this ${language}` : 'Copy this code')
  copy.addEventListener('click', async () => {
    copy.textContent = (await copied(code.textContent ?? '')) ? 'Copied' : 'Not allowed'
    setTimeout(() => {
      copy.textContent = 'Copy'
    }, 1500)
  })
  head.append(name, copy)
  const pre = /** @type {HTMLElement} */ (code.parentElement)
  pre.tabIndex = 0 // so that keys can scroll it
  pre.replaceWith(block)
  block.append(head, pre)
}

/** @param {string} text */
export async function copied(text) {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    return false
  }
}
