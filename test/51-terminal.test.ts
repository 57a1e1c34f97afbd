/** The chat as a person meets it: in a terminal, with Ctrl-C. `script` (util-linux) gives us a pseudo-terminal. */
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { PROJECT } from './data.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'

const noTerminal = process.platform !== 'linux' || spawnSync('script', ['--version']).status !== 0
if (noTerminal) console.warn('skipped: the terminal tests need util-linux script')

/** Where what is typed here is remembered; empty: nowhere. */
let history = ''

const PATIENCE_MS = 200_000
const CTRL_C = '\x03'

class Terminal {
  readonly #child: ChildProcessWithoutNullStreams
  readonly status: Promise<number | null>
  output = ''

  constructor(args: string[], term = 'dumb') {
    const words = [process.execPath, join(PROJECT, 'dist', 'cli', 'onebit-run.js'), ...args]
    // `exec`: a shell that stayed would get every Ctrl-C too, and dash then says 130 whatever its child said.
    const command = `echo "pid $$"; exec ${words.map((word) => `'${word}'`).join(' ')}`
    this.#child = spawn('script', ['-qfec', command, '/dev/null'], {
      env: { ...process.env, NO_COLOR: '1', TERM: term, ONEBIT_HISTORY: history },
    })
    this.#child.stdout.on('data', (data: Buffer) => {
      this.output += data.toString('utf8')
    })
    this.status = new Promise((resolve) => this.#child.on('close', resolve))
  }

  /** The process that chats. To be called first. */
  async pid(): Promise<number> {
    await this.until('pid ')
    return Number(await this.until('\r\n'))
  }

  /** `script` stops itself when it sees us stopped, and whether it does is chance. */
  async withScriptAwake<T>(action: () => Promise<T>): Promise<T> {
    const waking = setInterval(() => process.kill(this.#child.pid!, 'SIGCONT'), 50)
    try {
      return await action()
    } finally {
      clearInterval(waking)
    }
  }

  type(text: string): void {
    this.#child.stdin.write(text)
  }

  /** Waits until `text` appears in what came after the last call. */
  async until(text: string): Promise<string> {
    const patience = new Promise((resolve) => setTimeout(resolve, PATIENCE_MS).unref())
    const over = Promise.race([this.status, patience]).then(() => 'over')
    while (!this.output.includes(text)) {
      const next = await Promise.race([once(this.#child.stdout, 'data'), over])
      if (next === 'over' && !this.output.includes(text)) {
        throw new Error(`no ${JSON.stringify(text)} in ${JSON.stringify(this.output)}`)
      }
    }
    const end = this.output.indexOf(text) + text.length
    const seen = this.output.slice(0, end)
    this.output = this.output.slice(end)
    return seen
  }
}

describe.skipIf(noTerminal)('chatting in a terminal', () => {
  const folder = temporaryFolder()
  const MODEL = folder.path('chat.obt')
  beforeAll(() => writeTinyModel(MODEL, { context: 160, dim: 256 }))
  afterAll(() => folder.remove())
  const chat = (...args: string[]) => new Terminal([MODEL, '--seed', '1', ...args])

  it('answers, forgets with /reset, and leaves with /exit', async () => {
    const terminal = chat('-n', '8')
    await terminal.until('> ')
    terminal.type('hello\r')
    expect(await terminal.until('ended by')).toContain('8 new')
    await terminal.until('> ')
    terminal.type('/reset\r')
    await terminal.until('forgotten')
    terminal.type('/what\r')
    await terminal.until('There is no /what')
    terminal.type('/exit\r')
    expect(await terminal.status).toBe(0)
  })

  it('stops an answer at Ctrl-C, says at an empty prompt how to leave, and leaves at the next', async () => {
    const terminal = chat()
    await terminal.until('> ')
    // Without -n the answer is endless: at the end of the context old turns go and it goes on.
    terminal.type('hello\r')
    await terminal.until('The context is full')
    terminal.type(CTRL_C)
    // Not the prompt alone: a tiny model's noise has "> " in it.
    await terminal.until('stopped\r\n')
    await terminal.until('> ')
    terminal.type(CTRL_C)
    await terminal.until('Ctrl-C once more leaves')
    await terminal.until('> ')
    terminal.type(CTRL_C)
    expect(await terminal.status).toBe(0)
  })

  it('takes with Ctrl-C first what is typed already', async () => {
    const terminal = chat('-n', '4')
    await terminal.until('> ')
    terminal.type(`half of a message${CTRL_C}`)
    await terminal.until('\r\n')
    terminal.type('first line\\\r')
    await terminal.until('… ')
    terminal.type(CTRL_C)
    terminal.type('/set seed 5\r')
    expect(await terminal.until('seed  ')).not.toContain('once more')
    terminal.type(`${CTRL_C}`)
    await terminal.until('Ctrl-C once more leaves')
    terminal.type('/what\r')
    await terminal.until('There is no /what')
    terminal.type(`${CTRL_C}`)
    await terminal.until('Ctrl-C once more leaves')
    terminal.type(`${CTRL_C}`)
    expect(await terminal.status).toBe(0)
  })

  it('takes a signal that comes twice for one Ctrl-C, as npm sends its own after that of the terminal', async () => {
    const terminal = chat()
    const pid = await terminal.pid()
    await terminal.until('> ')
    terminal.type('hello\r')
    await terminal.until('The context is full')
    process.kill(pid, 'SIGINT')
    await terminal.until('stopped\r\n')
    await terminal.until('> ')
    process.kill(pid, 'SIGINT')
    terminal.type('/what\r')
    await terminal.until('There is no /what')
    process.kill(pid, 'SIGINT')
    expect(await terminal.status).toBe(0)
  })

  it('leaves with 0 whatever signals arrive on the way out', async () => {
    const terminal = chat()
    const pid = await terminal.pid()
    await terminal.until('> ')
    terminal.type('/exit\r')
    await terminal.until('/exit')
    let left = false
    void terminal.status.then(() => {
      left = true
    })
    while (!left) {
      try {
        process.kill(pid, 'SIGINT')
      } catch {
        // It has gone, and `script` is about to say so.
      }
      await new Promise((resolve) => setImmediate(resolve))
    }
    expect(await terminal.status).toBe(0)
  })

  it('answers every line, typed before the first question, pasted, or typed during an answer', async () => {
    const terminal = chat('-n', '4')
    terminal.type('early\r')
    await terminal.until('4 new')
    terminal.type('first\rsecond\rthird\r')
    for (let i = 0; i < 3; i++) await terminal.until('4 new')
    terminal.type('long\r')
    await terminal.until('\r\n') // its answer begins
    terminal.type('/what\r/reset\r/exit\r')
    await terminal.until('There is no /what')
    await terminal.until('forgotten')
    expect(await terminal.status).toBe(0)
  })

  it('takes a paste in brackets for one message', async () => {
    const terminal = new Terminal([MODEL, '--seed', '1', '-n', '1'], 'xterm')
    await terminal.until('\x1b[?2004h')
    const tokens = async (typed: string) => {
      terminal.type(typed)
      return Number(/\[(\d+) prompt tokens/.exec(await terminal.until(' prompt tokens'))![1])
    }
    const short = await tokens('abcdef\r')
    await terminal.until('ended by')
    terminal.type('/reset\r')
    await terminal.until('forgotten')
    // One token a byte.
    expect(await tokens('a\x1b[200~bc\rdef\rghi\r\x1b[201~jk\r')).toBe(
      short + 'abc\ndef\nghijk'.length - 'abcdef'.length,
    )
    terminal.type('/exit\r')
    await terminal.until('\x1b[?2004l')
    expect(await terminal.status).toBe(0)
  })

  it('loses nothing of a long line that is typed during an answer', async () => {
    const terminal = chat('-n', '100')
    await terminal.until('> ')
    terminal.type('hello\r')
    await terminal.until('\r\n')
    // A terminal in its normal mode keeps 4095 letters of a line.
    terminal.type(`${'x'.repeat(6000)}\r`)
    expect(await terminal.until('ERR_CONTEXT_FULL')).toMatch(/The message has 60\d\d tokens/)
    terminal.type('/exit\r')
    expect(await terminal.status).toBe(0)
  })

  it('forgets at Ctrl-C what was typed during the answer', async () => {
    const terminal = chat()
    await terminal.until('> ')
    terminal.type('hello\r')
    await terminal.until('The context is full')
    terminal.type(`one\rtwo\r${CTRL_C}`)
    await terminal.until('stopped, and 2 waiting lines forgotten')
    terminal.type('/what\r')
    await terminal.until('There is no /what')
    terminal.type(CTRL_C)
    await terminal.until('Ctrl-C once more leaves')
    terminal.type(CTRL_C)
    expect(await terminal.status).toBe(0)
  })

  it('goes on after Ctrl-Z, at a question and in an answer', async () => {
    const terminal = chat('-n', '20')
    const pid = await terminal.pid()
    await terminal.until('> ')
    // `script` makes a session of its own for us, whose processes the system does not stop: as if continued at once.
    terminal.type('\x1a/what\r')
    await terminal.until('There is no /what')
    terminal.type('hello\r\x1a')
    await terminal.until('20 new')
    process.kill(pid, 'SIGSTOP')
    process.kill(pid, 'SIGCONT')
    terminal.type('again\r')
    await terminal.withScriptAwake(() => terminal.until('20 new'))
    terminal.type('/exit\r')
    expect(await terminal.status).toBe(0)
  })

  it('takes lines that end with a backslash together, and finds them again in the next run', async () => {
    history = folder.path('history')
    try {
      const terminal = chat('-n', '1')
      await terminal.until('> ')
      terminal.type('ab\\\rcd\r')
      await terminal.until('… ')
      // One token a byte, three of them in the template.
      const together = await terminal.until('ended by')
      terminal.type('/reset\r')
      await terminal.until('forgotten')
      terminal.type('\x1b[200~ab\rcd\x1b[201~\r')
      const pasted = await terminal.until('ended by')
      const tokens = (line: string) => /\[(\d+) prompt tokens/.exec(line)![1]
      expect(tokens(together)).toBe(tokens(pasted))
      terminal.type(`/save ${folder.path('chat.session')}\r`)
      await terminal.until('Saved to')
      terminal.type('\x04')
      expect(await terminal.status).toBe(0)

      const again = new Terminal([MODEL, '--seed', '1', '-n', '1'], 'xterm')
      await again.until('> ')
      again.type(`/load ${folder.path('chat.session')}\r`)
      await again.until('2 messages')
      const up = '\x1b[A'
      again.type(`${up}${up}${up}\r`)
      expect(await again.until('ended by')).toMatch(/\((\d+) cached\)/)
      again.type('/undo\r')
      await again.until('Taken back: ab…')
      again.type('/exit\r')
      expect(await again.status).toBe(0)
    } finally {
      history = ''
    }
  })

  it('leaves at Ctrl-D', async () => {
    const terminal = chat()
    await terminal.until('> ')
    terminal.type('\x04')
    expect(await terminal.status).toBe(0)
  })

  it('goes on after a message that is too long', async () => {
    const terminal = chat('-n', '4')
    await terminal.until('> ')
    terminal.type(`${'x'.repeat(300)}\r`)
    await terminal.until('ERR_CONTEXT_FULL')
    terminal.type('hi\r')
    await terminal.until('4 new')
    terminal.type('/exit\r')
    expect(await terminal.status).toBe(0)
  })
})
