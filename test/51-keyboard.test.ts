/** What is typed reaches the questions in order and whole, however it is cut and whenever it comes. */
import { PassThrough } from 'node:stream'
import { afterEach, describe, expect, it } from 'vitest'
import { Keyboard } from '../dist/cli/keyboard.js'

const ENTER = '\r'
const paste = (text: string) => `\x1b[200~${text}\x1b[201~`

let open: Desk[] = []
afterEach(() => {
  for (const desk of open) desk.keyboard.close()
  open = []
})

/** A keyboard with its screen, and a hand on it. */
class Desk {
  readonly input = new PassThrough()
  readonly screen = new PassThrough()
  interrupts = 0
  readonly keyboard = new Keyboard(this.input, this.screen, () => this.interrupts++)

  constructor() {
    open.push(this)
  }

  get shown(): string {
    return String(this.screen.read() ?? '')
  }

  async type(text: string): Promise<void> {
    this.input.write(text)
    await new Promise((resolve) => setImmediate(resolve))
  }

  ask(signal = new AbortController().signal): Promise<string | undefined> {
    return this.keyboard.ask('> ', signal)
  }
}

describe('lines', () => {
  it('answer one question each, whether they come before it, with it or after it', async () => {
    const desk = new Desk()
    await desk.type(`first${ENTER}second${ENTER}`)
    expect(await desk.ask()).toBe('first')
    expect(await desk.ask()).toBe('second')
    const third = desk.ask()
    await desk.type(`third${ENTER}fourth${ENTER}half of `)
    expect(await third).toBe('third')
    await desk.type(`the fifth${ENTER}`)
    expect(await desk.ask()).toBe('fourth')
    expect(await desk.ask()).toBe('half of the fifth')
  })

  it('end at any kind of line end', async () => {
    const desk = new Desk()
    await desk.type('a\nb\rc\r\n')
    expect([await desk.ask(), await desk.ask(), await desk.ask(), await desk.ask()]).toEqual(['a', 'b', 'c', ''])
  })

  it('can be edited while they are typed, and called back', async () => {
    const desk = new Desk()
    const [left, up, backspace] = ['\x1b[D', '\x1b[A', '\x7f']
    await desk.type(`helo${left}l${ENTER}${up}!${ENTER}x${backspace}y${ENTER}`)
    expect([await desk.ask(), await desk.ask(), await desk.ask()]).toEqual(['hello', 'hello!', 'y'])
  })

  it('are shown when they are asked for', async () => {
    const desk = new Desk()
    await desk.type(`typed ahead${ENTER}`)
    expect(desk.shown).not.toContain('typed')
    await desk.ask()
    expect(desk.shown).toMatch(/> .*typed ahead/s)
  })

  it('have the ends of a terminal only, not those of Unicode', async () => {
    const desk = new Desk()
    await desk.type(`a\u2028b\u2029c${ENTER}d${ENTER}`)
    expect([await desk.ask(), await desk.ask()]).toEqual(['a\u2028b\u2029c', 'd'])
  })

  it('of many letters stay whole', async () => {
    const desk = new Desk()
    const long = 'grüße 😀 '.repeat(2000)
    await desk.type(long + ENTER)
    expect(await desk.ask()).toBe(long)
  })

  it('end with the input', async () => {
    const desk = new Desk()
    await desk.type(`last${ENTER}`)
    desk.input.end()
    expect(await desk.ask()).toBe('last')
    expect(await desk.ask()).toBeUndefined()
  })

  it('are not there at Ctrl-D, and when the question is taken back', async () => {
    const desk = new Desk()
    const asked = desk.ask()
    await desk.type('\x04')
    expect(await asked).toBeUndefined()
    const leaving = new AbortController()
    const second = desk.ask(leaving.signal)
    await desk.type('half')
    leaving.abort()
    expect(await second).toBeUndefined()
  })
})

describe('a paste in brackets', () => {
  it('is one text', async () => {
    const desk = new Desk()
    await desk.type(`See: ${paste('one\rtwo\r\nthree\n')} ok?${ENTER}`)
    expect(await desk.ask()).toBe('See: one\ntwo\nthree ok?')
  })

  it('is one text wherever it is cut on its way', async () => {
    const keys = Buffer.from(`a${paste('ü\rb\x1b[31mc')}d${ENTER}e${ENTER}`)
    for (let cut = 0; cut <= keys.length; cut++) {
      for (const early of [false, true]) {
        const desk = new Desk()
        const first = early ? desk.ask() : undefined
        desk.input.write(keys.subarray(0, cut))
        await new Promise((resolve) => setImmediate(resolve))
        desk.input.write(keys.subarray(cut))
        expect([cut, await (first ?? desk.ask())]).toEqual([cut, 'aü\nb\x1b[31mcd'])
        expect([cut, await desk.ask()]).toEqual([cut, 'e'])
        desk.keyboard.close()
      }
    }
  })

  it('goes where the cursor is, and waits for Enter', async () => {
    const desk = new Desk()
    const asked = desk.ask()
    await desk.type(`ab\x1b[D${paste('1\r2\r')}`)
    expect(await Promise.race([asked, 'waiting'])).toBe('waiting')
    await desk.type(`3${ENTER}`)
    expect(await asked).toBe('a1\n23b')
  })

  it('is asked for from the terminal, and no more when it is given back', async () => {
    const desk = new Desk()
    expect(desk.shown).toBe('\x1b[?2004h')
    desk.keyboard.close()
    expect(desk.shown).toBe('\x1b[?2004l')
  })
})

describe('Ctrl-C', () => {
  it('is told at once, also behind lines that wait and in a paste without end', async () => {
    const desk = new Desk()
    await desk.type(`a${ENTER}b${ENTER}\x03`)
    expect(desk.interrupts).toBe(1)
    expect(desk.keyboard.forget()).toBe(2)
    await desk.type('\x1b[200~pasted\r\x03')
    expect(desk.interrupts).toBe(2)
    expect(desk.keyboard.forget()).toBe(0)
    await desk.type(`c${ENTER}`)
    expect(await desk.ask()).toBe('c')
  })
})

describe('many lines and pastes', () => {
  it('arrive in order, whatever the pieces and the pauses', async () => {
    let state = 1
    const random = (below: number) => {
      state = (Math.imul(state, 48271) >>> 0) % 0x7fffffff
      return state % below
    }
    for (let round = 0; round < 20; round++) {
      const desk = new Desk()
      const messages = Array.from({ length: 8 }, (_, i) => `m${i}${random(2) ? '\nmore' : ''}`)
      const keys = Buffer.from(
        messages.map((text) => `${text.includes('\n') ? paste(text.replace('\n', '\r')) : text}${ENTER}`).join(''),
      )
      const answers: (string | undefined)[] = []
      const asking = (async () => {
        for (const _ of messages) {
          answers.push(await desk.ask())
          for (let pause = random(4); pause > 0; pause--) await new Promise((resolve) => setImmediate(resolve))
        }
      })()
      for (let at = 0; at < keys.length; ) {
        const next = Math.min(keys.length, at + 1 + random(12))
        await desk.type(keys.toString('latin1', at, next))
        at = next
      }
      await asking
      expect(answers).toEqual(messages)
      desk.keyboard.close()
    }
  })
})
