/** The commands as a user types them: what goes to stdout, what to stderr, and the exit status. */
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { onebit, program, programWords } from './command.js'
import { PROJECT } from './data.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
const MODEL = folder.path('tiny.obt')
const BARE = folder.path('bare.obt')

beforeAll(async () => {
  await writeTinyModel(MODEL)
  await writeTinyModel(BARE, { tokenizer: false, chat: false, kind: 'q8' })
})
afterAll(() => folder.remove())

const CLI = programWords().slice(1)

async function ending(child: ChildProcessWithoutNullStreams) {
  let stderr = ''
  child.stderr.on('data', (data) => {
    stderr += data
  })
  const [status, signal] = await once(child, 'close')
  return { status, signal, stderr }
}

describe('run', () => {
  it('prints only the generated text to stdout, the same for the same seed', () => {
    const first = onebit('run', MODEL, '-p', 'abc', '-n', '12', '--seed', '7')
    const second = onebit('run', MODEL, '-p', 'abc', '-n', '12', '--seed', '7')
    expect(first.status).toBe(0)
    expect(first.stdout.length).toBeGreaterThan(0)
    expect(first.stdout).toBe(second.stdout)
    expect(first.stderr).toContain('12 new')
    expect(onebit('run', MODEL, '-p', 'abc', '-n', '12', '--seed', '8').stdout).not.toBe(first.stdout)
  })

  it('prints the same text with a small model that guesses, and says what is wrong with one that cannot', () => {
    const options = ['-p', 'abc', '-n', '12', '--seed', '7', '-q']
    const plain = onebit('run', MODEL, ...options)
    for (const speculate of ['auto', '5'])
      expect(onebit('run', MODEL, ...options, '--draft', MODEL, '--speculate', speculate)).toEqual(plain)
    const missing = onebit('run', MODEL, ...options, '--draft', folder.path('none.obt'))
    expect([missing.status, missing.stdout]).toEqual([1, ''])
    expect(missing.stderr).toContain('none.obt')
  })

  it('takes the prompt from -p, -f and standard input alike', () => {
    writeFileSync(folder.path('prompt.txt'), 'Once upon')
    const options = ['-n', '8', '--temp', '0', '-q']
    const direct = onebit('run', MODEL, '-p', 'Once upon', ...options)
    const file = onebit('run', MODEL, '-f', folder.path('prompt.txt'), ...options)
    const piped = program('onebit-run', [MODEL, ...options], { input: 'Once upon' })
    expect(direct.stderr).toBe('')
    expect(file.stdout).toBe(direct.stdout)
    expect(piped.stdout).toBe(direct.stdout)
  })

  it('puts -p through the template with --chat', () => {
    const options = ['-p', 'hello', '-n', '8', '--temp', '0', '-q']
    const chat = onebit('run', MODEL, '--chat', ...options)
    expect(chat.status).toBe(0)
    expect(chat.stdout).not.toBe(onebit('run', MODEL, ...options).stdout)
    const promptTokens = (...more: string[]) => {
      const { stderr } = onebit('run', MODEL, '--chat', '-p', 'hello', '-n', '1', ...more)
      return Number(/\[(\d+) prompt tokens/.exec(stderr)?.[1])
    }
    expect(promptTokens('--system', 'Be loud.')).toBeGreaterThan(promptTokens() + 'Be loud.'.length)
  })

  it('generates nothing with -n 0 and stops before a stop string', () => {
    expect(onebit('run', MODEL, '-p', 'abc', '-n', '0').stdout).toBe('')
    const text = onebit('run', MODEL, '-p', 'abc', '-n', '20', '--temp', '0').stdout
    const stop = [...text][4]!
    const stopped = onebit('run', MODEL, '-p', 'abc', '-n', '20', '--temp', '0', '--stop', stop).stdout
    expect(stopped).toBe(text.slice(0, text.indexOf(stop)))
  })

  it('ends quietly when the reader of its output leaves', async () => {
    const cli = join(PROJECT, 'dist', 'cli', 'onebit.js')
    const command = `"${process.execPath}" "${cli}" run "${MODEL}" -p abc -n 200 | head -c 1`
    if (process.platform === 'win32') return
    const child = spawn('sh', ['-c', command], { stdio: ['ignore', 'ignore', 'pipe'] })
    let stderr = ''
    child.stderr.on('data', (data) => {
      stderr += data
    })
    await new Promise((resolve) => child.on('close', resolve))
    expect(stderr).not.toContain('EPIPE')
  })

  it('goes on when the context of --chat is full, and says so', () => {
    const { status, stderr } = onebit('run', MODEL, '--chat', '-p', 'a', '-n', '300', '--seed', '1')
    expect(status).toBe(0)
    expect(stderr).toContain('The context is full')
    expect(stderr).toContain('ended by length')
  })

  // Twice, as npm passes on what the terminal has sent already.
  it.skipIf(process.platform === 'win32')('stops at SIGINT with status 130 and what there is', async () => {
    // A chat without -n never ends: when the context is full, its beginning is forgotten.
    const child = spawn(process.execPath, [...CLI, 'run', MODEL, '--chat', '-p', 'a', '--seed', '1'])
    child.stdout.once('data', () => {
      child.kill('SIGINT')
      child.kill('SIGINT')
    })
    expect(await ending(child)).toEqual({
      status: 130,
      signal: null,
      stderr: expect.stringContaining('ended by abort'),
    })
  })
})

describe('convert', () => {
  it.skipIf(process.platform === 'win32')('stops at SIGINT with status 130 and leaves nothing behind', async () => {
    const [dim, hidden, layers, heads, vocab] = [256, 1024, 6, 8, 64]
    const floats = layers * (4 * dim * dim + 3 * dim * hidden + 2 * dim) + vocab * dim + dim + 32 * (dim / heads)
    const weights = new Float32Array(floats).map((_, i) => ((i * 2654435761) % 127) - 63)
    const header = Int32Array.of(dim, hidden, layers, heads, heads, vocab, 32)
    writeFileSync(folder.path('llama2c.bin'), Buffer.concat([header, weights].map((part) => Buffer.from(part.buffer))))
    mkdirSync(folder.path('stopped'))
    const output = join(folder.path('stopped'), 'out.obt')
    const child = spawn(process.execPath, [
      ...CLI,
      'convert',
      folder.path('llama2c.bin'),
      '-o',
      output,
      '--type',
      'onebit',
    ])
    // Each of the 42 matrices has a line.
    child.stderr.once('data', () => {
      child.kill('SIGINT')
      child.kill('SIGINT')
    })
    expect(await ending(child)).toEqual({
      status: 130,
      signal: null,
      stderr: expect.stringMatching(/nothing was written\.\n$/),
    })
    expect(readdirSync(folder.path('stopped'))).toEqual([])
  })
})

describe('a package as npm installs it, without a binary for this machine', () => {
  it('says so, and where to get one, and never that a model is bad', () => {
    const installed = folder.path('installed')
    cpSync(join(PROJECT, 'dist'), join(installed, 'dist'), { recursive: true })
    cpSync(join(PROJECT, 'package.json'), join(installed, 'package.json'))
    symlinkSync(join(PROJECT, 'node_modules'), join(installed, 'node_modules'), 'junction')
    for (const args of [['doctor'], ['run', MODEL, '-p', 'a']]) {
      const argv = [join(installed, 'dist', 'cli', 'onebit.js'), ...args]
      const { status, stdout, stderr } = spawnSync(process.execPath, argv, { encoding: 'utf8' })
      expect(status).toBe(1)
      expect(stderr).toMatch(/^onebit: The native addon for \S+ is not there: .* \[ERR_ADDON\]\n {8}.*npx onebit build/)
      expect(stdout).toMatch(args[0] === 'doctor' ? /^node {8}.*\ncpu .*\nmemory .*\n$/ : /^$/)
    }
  })
})

describe('score and perplexity', () => {
  it('scores a text and ids alike, the first log-probability being null', () => {
    const text = onebit('score', MODEL, '--text', 'hello', '--json')
    const scored = JSON.parse(text.stdout) as { ids: number[]; token_logprobs: number[]; top_logprobs: object[] }
    expect(scored.ids).toEqual([256, ...Buffer.from('hello')])
    expect(scored.token_logprobs[0]).toBeNull()
    expect(scored.top_logprobs[0]).toBeNull()
    expect(scored.token_logprobs.slice(1).every((value) => value < 0)).toBe(true)
    expect(Object.keys(scored.top_logprobs[1]!).length).toBeGreaterThan(0)
    const ids = onebit('score', MODEL, '--ids', scored.ids.join(','), '--json')
    expect(ids.stdout).toBe(text.stdout)
  })

  it('scores ids with a model that has no tokenizer', () => {
    const { status, stdout } = onebit('score', BARE, '--ids', '1,2,3', '--json')
    expect(status).toBe(0)
    expect(JSON.parse(stdout).token_logprobs.length).toBe(3)
  })

  it('measures perplexity over consecutive blocks', () => {
    writeFileSync(folder.path('text.txt'), 'The quick brown fox jumps over the lazy dog.\r\n'.repeat(8))
    const run = onebit('perplexity', MODEL, folder.path('text.txt'), '--ctx', '64', '--json')
    const result = JSON.parse(run.stdout) as { perplexity: number; chunks: number; tokens: number; nll: number }
    // BOS, and the line ends count as one token.
    expect(result.tokens).toBe(1 + 45 * 8)
    expect(result.chunks).toBe(5)
    expect(result.perplexity).toBeCloseTo(Math.exp(result.nll), 6)
    const ids = [256, ...Buffer.from(readFileSync(folder.path('text.txt'), 'utf8').replaceAll('\r\n', '\n'))]
    let sum = 0
    for (let block = 0; block < 5; block++) {
      const list = ids.slice(block * 64, block * 64 + 64).join(',')
      const { token_logprobs } = JSON.parse(onebit('score', MODEL, '--ids', list, '--top', '0', '--json').stdout)
      sum -= token_logprobs.slice(1).reduce((total: number, value: number) => total + value, 0) / 63
    }
    expect(result.nll).toBeCloseTo(sum / 5, 4)
  })
})

describe('info and doctor', () => {
  it('shows the bits per weight of the linears and of the whole file', () => {
    const info = JSON.parse(onebit('info', MODEL, '--json', '--tensors').stdout)
    expect(info.size.bitsPerLinearWeight).toBeGreaterThan(1)
    expect(info.size.bitsPerWeightOfFile).toBeGreaterThan(info.size.bitsPerLinearWeight)
    expect(info.tensors.length).toBeGreaterThan(20)
    const text = onebit('info', MODEL).stdout
    expect(text).toContain('signs with g and h, LayerNorm')
    expect(text).toContain('in the whole file')
  })

  it('checks the machine and a model on every path', () => {
    const { status, stdout } = onebit('doctor', MODEL, '--json')
    const report = JSON.parse(stdout)
    expect(status).toBe(0)
    expect(report.healthy).toBe(true)
    expect(report.checks.length).toBe(report.isas.filter((isa: { state: string }) => isa.state === 'usable').length)
    const text = onebit('doctor').stdout
    expect(text).toContain('All is well.')
    const amx = report.isas.find((isa: { name: string }) => isa.name === 'amx')
    expect(report.tiles).toBe(amx.state === 'usable' ? true : null)
    expect(text.includes('tiles       multiply as plain arithmetic does')).toBe(report.tiles === true)
  })

  it('finds a damaged model', () => {
    const bytes = readFileSync(MODEL)
    bytes[bytes.length - 2000]! ^= 1
    writeFileSync(folder.path('damaged.obt'), bytes)
    const { status, stderr } = onebit('doctor', folder.path('damaged.obt'))
    expect(status).toBe(1)
    expect(stderr).toContain('ERR_CHECKSUM')
  })
})

describe('wrong usage is status 2, bad input status 1, and neither shows a stack', () => {
  const usage: [string, string[]][] = [
    ['no command', []],
    ['an unknown command', ['fly']],
    ['an unknown option', ['run', MODEL, '--fly']],
    ['a missing model', ['info']],
    ['a surplus argument', ['info', MODEL, 'more']],
    ['a number that is none', ['run', MODEL, '-n', 'many']],
    ['a fraction for a count', ['run', MODEL, '-n', '1.5']],
    ['an unknown choice', ['run', MODEL, '--kv', 'f8']],
    ['-p and -f', ['run', MODEL, '-p', 'a', '-f', 'b']],
    ['no output', ['convert', MODEL]],
    ['a system message for raw text', ['run', MODEL, '-p', 'a', '--system', 'Be loud.']],
    ['two texts', ['score', MODEL, '--text', 'a', '--ids', '1']],
    ['bad ids', ['score', MODEL, '--ids', '1,x']],
  ]
  it.each(usage)('%s', (_, args) => {
    const { status, stderr, stdout } = onebit(...args)
    expect(status).toBe(2)
    expect(stderr + stdout).not.toMatch(/\n\s+at /)
    expect((stderr + stdout).length).toBeGreaterThan(10)
  })

  const input: [string, string[], string][] = [
    ['a model that is not there', ['run', 'nowhere.obt', '-p', 'a'], 'ERR_FILE_NOT_FOUND'],
    ['a model that is none', ['run', join(PROJECT, 'package.json'), '-p', 'a'], 'ERR_'],
    ['a prompt file that is not there', ['run', MODEL, '-f', 'nowhere.txt'], 'ERR_READ'],
    ['a prompt longer than the context', ['run', MODEL, '-p', 'x'.repeat(300)], 'ERR_CONTEXT_FULL'],
    ['a context beyond the model', ['run', MODEL, '-p', 'a', '--ctx', '512'], 'ERR_BAD_OPTION'],
    ['ids out of range', ['score', MODEL, '--ids', '1,9999'], 'ERR_TOKEN_RANGE'],
    ['text for a model without tokenizer', ['run', BARE, '-p', 'a'], 'ERR_NO_TOKENIZER'],
    ['a source that is not there', ['convert', 'nowhere', '-o', folder.path('x.obt')], 'ERR_'],
    ['a source of no known kind', ['convert', join(PROJECT, 'LICENSE'), '-o', folder.path('x.obt')], 'ERR_'],
    ['a text shorter than a block', ['perplexity', MODEL, 'short.txt', '--ctx', '256'], 'ERR_TEXT_TOO_SHORT'],
  ]
  it.each(input)('%s', (name, args, code) => {
    if (name === 'a text shorter than a block') {
      writeFileSync(folder.path('short.txt'), 'short')
      args = ['perplexity', MODEL, folder.path('short.txt'), '--ctx', '256']
    }
    const { status, stderr, stdout } = onebit(...args)
    expect(stderr).toContain(code)
    expect(status).toBe(1)
    expect(stdout).toBe('')
    expect(stderr).not.toMatch(/\n\s+at /)
    expect(existsSync(folder.path('x.obt'))).toBe(false)
  })

  it('an instruction set that is unknown or not there', () => {
    for (const isa of ['mmx', process.arch === 'x64' ? 'neon' : 'avx2']) {
      const { status, stderr } = program('onebit', ['run', MODEL, '-p', 'a'], { env: { ONEBIT_ISA: isa } })
      expect(status).toBe(1)
      expect(stderr).toContain('ERR_ISA')
    }
  })
})

describe('help', () => {
  it('explains every command', () => {
    const overview = onebit('--help')
    expect(overview.status).toBe(0)
    for (const command of ['run', 'convert', 'info', 'doctor', 'score', 'perplexity']) {
      expect(overview.stdout).toContain(command)
      const help = onebit(command, '--help')
      expect(help.status).toBe(0)
      expect(help.stdout).toContain(`Usage: onebit ${command}`)
    }
    expect(onebit('--version').stdout.trim()).toBe(
      JSON.parse(readFileSync(join(PROJECT, 'package.json'), 'utf8')).version,
    )
  })
})
