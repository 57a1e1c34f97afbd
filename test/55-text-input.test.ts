/** Text that commands read: the same text is the same prompt however it comes, and nothing unreadable passes for text. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, truncateSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { onebit, program, programWords } from './command.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
const MODEL = folder.path('tiny.obt')
const FILE = folder.path('text.txt')
beforeAll(() => writeTinyModel(MODEL))
afterAll(() => folder.remove())

const posix = process.platform !== 'win32'
const RUN = ['run', MODEL, '-n', '0']

/** How many tokens a prompt has (BOS and one for each byte), by the way it comes in. */
function promptTokens(stderr: string): number {
  return Number(/^\[(\d+) prompt tokens/.exec(stderr)?.[1])
}
const fromFile = (text: string | Uint8Array) => {
  writeFileSync(FILE, text)
  return onebit(...RUN, '-f', FILE)
}
const fromInput = (text: string | Uint8Array) => program('onebit', RUN, { input: text })

describe('a prompt', () => {
  it.each([
    ['as it is', 'a\nb c', 5, 5],
    ['without its last line end', 'a\nb\n', 3, 4],
    ['without one line end, not all of them', 'a\n\n\n', 3, 4],
    ['of nothing but a line end', '\n', 0, 1],
    ['with line ends of Windows', 'a\r\nb\r\n', 3, 4],
    ['with line ends of old Macs', 'a\rb\r', 3, 4],
    ['with a byte order mark', '\ufeffa\nb', 3, 3],
    ['with a mark in its middle, which is text', 'a\ufeffb', 5, 5],
    ['of letters with more than one byte', 'grüß 😀', 11, 11],
  ])('%s', (_, text, bytes, typed) => {
    for (const { status, stderr } of [fromFile(text), fromInput(text)]) {
      expect(status).toBe(0)
      expect(promptTokens(stderr)).toBe(1 + bytes)
    }
    // In an argument the last line end was meant: a shell leaves those of files out by itself.
    expect(promptTokens(onebit(...RUN, `--prompt=${text}`).stderr)).toBe(1 + typed)
  })

  it.each([
    ['a byte that begins no letter', [0x61, 0xff, 0x62], 'is not UTF-8 text'],
    ['a letter cut short', [0x61, 0xc3], 'is not UTF-8 text'],
    ['UTF-16, little end first', [0xff, 0xfe, 0x61, 0x00], 'is UTF-16'],
    ['UTF-16, big end first', [0xfe, 0xff, 0x00, 0x61], 'is UTF-16'],
  ])('with %s is refused', (_, bytes, problem) => {
    for (const [what, { status, stdout, stderr }] of [
      [FILE, fromFile(Uint8Array.from(bytes))],
      ['Standard input', fromInput(Uint8Array.from(bytes))],
    ] as const) {
      expect(stderr).toMatch(/ \[ERR_TEXT_ENCODING\]\n {8}/)
      expect(stderr.startsWith(`onebit: ${what} ${problem}`)).toBe(true)
      expect([status, stdout]).toEqual([1, ''])
    }
  })

  it.skipIf(!posix)('that is a folder, or closed, is told as what it is', () => {
    mkdirSync(folder.path('a folder'))
    const shell = (redirection: string) =>
      spawnSync('sh', ['-c', `"$@" ${redirection}`, 'sh', ...programWords(), ...RUN, '-q'], { encoding: 'utf8' })
    const { status, stderr } = shell(`< '${folder.path('a folder')}'`)
    expect(stderr).toBe('onebit: Standard input is a folder. [ERR_READ]\n')
    expect(status).toBe(1)
    expect(onebit(...RUN, '-f', folder.path('a folder')).stderr).toContain('is a folder. [ERR_READ]')
    expect(shell('<&-').status).toBe(0)
  })

  it.skipIf(!posix)('may come through a pipe that has a name', () => {
    const line = 'printf "a\\r\\nb\\n" > "$0" & "$@"'
    const pipe = folder.path('pipe')
    expect(spawnSync('mkfifo', [pipe]).status).toBe(0)
    const { stderr } = spawnSync('sh', ['-c', line, pipe, ...programWords(), ...RUN, '-f', pipe], { encoding: 'utf8' })
    expect(promptTokens(stderr)).toBe(4)
  })

  it('is explained by --help', () => {
    const { stdout } = onebit('run', '--help')
    expect(stdout.replaceAll(/\s+/g, ' ')).toContain('their last line end is left out')
  })
})

describe('a text that is scored or measured', () => {
  it('has the same tokens in a file and in --text', () => {
    writeFileSync(FILE, '\ufeffab\r\ncd\r\n')
    expect(onebit('score', MODEL, '--file', FILE, '--json').stdout).toBe(
      onebit('score', MODEL, '--text', 'ab\ncd', '--json').stdout,
    )
  })

  it('is measured whole, but for a byte order mark', () => {
    writeFileSync(FILE, `\ufeff${'abc\r\n'.repeat(40)}`)
    const { stdout } = onebit('perplexity', MODEL, FILE, '-c', '64', '--json')
    expect(JSON.parse(stdout).tokens).toBe(1 + 4 * 40)
  })
})

describe('too much text', () => {
  /** Runs a command and says how much memory it had at its peak. */
  function measured(args: string[], line = '"$@"') {
    const peak = 'data:text/javascript,process.on("exit",()=>console.error("KiB",process.resourceUsage().maxRSS))'
    const [command, ...script] = programWords()
    const words = [command!, '--import', peak, ...script, ...args]
    const options = { encoding: 'utf8' as const, timeout: 100_000 }
    const { status, stderr } = posix
      ? spawnSync('sh', ['-c', line, 'sh', ...words], options)
      : spawnSync(words[0]!, words.slice(1), options)
    return { status, stderr, mib: Number(/KiB (\d+)/.exec(stderr)?.[1]) / 1024 }
  }

  it('in a file is refused before it is read', () => {
    writeFileSync(folder.path('large.txt'), '')
    truncateSync(folder.path('large.txt'), 900 * 2 ** 20)
    for (const args of [
      ['run', MODEL, '-f'],
      ['perplexity', MODEL],
      ['score', MODEL, '--file'],
    ]) {
      const { status, stderr, mib } = measured([...args, folder.path('large.txt')])
      expect(stderr).toMatch(
        /^onebit: .*large.txt has 943718400 bytes; at most 268435456 are read. \[ERR_TEXT_SIZE\]\n/,
      )
      expect(status).toBe(1)
      expect(mib).toBeLessThan(200)
    }
  })

  it.skipIf(!existsSync('/dev/zero'))('without end is refused at the limit', () => {
    for (const [what, { status, stderr, mib }] of [
      ['/dev/zero', measured(['run', MODEL, '-f', '/dev/zero'])],
      ['Standard input', measured(['run', MODEL], '"$@" < /dev/zero')],
    ] as const) {
      expect(stderr).toContain(
        `onebit: ${what} has more than 268435456 bytes, which is the most that is read. [ERR_TEXT_SIZE]\n`,
      )
      expect(status).toBe(1)
      expect(mib).toBeLessThan(500)
    }
  })
})
