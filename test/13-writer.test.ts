/** The atomic writer: whole or not at all, whatever happens to the process or the disk. */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Model } from '../dist/index.js'
import { readObtHeader, writeObt } from '../dist/obt/obt.js'
import { PROJECT } from './data.js'
import { failure } from './expect-code.js'
import { pythonWith } from './python.js'
import { temporaryFolder, tinyConfig, writeTinyModel } from './tiny-model.js'

const LONG = process.env.ONEBIT_LONG === '1'
const folder = temporaryFolder()
afterAll(() => folder.remove())

const isRoot = process.getuid?.() === 0
const hasStrace = process.platform === 'linux' && spawnSync('strace', ['-V']).status === 0

/** A file system of 64 KiB, or a read-only one; only root on Linux can make one. */
function mountTmpfs(name: string, options: string): string | undefined {
  const path = folder.path(name)
  mkdirSync(path)
  const mounted =
    process.platform === 'linux' &&
    isRoot &&
    spawnSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', path]).status === 0
  return mounted ? path : undefined
}

const mounts: string[] = []
afterAll(() => {
  for (const path of mounts) execFileSync('umount', [path])
})

function filesOf(path: string): string[] {
  return readdirSync(path).sort()
}

describe('errors leave nothing behind', () => {
  const here = (name: string) => folder.path(join('errors', name))
  beforeAll(() => mkdirSync(folder.path('errors')))

  test.each([
    ['a folder that is not there', 'absent/x.obt', 'ERR_NO_FOLDER'],
    ['a path through a file', 'file/x.obt', 'ERR_NO_FOLDER'],
    ['a folder as target', 'folder', 'ERR_IS_DIRECTORY'],
  ])('%s', async (_, name, code) => {
    writeFileSync(here('file'), 'x')
    mkdirSync(here('folder'), { recursive: true })
    const before = filesOf(folder.path('errors'))
    expect((await failure(() => writeTinyModel(here(name)))).code).toBe(code)
    expect(filesOf(folder.path('errors'))).toEqual(before)
  })

  test.skipIf(process.platform === 'win32')('a device as target is not replaced', async () => {
    expect((await failure(() => writeTinyModel('/dev/null'))).code).toBe('ERR_NOT_A_FILE')
  })

  test.skipIf(process.platform === 'win32')('a folder without permission', ({ skip }) => {
    mkdirSync(here('closed'))
    chmodSync(here('closed'), 0o500)
    // Root may write anywhere, so root's test is run by a user who may not.
    const user = isRoot ? { uid: 65534, gid: 65534 } : {}
    const run = (argv: string[]) => spawnSync(process.execPath, argv, { cwd: PROJECT, encoding: 'utf8', ...user })
    if (run(['-e', `require('fs').readFileSync('dist/obt/obt.js')`]).status !== 0)
      return skip('another user cannot read dist/')
    const { stderr } = run(writerArguments(here('closed/x.obt'), 1))
    expect(stderr).toContain('ERR_ACCESS')
    chmodSync(here('closed'), 0o700)
    expect(filesOf(here('closed'))).toEqual([])
  })

  test('a full disk (needs root to mount a small one)', async ({ skip }) => {
    const small = mountTmpfs('small', 'size=64k')
    if (small === undefined) return skip('cannot mount a small file system')
    mounts.push(small)
    writeFileSync(join(small, 'x.obt'), 'the old file')
    expect((await failure(() => writeTinyModel(join(small, 'x.obt')))).code).toBe('ERR_DISK_FULL')
    expect(filesOf(small)).toEqual(['x.obt'])
    expect(readFileSync(join(small, 'x.obt'), 'utf8')).toBe('the old file')
  })

  test('a read-only file system (needs root to mount one)', async ({ skip }) => {
    const fixed = mountTmpfs('fixed', 'ro,size=64k')
    if (fixed === undefined) return skip('cannot mount a read-only file system')
    mounts.push(fixed)
    expect((await failure(() => writeTinyModel(join(fixed, 'x.obt')))).code).toBe('ERR_READ_ONLY')
  })

  const content = { config: tinyConfig({ layers: 1 }), provenance: {} }

  test('a source that fails, gives too little or too much, or is aborted', async () => {
    const before = filesOf(folder.path('errors'))
    const broken = new Error('the source broke')
    const write = (produce: () => AsyncIterable<Uint8Array>, signal?: AbortSignal) =>
      writeObt(here('x.obt'), content, produce, { signal })
    const throwing = async function* () {
      yield new Uint8Array(8)
      throw broken
    }
    const little = async function* () {
      yield new Uint8Array(8)
    }
    const much = async function* () {
      yield new Uint8Array(1 << 24)
    }
    await expect(write(throwing)).rejects.toBe(broken)
    await expect(write(little)).rejects.toMatchObject({ code: 'ERR_TENSOR_SIZE' })
    await expect(write(much)).rejects.toMatchObject({ code: 'ERR_TENSOR_SIZE' })
    const aborter = new AbortController()
    const reason = new Error('enough')
    const aborting = async function* () {
      aborter.abort(reason)
      yield new Uint8Array(8)
    }
    await expect(write(aborting, aborter.signal)).rejects.toBe(reason)
    expect(filesOf(folder.path('errors'))).toEqual(before)
  })
})

test.skipIf(process.platform === 'win32')('a link stays a link, and what it leads to is replaced', async () => {
  await writeTinyModel(folder.path('target.obt'), { layers: 1 })
  symlinkSync('target.obt', folder.path('link.obt'))
  await writeTinyModel(folder.path('link.obt'), { layers: 2 })
  expect((await readObtHeader(folder.path('target.obt'))).config.n_layers).toBe(2)
})

test('leftovers of dead writers go away after a day, everything else stays', async () => {
  mkdirSync(folder.path('old'))
  const names = [
    'm.obt.tmp-123-0123456789ab',
    'm.obt.tmp-9-ba9876543210',
    'm.obt.tmp-notes',
    'n.obt.tmp-123-0123456789ab',
  ]
  for (const name of names) writeFileSync(folder.path(join('old', name)), 'x')
  const yesterday = new Date(Date.now() - 25 * 3600 * 1000)
  for (const name of [names[0]!, names[2]!, names[3]!]) utimesSync(folder.path(join('old', name)), yesterday, yesterday)
  await writeTinyModel(folder.path('old/m.obt'), { layers: 1 })
  expect(filesOf(folder.path('old'))).toEqual(['m.obt', ...names.slice(1)].sort())
})

/** A process that writes the same two models over `path` for ever, and says when it starts. */
const WRITER = `
import { writeObt } from ${JSON.stringify(new URL('../dist/obt/obt.js', import.meta.url).href)}
const [path, config, rounds] = process.argv.slice(1)
const produce = async function* (spec) {
  const bytes = spec.shape.reduce((a, b) => a * b, { F32: 4, F16: 2, BF16: 2, I8: 1, U8: 1 }[spec.dtype])
  for (let at = 0; at < bytes; at += 4096) yield new Uint8Array(Math.min(4096, bytes - at))
}
for (let round = 0; round < Number(rounds); round++) {
  await writeObt(path, { config: JSON.parse(config), provenance: { round: round % 10 } }, produce)
  if (round === 0) console.log('first')
}
`

function writerArguments(path: string, rounds: number): string[] {
  return ['--input-type=module', '-e', WRITER, path, JSON.stringify(tinyConfig({ layers: 2 })), String(rounds)]
}

test('killed at any moment, the old or the new file is there and reads well', { timeout: 1_800_000 }, async () => {
  mkdirSync(folder.path('killed'))
  const path = folder.path('killed/m.obt')
  const times = LONG ? 1000 : 20
  let interrupted = 0
  for (let i = 0; i < times; i++) {
    const child = spawn(process.execPath, writerArguments(path, 1e9), {
      cwd: PROJECT,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await new Promise((resolve) => child.stdout.once('data', resolve))
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 30))
    const gone = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGKILL')
    await gone
    const header = await readObtHeader(path)
    expect(header.provenance).toHaveProperty('round')
    await (await Model.load(path, { threads: 1 })).dispose() // which checks every checksum
    if (filesOf(folder.path('killed')).length > 1 + interrupted) interrupted++
  }
  // Otherwise the kills came between two files and tested nothing.
  expect(interrupted).toBeGreaterThan(times / 10)
})

test.skipIf(!hasStrace)('writes, syncs the file, renames, syncs the folder, in this order (needs strace)', () => {
  mkdirSync(folder.path('traced'))
  const log = folder.path('strace.log')
  const calls = 'trace=openat,write,pwrite64,pwritev,fsync,fdatasync,rename,renameat,renameat2,close'
  const argv = [
    '-f',
    '-y',
    '-e',
    calls,
    '-o',
    log,
    process.execPath,
    ...writerArguments(folder.path('traced/m.obt'), 1),
  ]
  execFileSync('strace', argv, { cwd: PROJECT, stdio: 'ignore' })
  expect(existsSync(folder.path('traced/m.obt'))).toBe(true)
  const steps = readFileSync(log, 'utf8')
    .split('\n')
    .filter((line) => line.includes('/traced') && !line.includes('resumed'))
    .map((line) => {
      if (/\bp?write(64|v)?\(.*m\.obt\.tmp-/.test(line)) return 'write'
      if (/\bf(data)?sync\(.*m\.obt\.tmp-/.test(line)) return 'sync file'
      if (/\brename(at2?)?\(/.test(line)) return 'rename'
      if (/\bf(data)?sync\(.*\/traced>/.test(line)) return 'sync folder'
      return undefined
    })
    .filter((step) => step !== undefined)
  const order = steps.filter((step, i) => step !== steps[i - 1])
  expect(order).toEqual(['write', 'sync file', 'rename', 'sync folder'])
})

describe('the file is a safetensors file', () => {
  test('by the rules of the format', async () => {
    const path = folder.path('safe.obt')
    await writeTinyModel(path, { kind: 'q8' })
    const bytes = readFileSync(path)
    const length = Number(bytes.readBigUInt64LE())
    expect(bytes[8]).toBe('{'.charCodeAt(0))
    const root = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as Record<
      string,
      { data_offsets: [number, number]; dtype: string; shape: number[] }
    >
    const { __metadata__, ...tensors } = root
    expect(Object.values(__metadata__!).every((value) => typeof value === 'string')).toBe(true)
    const widths: Record<string, number> = { F32: 4, F16: 2, BF16: 2, I8: 1, U8: 1 }
    let at = 0
    for (const { data_offsets, dtype, shape } of Object.values(tensors)) {
      expect(data_offsets).toEqual([at, at + shape.reduce((a, b) => a * b, widths[dtype]!)])
      at = data_offsets[1]
    }
    expect(8 + length + at).toBe(bytes.length)
  })

  const python = pythonWith('safetensors', 'numpy')
  test.skipIf(!python)('by the Python package (skipped without it)', async () => {
    const path = folder.path('python.obt')
    await writeTinyModel(path, { kind: 'sign' })
    const script = [
      'import sys, json',
      'from safetensors import safe_open',
      'with safe_open(sys.argv[1], framework="numpy") as f:',
      '    print(json.dumps([[k, list(f.get_tensor(k).shape)] for k in f.keys()]))',
    ].join('\n')
    const found = JSON.parse(execFileSync(python!, ['-c', script, path], { encoding: 'utf8' })) as [string, number[]][]
    const { tensors } = await readObtHeader(path)
    expect(Object.fromEntries(found)).toEqual(Object.fromEntries(tensors.map(({ spec }) => [spec.name, spec.shape])))
  })
})
