/** What this browser keeps: conversations and settings. */

/** @typedef {import('./api.js').Stats} Stats */
/** @typedef {{ role: 'user' | 'assistant', content: string, reasoning?: string, stats?: Stats, stopped?: boolean }} Turn */
/** @typedef {{ id: string, title: string, named: boolean, model: string, changed: number, turns: Turn[] }} Conversation */
/** @typedef {{ system: string, temperature: string, top_p: string, max_tokens: string, seed: string, theme: string, model: string }} Settings */

const CONVERSATIONS = 'onebit.conversations'
const SETTINGS = 'onebit.settings'
const MOST = 200

/** @type {Settings} */
const DEFAULTS = { system: '', temperature: '', top_p: '', max_tokens: '', seed: '', theme: 'system', model: '' }

/** @param {string} name @param {any} missing */
function read(name, missing) {
  try {
    return JSON.parse(localStorage.getItem(name) ?? '') ?? missing
  } catch {
    return missing
  }
}

/** The newest first. @returns {Conversation[]} */
export function loadConversations() {
  const list = read(CONVERSATIONS, [])
  return Array.isArray(list) ? list.filter((one) => typeof one?.id === 'string' && Array.isArray(one.turns)) : []
}

/** what there was no room for: the list as it is in this tab alone @type {Conversation[] | undefined} */
let unkept

/**
 * Changes what is kept, as it is now: other tabs may have changed it. Gives the new list.
 * @param {(list: Conversation[]) => Conversation[]} change
 */
export function changeConversations(change) {
  const list = change(unkept ?? loadConversations())
  try {
    localStorage.setItem(CONVERSATIONS, JSON.stringify(list.slice(0, MOST)))
    unkept = undefined
  } catch {
    unkept = list
  }
  return list
}

/** Whether the browser had no room for the last change. */
export function isFull() {
  return unkept !== undefined
}

/**
 * Another tab has changed what is kept.
 * @param {{ conversations: (list: Conversation[]) => void, settings: (settings: Settings) => void }} told
 */
export function onOtherTabs(told) {
  addEventListener('storage', ({ key }) => {
    if (unkept === undefined && (key === null || key === CONVERSATIONS)) told.conversations(loadConversations())
    if (key === null || key === SETTINGS) told.settings(loadSettings())
  })
}

/** @returns {Settings} */
export function loadSettings() {
  return { ...DEFAULTS, ...read(SETTINGS, {}) }
}

/** @param {Settings} settings */
export function keepSettings(settings) {
  try {
    localStorage.setItem(SETTINGS, JSON.stringify(settings))
  } catch {
    // They hold for as long as the page is open.
  }
}

/** @param {string} model @returns {Conversation} */
export function newConversation(model) {
  const id = Array.from(crypto.getRandomValues(new Uint32Array(4)), (x) => x.toString(36)).join('')
  return { id, title: 'New conversation', named: false, model, changed: Date.now(), turns: [] }
}

/** What a request says about sampling; what is empty is not said. @param {Settings} settings */
export function samplingOf(settings) {
  /** @type {Record<string, number>} */
  const options = {}
  for (const name of /** @type {const} */ (['temperature', 'top_p', 'max_tokens', 'seed'])) {
    if (settings[name] !== '') options[name] = Number(settings[name])
  }
  return options
}

/** @param {Conversation} conversation */
export function asMarkdown({ title, turns }) {
  const parts = turns.map(({ role, content }) => `**${role === 'user' ? 'You' : 'Model'}**\n\n${content}`)
  return `# ${title}\n\n${parts.join('\n\n---\n\n')}\n`
}
