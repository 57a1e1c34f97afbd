/** Models by their name on a command line: every command takes one, and three are about them. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { programWords } from './command.js'
import { onebitBeside, useFakeHub } from './fake-hub.js'
import { until } from './serving.js'
import { tinyGguf } from './tiny-gguf.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
const { hub, home } = useFakeHub(folder)
let model: Buffer

beforeAll(async () => {
  await writeTinyModel(folder.path('tiny.obt'))
  model = readFileSync(folder.path('tiny.obt'))
})

const onebit = (...args: string[]) => onebitBeside(args, {})

describe('a name instead of a path', () => {
  it('is run, and the second time without a network', async () => {
    hub.add('me/tiny', { 'tiny.obt': model })
    const words = ['run', 'hf:me/tiny', '-p', 'abc', '-n', '8', '--temp', '0']
    const first = await onebit(...words)
    expect(first.status, first.stderr).toBe(0)
    expect(first.stderr).toContain('downloading me/tiny:tiny.obt')
    const second = await onebitBeside([...words, '-q'], { HF_HUB_OFFLINE: '1' })
    expect(second).toMatchObject({ status: 0, stderr: '', stdout: first.stdout })
    expect((await onebit('run', folder.path('tiny.obt'), ...words.slice(2))).stdout).toBe(first.stdout)
  })

  it('is taken by every command that takes a model', async () => {
    hub.add('me/tiny', { 'tiny.obt': model })
    const name = 'hf:me/tiny'
    writeFileSync(folder.path('text.txt'), 'the quick brown fox '.repeat(10))
    for (const words of [
      ['info', name],
      ['score', name, '--text', 'abc'],
      ['doctor', name],
      ['compare', name, name, '--file', folder.path('text.txt'), '--ctx', '16'],
      ['perplexity', name, folder.path('text.txt'), '--ctx', '16'],
      ['bench', name, '-p', '8', '-n', '2', '-r', '1', '--no-first-token', '--no-peaks', '-t', '1'],
    ]) {
      const { status, stderr } = await onebit(...words)
      // A command that took it for a path would say that it does not exist.
      expect(stderr, words.join(' ')).not.toContain('does not exist')
      expect(stderr, words.join(' ')).not.toContain('ERR_')
      expect(status, `${words.join(' ')}: ${stderr}`).toBe(0)
    }
    hub.add('me/gguf', { 'tiny.gguf': tinyGguf() })
    const converted = await onebit('convert', 'hf:me/gguf', '-o', folder.path('converted.obt'))
    expect(converted.status, converted.stderr).toBe(0)
    expect(existsSync(folder.path('converted.obt'))).toBe(true)
  })

  it('that several models have is listed where nobody can be asked', async () => {
    hub.add('me/tiny', { 'a-F32.gguf': tinyGguf(), 'b-F16.gguf': tinyGguf('f16') })
    const { status, stdout, stderr } = await onebit('run', 'hf:me/tiny', '-p', 'a')
    expect([status, stdout]).toEqual([1, ''])
    expect(stderr).toContain('[ERR_HUB_SEVERAL]')
    expect(stderr).toMatch(/a-F32\.gguf .*f32/)
    expect(stderr).toMatch(/b-F16\.gguf .*f16/)
  })
})

const noTerminal = process.platform !== 'linux' || spawnSync('script', ['--version']).status !== 0
if (noTerminal) console.warn('skipped: the terminal tests need util-linux script')

describe.skipIf(noTerminal)('a terminal', () => {
  /** What is typed when the question is there; everything that was shown. */
  async function answered(typed: string): Promise<{ status: number | null; shown: string }> {
    const command = [...programWords(), 'pull', 'hf:me/tiny'].map((word) => `'${word}'`).join(' ')
    const child = spawn('script', ['-qfec', `exec ${command}`, '/dev/null'], { env: { ...process.env, TERM: 'dumb' } })
    let shown = ''
    child.stdout.on('data', (data) => {
      shown += data
    })
    const closed = once(child, 'close')
    await until(() => shown.includes('Which (1 to 2)?'))
    child.stdin.write(typed)
    const [status] = await closed
    return { status, shown }
  }

  it.each([
    ['a number', '7\rx\r2\r', 0, /snapshots.*b-F16\.gguf/],
    ['nothing', '\r', 1, /ERR_HUB_SEVERAL/],
    ['Ctrl-C', '\x03', 1, /ERR_HUB_SEVERAL/],
    ['Ctrl-D', '\x04', 1, /ERR_HUB_SEVERAL/],
  ])('is asked which of several: %s', async (_, typed, expected, seen) => {
    hub.add('me/tiny', { 'a-F32.gguf': tinyGguf(), 'b-F16.gguf': tinyGguf('f16') })
    const { status, shown } = await answered(typed)
    expect(shown).toMatch(/ 1 {2}a-F32\.gguf .*f32/)
    expect(shown).toMatch(seen)
    expect(status).toBe(expected)
  })
})

describe('pull, list and rm', () => {
  it('get a model, show it, and take it away again', async () => {
    hub.add('me/tiny', { 'a.obt': model, 'b-F16.gguf': tinyGguf('f16') })
    hub.add('you/other', { 'x.obt': model })
    expect((await onebit('list')).stderr).toContain('onebit pull')
    for (const name of ['hf:me/tiny:a.obt', 'hf:me/tiny:F16', 'hf:you/other']) {
      const { status, stdout, stderr } = await onebit('pull', name)
      expect(status, stderr).toBe(0)
      expect(existsSync(stdout.trim())).toBe(true)
    }
    const listed = JSON.parse((await onebit('list', '--json')).stdout)
    expect(listed.map(({ name, type }: { name: string; type: string }) => [name, type])).toEqual([
      ['hf:me/tiny:a.obt', 'sign'],
      ['hf:me/tiny:b-F16.gguf', 'f16'],
      ['hf:you/other:x.obt', 'sign'],
    ])
    const one = await onebit('rm', 'hf:me/tiny:F16')
    expect(one.stderr).toMatch(/free again/)
    const { stdout } = await onebit('list')
    expect(stdout).toContain('hf:me/tiny:a.obt')
    expect(stdout).not.toContain('F16')
    expect(await onebit('rm', 'hf:me/tiny')).toMatchObject({ status: 0 })
    expect(existsSync(home())).toBe(false)
    expect(existsSync(home('models--you--other'))).toBe(true)
    expect((await onebit('rm', 'hf:me/tiny')).stderr).toContain('ERR_HUB_NOT_FOUND')
    // Every name that `list` shows can be run as it is.
    expect(await onebit('run', 'hf:you/other:x.obt', '-p', 'a', '-n', '1')).toMatchObject({ status: 0 })
  })

  it('leave what two commits have in common', async () => {
    hub.add('me/tiny', { 'a.obt': model, 'b.obt': Buffer.concat([model]) })
    await onebit('pull', 'hf:me/tiny:a.obt')
    await onebit('pull', 'hf:me/tiny:b.obt')
    expect(await onebit('rm', 'hf:me/tiny:a.obt')).toMatchObject({ status: 0 })
    const { stdout } = await onebit('pull', 'hf:me/tiny:b.obt', '-q')
    expect(readFileSync(stdout.trim())).toEqual(model)
  })

  it('show what of a cache does not run, and why', async () => {
    hub.add('me/tiny', { 'a.obt': model })
    const { stdout } = await onebit('pull', 'hf:me/tiny')
    writeFileSync(join(stdout.trim(), '..', 'broken.gguf'), 'GGUF')
    expect((await onebit('list')).stdout).toMatch(/broken\.gguf .*does not run here: /)
  })

  it('refuse what is no name', async () => {
    const { status, stderr } = await onebit('pull', 'a.gguf')
    expect([status, stderr]).toEqual([2, expect.stringContaining('no name of a model')])
    expect((await onebit('rm', 'hf:../x')).stderr).toContain('ERR_HUB_NAME')
  })
})
