// The clients of bench/serve.mjs, in a process of their own, as clients are: told what to ask for over the channel to the
// parent, they answer with when each part of each answer came.
//
// { url, model, streams: [{ ids, tokens }], late?: { ids, tokens } } -> [{ sentMs, times, tokens }], the late one last.
// Times are those of the parts that the connection brought: events of one part came at one time.
// `late` is asked for when a quarter of all events are there.
import { request as httpRequest } from 'node:http'
import { performance } from 'node:perf_hooks'

/** A stream as it comes: `onEvent` for every event with text. */
function stream(url, model, { ids, tokens }, onEvent) {
  const { hostname, port } = new URL(url)
  const body = JSON.stringify({
    model,
    prompt: ids,
    max_tokens: tokens,
    temperature: 0,
    ignore_eos: true,
    stream: true,
    stream_options: { include_usage: true },
  })
  return new Promise((resolve, reject) => {
    const times = []
    const sentMs = performance.now()
    let made = 0
    let rest = ''
    const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }
    const options = { hostname, port, path: '/v1/completions', method: 'POST', headers, agent: false }
    const request = httpRequest(options, (response) => {
      response.setEncoding('utf8')
      response.on('data', (part) => {
        const now = performance.now()
        const events = (rest + part).split('\n\n')
        rest = events.pop()
        for (const event of events) take(event, now)
      })
      response.on('end', () => {
        if (response.statusCode === 200) resolve({ sentMs, times, tokens: made })
        else reject(new Error(`${response.statusCode}: ${rest}`))
      })
      response.on('error', reject)
    })
    /** As a client does: every event is parsed. */
    function take(event, now) {
      const data = event.slice('data: '.length)
      if (data === '[DONE]' || !event.startsWith('data: ')) return
      const { choices, usage, error } = JSON.parse(data)
      if (error) return reject(new Error(error.message))
      if (usage) made = usage.completion_tokens
      if (!choices[0] || choices[0].text === '') return
      times.push(now)
      onEvent()
    }
    request.on('error', reject)
    request.end(body)
  })
}

async function answer({ url, model, streams, late }) {
  const quarter = streams.reduce((sum, { tokens }) => sum + tokens, 0) / 4
  let events = 0
  let asked
  const onEvent = () => {
    if (late && ++events >= quarter) asked ??= stream(url, model, late, () => {})
  }
  const results = await Promise.all(streams.map((one) => stream(url, model, one, onEvent)))
  return asked ? [...results, await asked] : results
}

process.on('message', (task) => {
  answer(task).then(
    (results) => process.send({ results }),
    (error) => process.send({ error: error.message }),
  )
})
process.on('disconnect', () => process.exit())
