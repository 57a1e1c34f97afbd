/**
 * Every command when one of its streams takes nothing: notes may be lost, results never silently, and work that is going
 * on is not ended by a note that nobody reads.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { onebit, program, programWords } from './command.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'
import { safetensorsFile, tinyHfConfig, tinyTensors, writeFolder } from './tiny-source.js'

const folder = temporaryFolder()
const MODEL = folder.path('tiny.obt')
const TEXT = folder.path('text.txt')
const SOURCE = folder.path('source')
const CONVERTED = folder.path('converted.obt')
beforeAll(async () => {
  await writeTinyModel(MODEL)
  writeFileSync(TEXT, 'the quick brown fox '.repeat(40))
  writeFolder(SOURCE, tinyHfConfig(), { 'model.safetensors': safetensorsFile(tinyTensors()) })
})
afterAll(() => folder.remove())

const RUN = ['run', MODEL, '-p', 'abc', '-n', '40', '--seed', '1', '-t', '1']
/** `same`: what it prints is the same every time */
const COMMANDS: { name: string; args: string[]; same: boolean }[] = [
  { name: 'run', args: RUN, same: true },
  { name: 'run --chat', args: [...RUN, '--chat'], same: true },
  { name: 'score', args: ['score', MODEL, '--text', 'hello', '-t', '1'], same: true },
  { name: 'perplexity', args: ['perplexity', MODEL, TEXT, '-c', '64', '-t', '1'], same: true },
  { name: 'info', args: ['info', MODEL, '--tensors'], same: true },
  { name: 'doctor', args: ['doctor', MODEL], same: false },
  {
    name: 'bench',
    args: ['bench', MODEL, '-p', '8', '-n', '2', '-r', '1', '-t', '1', '--no-peaks', '--no-first-token'],
    same: false,
  },
  { name: 'help', args: ['--help'], same: true },
  { name: 'run --help', args: ['run', '--help'], same: true },
  { name: '--version', args: ['--version'], same: true },
]
const CONVERT = { name: 'convert', args: ['convert', SOURCE, '-o', CONVERTED, '--type', 'onebit'], same: true }

/** Runs a command whose reader of `stream` leaves before anything is written. */
async function withoutReader(args: string[], stream: 'stdout' | 'stderr') {
  const [command, script] = programWords()
  const child = spawn(command!, [script!, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  child[stream].destroy()
  const texts = { stdout: '', stderr: '' }
  const other = stream === 'stdout' ? 'stderr' : 'stdout'
  child[other].on('data', (data) => {
    texts[other] += data
  })
  const [status, signal] = await once(child, 'close')
  return { status, signal, ...texts }
}

/** /dev/full: a disk without space. */
function onFullDisk(args: string[], ...streams: ('stdout' | 'stderr')[]) {
  const full = openSync('/dev/full', 'w')
  const where = (name: 'stdout' | 'stderr') => (streams.includes(name) ? full : ('pipe' as const))
  try {
    return program('onebit', args, { stdio: ['ignore', where('stdout'), where('stderr')] })
  } finally {
    closeSync(full)
  }
}

const shell = (line: string, args: string[]) =>
  spawn('sh', ['-c', `"$@" ${line}`, 'sh', ...programWords(), ...args], { stdio: ['ignore', 'pipe', 'pipe'] })

async function throughShell(line: string, args: string[]) {
  const child = shell(line, args)
  let stdout = ''
  let stderr = ''
  child.stdout.on('data', (data) => {
    stdout += data
  })
  child.stderr.on('data', (data) => {
    stderr += data
  })
  const [status] = await once(child, 'close')
  return { status, stdout, stderr }
}

const posix = process.platform !== 'win32'
const fullDisk = existsSync('/dev/full')
if (!fullDisk) console.warn('skipped: there is no /dev/full here')

describe('without a reader of stderr, or with a full disk behind it', () => {
  it.each([...COMMANDS, CONVERT])('$name does its work', async ({ args, same }) => {
    rmSync(CONVERTED, { force: true })
    const good = onebit(...args)
    expect(good.status).toBe(0)
    const outcomes = [
      await withoutReader(args, 'stderr'),
      ...(fullDisk ? [onFullDisk(args, 'stderr')] : []),
      ...(posix ? [await throughShell('2>&-', args)] : []),
    ]
    for (const { status, stdout } of outcomes) {
      if (same) expect(stdout).toBe(good.stdout)
      expect(stdout.length > 0).toBe(good.stdout.length > 0)
      expect(status).toBe(0)
    }
    if (args[0] === 'convert') expect(onebit('info', CONVERTED).status).toBe(0)
  })

  it('an error keeps its status', async () => {
    for (const [status, args] of [
      [1, ['run', 'nowhere.obt', '-p', 'a']],
      [2, ['run', '--fly']],
    ] as const) {
      expect((await withoutReader([...args], 'stderr')).status).toBe(status)
      if (fullDisk) expect(onFullDisk([...args], 'stderr').status).toBe(status)
    }
  })
})

describe('stdout', () => {
  it.skipIf(!fullDisk).each(COMMANDS)('of $name on a full disk: one line and status 1', ({ args }) => {
    const { status, stderr } = onFullDisk(args, 'stdout')
    expect(stderr.split('\n').filter((line) => line.startsWith('onebit:'))).toEqual([
      'onebit: Standard output cannot be written: the disk is full [ERR_DISK_FULL]',
    ])
    expect(stderr).not.toMatch(/\n\s+at /)
    expect(status).toBe(1)
    expect(onFullDisk(args, 'stdout', 'stderr').status).toBe(1)
  })

  it.each(COMMANDS)('of $name without a reader: the command ends and says nothing', async ({ args }) => {
    const { status, stderr } = await withoutReader(args, 'stdout')
    expect(stderr).not.toMatch(/onebit:|EPIPE/)
    expect(status).toBe(0)
  })

  it.skipIf(!posix)('whose reader leaves after the first line is no error', async () => {
    const { status, stdout, stderr } = await throughShell('| head -n 1', ['info', MODEL, '--tensors'])
    expect([status, stderr]).toEqual([0, ''])
    expect(stdout.split('\n').length).toBe(2)
    // An answer without end: it ends because nobody reads it.
    const endless = await throughShell('-q | head -c 4', ['run', MODEL, '--chat', '-p', 'a', '--seed', '1'])
    expect([endless.status, endless.stderr]).toEqual([0, ''])
    expect(endless.stdout.length).toBeGreaterThan(0)
  })
})
