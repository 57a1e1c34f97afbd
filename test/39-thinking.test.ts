/** Models that think first: what is thinking and what is the answer, in sessions, chats, a batch, and a terminal. */
import { readFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { answerFormat } from '../dist/answer/format.js'
import { ThinkingGate } from '../dist/answer/thinking.js'
import { Batch } from '../dist/batch/batch.js'
import { type Desk, runChatCommand } from '../dist/cli/chat-commands.js'
import { AnswerPrinter, sendOptions, thinkNote } from '../dist/cli/thinking.js'
import { Chat, type ChatPiece, Model, type Piece } from '../dist/index.js'
import { program } from './command.js'
import { PROJECT } from './data.js'
import { codeOf } from './expect-code.js'
import { SeededRandom } from './gguf-writer.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()

/** Leaves the model thinking, unless it is told not to; earlier thinking stays in the conversation. */
const OPENED = `{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
<think>
{% if enable_thinking is defined and not enable_thinking %}
</think>

{% endif %}{% endif %}`

/** Leaves it to the model whether it thinks. */
const KEEPING = `${OPENED.slice(0, OPENED.indexOf('<think>\n'))}{% endif %}`

let [model, opened, keeping, plain] = [] as unknown as [Model, Model, Model, Model]
beforeAll(async () => {
  const closing = readFileSync(`${PROJECT}/test/fixtures/jinja/templates/thinking.jinja`, 'utf8')
  const special = ['<think>', '</think>']
  await writeTinyModel(folder.path('closing.obt'), { template: closing, special, context: 2048 })
  await writeTinyModel(folder.path('opened.obt'), { template: OPENED, special, context: 2048 })
  await writeTinyModel(folder.path('keeping.obt'), { template: KEEPING, special, context: 2048 })
  await writeTinyModel(folder.path('plain.obt'), { context: 2048 })
  model = await Model.load(folder.path('closing.obt'), { threads: 1 })
  opened = await Model.load(folder.path('opened.obt'), { threads: 1 })
  keeping = await Model.load(folder.path('keeping.obt'), { threads: 1 })
  plain = await Model.load(folder.path('plain.obt'), { threads: 1 })
})
const chats: Chat[] = []
afterEach(() => {
  for (const chat of chats.splice(0)) chat.dispose()
})
afterAll(async () => {
  for (const one of [model, opened, keeping, plain]) await one.dispose()
  folder.remove()
})

function newChat(of: Model): Chat {
  const chat = new Chat(of)
  chats.push(chat)
  return chat
}

async function read(pieces: AsyncIterable<ChatPiece>) {
  const answer = { text: '', reasoning: '', pieces: [] as ChatPiece[] }
  for await (const piece of pieces) {
    answer.text += piece.text
    answer.reasoning += piece.reasoning ?? ''
    answer.pieces.push(piece)
  }
  return answer
}

/** The model can say nothing else. */
const exactly = (text: string) => ({ regex: text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'), seed: 1 })
const ask = [{ role: 'user', content: 'Why?' }]
const cached = (chat: Chat) => chat.session.model.requireTokenizer().decode(chat.session.tokens)

describe('a chat', () => {
  it('tells the thinking apart from the answer', async () => {
    const chat = newChat(model)
    const { text, reasoning, pieces } = await read(chat.send('Why?', exactly('<think>\nLet me see.\n</think>\n\nSo.')))
    expect([text, reasoning]).toEqual(['So.', 'Let me see.'])
    expect(pieces.some((piece) => piece.text !== '' && piece.reasoning !== undefined)).toBe(false)
    expect(chat.messages.at(-1)).toEqual({ role: 'assistant', content: 'So.', reasoning_content: 'Let me see.' })
  })

  it('leaves an answer without thinking as it is', async () => {
    for (const one of [model, plain]) {
      const chat = newChat(one)
      const { text, reasoning, pieces } = await read(chat.send('Why?', exactly(' So  it\n is. ')))
      expect([text, reasoning]).toEqual([' So  it\n is. ', ''])
      expect(pieces.some((piece) => 'reasoning' in piece || 'parts' in piece)).toBe(false)
      expect(chat.messages.at(-1)).toEqual({ role: 'assistant', content: ' So  it\n is. ' })
    }
  })

  it('tells text that looks like thinking as text where the template knows of none', async () => {
    const chat = newChat(plain)
    expect((await read(chat.send('Why?', exactly('<think>a</think>b')))).text).toBe('<think>a</think>b')
  })

  it('keeps no thinking in the conversation when the template says so, and keeps it when it does', async () => {
    const first = exactly('<think>secret</think>one')
    const forgets = newChat(model)
    await read(forgets.send('Why?', first))
    expect(cached(forgets)).toContain('secret')
    await read(forgets.send('And?', exactly('two')))
    expect(cached(forgets)).toContain('one')
    expect(cached(forgets)).not.toContain('secret')

    const keeps = newChat(keeping)
    await read(keeps.send('Why?', first))
    await read(keeps.send('And?', exactly('two')))
    expect(cached(keeps)).toContain('<think>secret</think>one')
  })

  it('goes on with what is cached after a conversation without thinking', async () => {
    const chat = newChat(model)
    await read(chat.send('Why?', exactly('one')))
    await read(chat.send('And?', exactly('two')))
    const { promptTokens, cachedTokens } = chat.last!.usage
    // All of the first turn but what the template writes around its answer.
    expect(promptTokens - cachedTokens).toBeLessThan(promptTokens / 2)
  })

  it('has thinking that never closes, which is no answer', async () => {
    const chat = newChat(opened)
    const { text, reasoning } = await read(chat.send('Why?', { maxTokens: 20, seed: 3, ignoreEos: true }))
    expect(text).toBe('')
    expect(reasoning.length).toBeGreaterThan(3)
    const last = chat.messages.at(-1)!
    expect([last.content, last.reasoning_content]).toEqual(['', reasoning])
    // The conversation goes on.
    await read(chat.send('And?', { maxTokens: 3, seed: 3 }))
    expect(chat.messages.length).toBe(4)
  })

  it('is answered without thinking when it is asked to', async () => {
    const chat = newChat(opened)
    const { text, reasoning } = await read(chat.send('Why?', { think: false, maxTokens: 10, seed: 3, ignoreEos: true }))
    expect(reasoning).toBe('')
    expect(text.length).toBeGreaterThan(3)
    expect(cached(chat)).toContain('<think>\n</think>\n')
    expect(await codeOf(() => read(chat.send('Why?', { think: 'no' as never })))).toBe('ERR_BAD_OPTION')
  })

  it('keeps the form of an answer for what comes behind the thinking', async () => {
    const chat = newChat(opened)
    const closed = { [opened.tokenizer!.tokenToId('</think>')!]: 60 }
    const { text } = await read(chat.send('Why?', { ...exactly('{"a":1}'), logitBias: closed, maxTokens: 60 }))
    expect(text).toBe('{"a":1}')
  })

  it('stays as far as it came when its reader leaves in the middle of the thinking', async () => {
    const chat = newChat(model)
    let seen = ''
    for await (const { reasoning = '' } of chat.send('Why?', exactly('<think>Let me see.</think>So.'))) {
      seen += reasoning
      if (seen.includes('me')) break
    }
    const last = chat.messages.at(-1)!
    expect([last.role, last.content]).toEqual(['assistant', ''])
    expect(last.reasoning_content).toContain('Let me')
  })
})

describe('stop texts', () => {
  const thought = '<think>\nA STOP here.\n\n</think>\n\nYes. STOP And more.'

  it('do not apply inside the thinking, nor to the empty lines behind it', async () => {
    for (const stop of [['STOP'], ['\n\n', ' STOP']]) {
      const chat = newChat(model)
      const { text, reasoning } = await read(chat.send('Why?', { ...exactly(thought), stop }))
      expect([reasoning, text.trimEnd()]).toEqual(['A STOP here.', 'Yes.'])
      expect(chat.last!.finishReason).toBe('stop')
    }
  })

  it('apply to an answer without thinking, in sessions and in a batch too', async () => {
    const { text } = await model.createSession().complete(ask, { ...exactly('Yes. STOP no'), stop: 'STOP' })
    expect(text).toBe('Yes. ')
    const thinking = ['<think>', '</think>'] as const
    const options = { ...exactly('x'), stop: 'STOP', thinking, showSpecial: thinking }
    const batch = new Batch(model)
    const prompt = await model.encodeChat(ask)
    for (const [said, expected] of [
      [thought, '<think>\nA STOP here.\n\n</think>\n\nYes. '],
      ['Yes. STOP no', 'Yes. '],
    ] as const) {
      const constraint = await model.constrain({ regex: exactly(said).regex })
      const { regex: _, ...others } = options
      let told = ''
      for await (const piece of batch.generate(prompt, { ...others, constraint })) told += piece.text
      expect(told).toBe(expected)
    }
    await batch.close()
  })

  it('are found by the gate wherever the text is cut', () => {
    const random = new SeededRandom(11)
    const texts = [
      thought,
      ' <think>a</think>',
      '<think>never',
      '<thin',
      'no <think>x</think>',
      '',
      ' \n',
      '<think></think>b',
    ]
    for (const whole of texts) {
      const parts = (cuts: () => number) => {
        const gate = new ThinkingGate(['<think>', '</think>'], false)
        const found = { thinking: '', answer: '' }
        for (let at = 0; at < whole.length; ) {
          const end = at + cuts()
          const { thinking, answer } = gate.push(whole.slice(at, end))
          expect(answer !== '' && found.thinking.length + found.answer.length > whole.length).toBe(false)
          found.thinking += thinking
          found.answer += answer
          at = end
        }
        found.answer += gate.flush()
        return found
      }
      const expected = parts(() => whole.length)
      expect(expected.thinking + expected.answer).toBe(whole)
      for (let round = 0; round < 30; round++) expect(parts(() => 1 + random.integer(5))).toEqual(expected)
    }
  })

  it('are refused with marks that are none', async () => {
    for (const thinking of ['<think>', ['<think>'], ['', '</think>'], [1, 2]]) {
      expect(await codeOf(() => read(model.createSession().generate('x', { thinking: thinking as never })))).toBe(
        'ERR_BAD_OPTION',
      )
    }
  })
})

describe('a session', () => {
  it('tells it apart after messages, and leaves raw text alone', async () => {
    const session = model.createSession()
    const said = exactly('<think>\nHm.\n</think>\n\nSo.')
    const { text, reasoning } = await session.complete(ask, said)
    expect([text, reasoning]).toEqual(['So.', 'Hm.'])
    const raw = await model.createSession().complete('Why?', { ...said, showSpecial: ['<think>', '</think>'] })
    expect([raw.text, raw.reasoning]).toEqual(['<think>\nHm.\n</think>\n\nSo.', undefined])
    expect(await plain.createSession().complete(ask, exactly('So.'))).not.toHaveProperty('reasoning')
  })

  it('can be left in the middle, and serves again', async () => {
    const session = model.createSession()
    for await (const piece of session.generate(ask, exactly('<think>Hm, well.</think>So.'))) {
      if (piece.reasoning?.includes('H')) break
    }
    expect(session.busy).toBe(false)
    expect((await session.complete(ask, exactly('So.'))).text).toBe('So.')
  })
})

describe('the marks', () => {
  it.each([
    ['{{ "<think>" }}', ['<think>', '</think>']],
    ['{{ content.split("[/THINK]") }}', ['[THINK]', '[/THINK]']],
    ['<seed:think>', ['<seed:think>', '</seed:think>']],
    ['{{ messages }}', undefined],
  ])('are those of the template: %s', (template, marks) => {
    expect(answerFormat(template).marks).toEqual(marks)
    const parser = answerFormat(template).parser()
    const [open, close] = marks ?? ['<think>', '</think>']
    const parts = [...parser.push(`${open}a${close}b`), ...parser.flush()]
    expect(parts.some(({ type }) => type === 'reasoning')).toBe(marks !== undefined)
  })
})

/** What a terminal shows, and what stands on stdout. */
async function printed(values: Record<string, string>, isTTY: boolean, quiet = false) {
  const shown = { screen: '', out: '' }
  const screen = {
    isTTY,
    write(text: string) {
      shown.screen += text
    },
  }
  const printer = new AnswerPrinter(values, quiet, screen, async (text) => {
    shown.out += text
  })
  const pieces: Piece[] = [
    { id: 1, text: '', reasoning: 'Let me' },
    { id: 2, text: '', reasoning: ' see.' },
    { id: 3, text: '' },
    { id: 4, text: 'So.' },
  ]
  await printer.print(
    (async function* () {
      yield* pieces
    })(),
  )
  return shown
}

describe('the terminal', () => {
  it('shows the thinking dimmed, shortened, or not at all; the answer alone stands on stdout', async () => {
    const dim = (text: string) => (process.env.NO_COLOR ? text : `\u001b[2m${text}\u001b[22m`)
    expect(await printed({}, true)).toEqual({ screen: `${dim('Let me')}${dim(' see.')}\n\n`, out: 'So.' })
    expect(await printed({ think: 'show' }, false)).toEqual({ screen: 'Let me see.\n\n', out: 'So.' })
    const short = `${dim('thinking…')}\r\u001b[K${dim('thought for 2 tokens')}\n`
    expect(await printed({ think: 'hide' }, true)).toEqual({ screen: short, out: 'So.' })
    expect(await printed({ think: 'hide' }, false)).toEqual({ screen: 'thought for 2 tokens\n', out: 'So.' })
    expect(await printed({ think: 'off' }, true)).toEqual({ screen: '', out: 'So.' })
    expect(await printed({ think: 'show' }, true, true)).toEqual({ screen: '', out: 'So.' })
  })

  it('asks the template for it only when it was asked for', () => {
    expect(sendOptions({})).toEqual({})
    expect(sendOptions({ think: 'hide', n: 3 })).toEqual({ think: true, maxTokens: 3 })
    expect(sendOptions({ think: 'off' })).toEqual({ think: false })
    expect(thinkNote(model, { think: 'off' })).toBeUndefined()
    expect(thinkNote(plain, { think: 'off' })).toBeUndefined()
    const without = { chatTemplate: { source: '<think>' } } as Model
    expect(thinkNote(without, { think: 'off' })).toContain('no switch')
    expect(thinkNote(without, { think: 'show' })).toBeUndefined()
  })

  const run = (...args: string[]) =>
    program('onebit', ['run', folder.path('opened.obt'), '-p', 'Why?', '-n', '12', '--seed', '3', ...args])

  it('keeps the thinking of a script’s answer off stdout', () => {
    const shown = run('--chat')
    expect([shown.status, shown.stdout]).toEqual([0, ''])
    const hidden = run('--chat', '--think', 'hide')
    expect(hidden.stderr).toMatch(/thought for \d+ tokens?\n/)
    const off = run('--chat', '--think', 'off', '-q')
    expect([off.status, off.stderr]).toEqual([0, ''])
    expect(off.stdout.length).toBeGreaterThan(1)
    expect(run('--think', 'off').status).toBe(2)
    expect(run('--chat', '--think', 'maybe').status).toBe(2)
  })

  it('changes it with /think', async () => {
    const told: string[] = []
    const values: Record<string, string> = {}
    const desk = { values, tell: (line: string) => void told.push(line) } as unknown as Desk
    await runChatCommand(desk, { name: 'think', rest: '' })
    await runChatCommand(desk, { name: 'think', rest: 'hide' })
    expect([values.think, told]).toEqual(['hide', ['Thinking: show', 'Thinking: hide']])
    expect(await codeOf(() => runChatCommand(desk, { name: 'think', rest: 'loudly' }))).toBe('ERR_BAD_OPTION')
  })
})
