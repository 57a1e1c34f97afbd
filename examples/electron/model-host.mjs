// Models, for an application whose window must never wait for them: runs in a process of its own and is told what to do by
// messages. `port` is whatever has postMessage and 'message' events: process.parentPort of an Electron utility process, or one
// end of a MessageChannel, as the tests of onebit-run have it.
//
//   { type: 'load', id, path?, memoryLimit? }   -> { type: 'loaded', id, name } after { type: 'progress', id, done, total } ...
//   { type: 'ask', id, text, options? }         -> { type: 'piece', id, text } ..., then { type: 'answered', id, why }
//   { type: 'stop', id }                        the answer `id` ends with why: 'abort'
//   { type: 'unload', id }                      -> { type: 'unloaded', id }
//
// What goes wrong is answered by { type: 'error', id, code, message, hint }. Loading another model, and unloading, end the answer
// that is being made; the old model's memory is free before the new one is read.
import { basename } from 'node:path'
import { Chat, defaultModelPath, Model } from 'onebit-run'

/** At most so many bytes for weights and caches: an application is not alone on a machine. */
const MEMORY_LIMIT = 4 * 2 ** 30

export function serveModels(port) {
  const send = (message) => port.postMessage(message)
  let model
  let chat
  let answer // { id, stop: AbortController, ended: Promise }
  let changing = Promise.resolve() // loads and unloads, one after another

  async function unload() {
    answer?.stop.abort()
    await answer?.ended
    const old = model
    model = chat = undefined
    await old?.dispose()
  }

  async function load({ id, path = defaultModelPath(), memoryLimit = MEMORY_LIMIT }) {
    await unload()
    const onProgress = (done, total) => send({ type: 'progress', id, done, total })
    model = await Model.load(path, { memoryLimit, onProgress })
    chat = model.hasChatTemplate ? new Chat(model) : undefined
    send({ type: 'loaded', id, name: basename(path) })
  }

  async function ask({ id, text, options = {} }) {
    if (model === undefined) throw Object.assign(new Error('No model is loaded.'), { code: 'NO_MODEL' })
    if (answer !== undefined) throw Object.assign(new Error('Another answer is being made.'), { code: 'BUSY' })
    const stop = new AbortController()
    let done
    answer = { id, stop, ended: new Promise((resolve) => (done = resolve)) }
    const session = chat === undefined ? model.createSession() : undefined
    try {
      const given = { ...options, signal: stop.signal }
      for await (const piece of chat ? chat.send(text, given) : session.generate(text, given))
        send({ type: 'piece', id, text: piece.text })
      send({ type: 'answered', id, why: 'end' })
    } catch (error) {
      if (!stop.signal.aborted) throw error
      send({ type: 'answered', id, why: 'abort' })
    } finally {
      session?.dispose()
      answer = undefined
      done()
    }
  }

  function stop({ id }) {
    if (answer?.id === id) answer.stop.abort()
  }

  async function handle(message) {
    if (message.type === 'stop') return stop(message)
    if (message.type === 'ask') return ask(message)
    const change = { load, unload: async ({ id }) => unload().then(() => send({ type: 'unloaded', id })) }[message.type]
    if (change === undefined) throw Object.assign(new Error(`No such message: ${message.type}`), { code: 'MESSAGE' })
    const turn = changing.then(() => change(message))
    changing = turn.catch(() => {})
    return turn
  }

  port.on('message', (event) => {
    const message = event?.data ?? event // Electron wraps messages in an event
    handle(message).catch(({ code, message: text, hint }) => {
      send({ type: 'error', id: message?.id, code, message: text, hint })
    })
  })
}
