/** Models by their name: which file is taken, how it comes, what is kept, and what is said when it cannot be had. */
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type FetchOptions, fetchModel } from '../dist/hub/fetch-model.js'
import { isOfType } from '../dist/hub/look.js'
import { Model } from '../dist/index.js'
import { codeOf, failure } from './expect-code.js'
import { gitBlob, sha256, status, useFakeHub } from './fake-hub.js'
import { encodeTensor, ggufFile } from './gguf-writer.js'
import { partName, writeParts } from './split-gguf.js'
import { TINY_METADATA, tinyGguf, tinyGgufTensors } from './tiny-gguf.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'
import { safetensorsFile, tinyHfConfig, tinyTensors } from './tiny-source.js'

const folder = temporaryFolder()
const { hub, cache, home } = useFakeHub(folder)

/** It is refused by its architecture. */
const FOREIGN = ggufFile({ ...TINY_METADATA, 'general.architecture': { string: 'clip' } }, tinyGgufTensors())

function filesBelow(path: string): string[] {
  return readdirSync(path, { recursive: true, encoding: 'utf8' })
    .filter((name) => !lstatSync(join(path, name)).isDirectory())
    .sort()
}

const fetched = (name: string, options?: FetchOptions) => fetchModel(name, options)

describe('a repository with one model', () => {
  it('is downloaded, lies where the tools of Hugging Face have it, and needs no network again', async () => {
    const bytes = tinyGguf()
    const { commit } = hub.add('me/tiny', { 'README.md': '# me', 'tiny.gguf': bytes })
    const told: [number, number][] = []
    const path = await fetched('hf:me/tiny', { onProgress: (done, total) => told.push([done, total]) })
    expect(path).toBe(join(home(), 'snapshots', commit, 'tiny.gguf'))
    expect(readFileSync(path)).toEqual(bytes)
    expect(told.at(-1)).toEqual([bytes.length, bytes.length])
    expect(readlinkSync(path).replaceAll('\\', '/')).toBe(`../../blobs/${sha256(bytes)}`)
    expect(readFileSync(join(home(), 'refs', 'main'), 'utf8')).toBe(commit)
    expect(filesBelow(home())).toEqual(
      [`blobs/${sha256(bytes)}`, 'refs/main', `snapshots/${commit}/tiny.gguf`].map((name) => join(name)).sort(),
    )
    await hub.reset()
    expect(await fetched('hf:me/tiny')).toBe(path)
    expect(await fetched('hf:me/tiny:tiny.gguf')).toBe(path)
    expect(hub.seen).toEqual([])
  })

  it('is loaded by its name, and the progress says which part is which', async () => {
    hub.add('me/tiny', { 'tiny.gguf': tinyGguf() })
    const doings = new Set<string>()
    const load = () => Model.load('hf:me/tiny', { onProgress: (_done, _total, doing) => void doings.add(doing) })
    await (await load()).dispose()
    expect([...doings]).toEqual(['downloading', 'loading'])
    doings.clear()
    await (await load()).dispose()
    expect([...doings]).toEqual(['loading'])
  })

  it('may be a .obt file, several GGUF files, or a folder', async () => {
    await writeTinyModel(folder.path('a.obt'))
    hub.add('me/obt', { 'a.obt': readFileSync(folder.path('a.obt')) })
    mkdirSync(folder.path('parts'), { recursive: true })
    const paths = writeParts(folder.path('parts'), 'm', TINY_METADATA, tinyGgufTensors(), [3, 10, 8])
    hub.add('me/parts', Object.fromEntries(paths.map((path, i) => [partName('q/m', i + 1, 3), readFileSync(path)])))
    hub.add('me/folder', {
      'config.json': JSON.stringify(tinyHfConfig()),
      'generation_config.json': '{}',
      'model.safetensors': safetensorsFile(tinyTensors()),
      'optimizer.pt': Buffer.alloc(5000),
    })
    for (const name of ['hf:me/obt', 'hf:me/parts', 'hf:me/folder']) {
      const model = await Model.load(name)
      expect(model.info.fileBytes, name).toBeGreaterThan(1000)
      await model.dispose()
      hub.reset()
      await (await Model.load(name)).dispose()
      expect(hub.seen, name).toEqual([])
    }
    expect(existsSync(join(home('models--me--folder'), 'blobs', sha256(Buffer.alloc(5000))))).toBe(false)
  })

  it('may be a folder with its weights in several files', async () => {
    const tensors = tinyTensors()
    const [a, b] = [tensors.slice(0, 9), tensors.slice(9)]
    const names = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'] as const
    const weight_map = Object.fromEntries(tensors.map(({ name }, i) => [name, names[i < 9 ? 0 : 1]]))
    hub.add('me/tiny', {
      'config.json': JSON.stringify(tinyHfConfig()),
      'model.safetensors.index.json': JSON.stringify({ weight_map }),
      [names[0]]: safetensorsFile(a),
      [names[1]]: safetensorsFile(b),
    })
    await (await Model.load('hf:me/tiny')).dispose()
  })

  it('is found by the address of its page or file too, and files of other servers are kept by theirs', async () => {
    const bytes = tinyGguf()
    hub.add('me/tiny', { 'tiny.gguf': bytes })
    const path = await fetched(`${hub.url}/me/tiny/resolve/main/tiny.gguf?download=true`)
    expect(path).toContain('snapshots')
    expect(await fetched(`${hub.url}/me/tiny`)).toBe(path)
    const other = await fetched(`${hub.cdnUrl}/me/tiny/tiny.gguf`)
    expect(other).not.toContain('snapshots')
    expect(readFileSync(other)).toEqual(bytes)
    hub.reset()
    expect(await fetched(`${hub.cdnUrl}/me/tiny/tiny.gguf`)).toBe(other)
    expect(hub.seen).toEqual([])
    delete process.env.HF_ENDPOINT
    // What listens on this machine is its user's own.
    expect(await fetched(`${hub.cdnUrl}/me/tiny/tiny.gguf`, { refresh: true })).toBe(other)
    expect(await codeOf(() => fetched('http://example.com/a.gguf'))).toBe('ERR_HUB_REDIRECT')
  })

  it('is brought up to date when that is asked for, and what did not change is not fetched again', async () => {
    const [old, neu] = [tinyGguf(), tinyGguf('f16')]
    hub.add('me/tiny', { 'a.gguf': old })
    const first = await fetched('hf:me/tiny')
    const { commit } = hub.add('me/tiny', { 'README.md': 'new', 'a.gguf': old })
    hub.reset()
    expect(await fetched('hf:me/tiny')).toBe(first)
    const second = await fetched('hf:me/tiny', { refresh: true })
    expect(second).toContain(commit)
    expect(readlinkSync(second)).toBe(readlinkSync(first))
    hub.add('me/tiny', { 'a.gguf': neu })
    expect(readFileSync(await fetched('hf:me/tiny', { refresh: true }))).toEqual(neu)
    expect(readFileSync(first)).toEqual(old)
  })
})

describe('a repository with several models', () => {
  const several = () => {
    hub.add('me/tiny', {
      'tiny-F32.gguf': tinyGguf('f32'),
      'tiny-F16.gguf': tinyGguf('f16'),
      // its name says something else than its header
      'tiny-Q4_0.gguf': tinyGguf('q8_0', { 'llama.block_count': { u32: 2 } }),
      'mmproj.gguf': FOREIGN,
    })
  }

  it('says what there is, what runs, and why the rest does not', async () => {
    several()
    const { code, message, hint } = await failure(() => fetched('hf:me/tiny'))
    expect(code).toBe('ERR_HUB_SEVERAL')
    expect(message).toContain('2 models')
    expect(hint).toMatch(/tiny-F32\.gguf {2}.*f32/)
    expect(hint).toMatch(/tiny-F16\.gguf {2}.*f16/)
    expect(hint).toMatch(/mmproj\.gguf {2}.*does not run here: .*clip/)
    expect(existsSync(home())).toBe(false)
  })

  it('asks whoever can be asked', async () => {
    several()
    const choose: FetchOptions['choose'] = async (looks) => looks.find(({ types }) => types.includes('f16'))
    expect(await fetched('hf:me/tiny', { choose })).toContain('tiny-F16.gguf')
    // Now one of them is here, which is what was meant.
    hub.reset()
    expect(await fetched('hf:me/tiny')).toContain('tiny-F16.gguf')
    expect(await codeOf(() => fetched('hf:me/tiny', { refresh: true, choose: async () => undefined }))).toBe(
      'ERR_HUB_SEVERAL',
    )
  })

  it('has one of a type, which the header says and not the name', async () => {
    several()
    expect(await fetched('hf:me/tiny:f16')).toContain('tiny-F16.gguf')
    // Only that file was looked at, because it was what its name says.
    expect(new Set(hub.seen.filter(({ at }) => at === 'cdn').map(({ path }) => path))).toEqual(
      new Set(['/me/tiny/tiny-F16.gguf']),
    )
    const { code, hint } = await failure(() => fetched('hf:me/tiny:q5_0'))
    expect(code).toBe('ERR_HUB_NOT_FOUND')
    expect(hint).toContain('tiny-F32.gguf')
    hub.add('me/misnamed', { 'a-F16.gguf': tinyGguf('f32'), 'b-F32.gguf': tinyGguf('f16') })
    expect(await fetched('hf:me/misnamed:F16')).toContain('b-F32.gguf')
    // Norms are f32 in both.
    expect(await fetched('hf:me/misnamed:F32', { refresh: true })).toContain('a-F16.gguf')
  })

  it.each([
    [['q4_0', 'f32'], 'Q4_0', true],
    [['f32', 'q4_0'], 'Q4_0', true],
    [['q4_0', 'f32'], 'F32', false],
    [['f32'], 'f32', true],
    [['q2_0_g128', 'f32'], 'Q2_0', true],
    [['q2_0_g128', 'f32'], 'PQ2_0', true],
    [['q2_0', 'f32'], 'PQ2_0', false],
    [['tq2_0', 'f32'], 'Q2_0', false],
    [[], 'Q2_0', false],
  ])('with %j is of the type %s: %s', (types, type, expected) => {
    expect(isOfType({ types }, type)).toBe(expected)
  })

  it('refuses a file that was named and does not run, by its own reason, before it is fetched', async () => {
    several()
    const { code, message } = await failure(() => fetched('hf:me/tiny:mmproj.gguf'))
    expect(code).toBe('ERR_UNSUPPORTED_ARCHITECTURE')
    expect(message).toContain('me/tiny:mmproj.gguf')
    expect(message).not.toContain('onebit-look')
  })

  it('has only one that runs: that is taken', async () => {
    hub.add('me/tiny', { 'tiny.gguf': tinyGguf(), 'mmproj.gguf': FOREIGN })
    expect(await fetched('hf:me/tiny')).toContain('tiny.gguf')
  })

  it('has nothing that runs: what there is and why it does not', async () => {
    hub.add('me/tiny', { 'mmproj.gguf': FOREIGN })
    const one = await failure(() => fetched('hf:me/tiny'))
    expect(one.code).toBe('ERR_HUB_NOTHING_RUNS')
    expect(one.hint).toContain('clip')
    hub.add('me/none', { 'README.md': 'x', 'weights.onnx': Buffer.alloc(100) })
    const two = await failure(() => fetched('hf:me/none'))
    expect(two.code).toBe('ERR_HUB_NOTHING_RUNS')
    expect(two.hint).toContain('weights.onnx')
  })

  it('is listed over several pages', async () => {
    hub.add('me/tiny', { 'a.txt': '1', 'b.txt': '2', 'c.txt': '3', 'tiny.gguf': tinyGguf() })
    hub.pageSize = 1
    expect(await fetched('hf:me/tiny')).toContain('tiny.gguf')
  })
})

describe('headers', () => {
  it('are all that is fetched of what is only looked at, however long they are', async () => {
    // 9 MB of names, and 4 MB behind the header
    const tokens = Array.from({ length: 24 }, (_, i) => String(i).repeat(400_000).slice(0, 400_000))
    const long = tinyGguf('f32', { 'general.tags': { strings: tokens }, 'general.architecture': { string: 'clip' } })
    const padded = Buffer.concat([long, Buffer.alloc(20 << 20)])
    hub.add('me/tiny', { 'a.gguf': padded })
    expect(await codeOf(() => fetched('hf:me/tiny:a.gguf'))).toBe('ERR_UNSUPPORTED_ARCHITECTURE')
    expect(hub.sentBytes).toBeLessThan(15 << 20)
    expect(hub.sentBytes).toBeGreaterThan(9 << 20)
  })

  it('are judged with the tensor that says how RoPE is scaled', async () => {
    const tensors = tinyGgufTensors()
    const factors = Float32Array.from([1, 2, 4, 8])
    const rope = { name: 'rope_freqs.weight', type: 'f32' as const, shape: [4], data: encodeTensor('f32', factors) }
    // It lies far behind the header, where nothing else of the file is looked at.
    const wide = { name: 'x', type: 'f32' as const, shape: [1 << 19], data: Buffer.alloc(2 << 20) }
    hub.add('me/far', { 'a.gguf': ggufFile(TINY_METADATA, [...tensors, wide, rope]) })
    const { message } = await failure(() => fetched('hf:me/far:a.gguf'))
    expect(message).toContain('tensor x')
    hub.add('me/tiny', { 'a.gguf': ggufFile(TINY_METADATA, [...tensors, rope]) })
    const model = await Model.load('hf:me/tiny')
    await model.dispose()
  })

  it('that are damaged, or none, are reasons', async () => {
    const whole = tinyGguf()
    hub.add('me/tiny', {
      'cut.gguf': whole.subarray(0, whole.length - 64),
      'empty.gguf': Buffer.alloc(0),
      'html.gguf': Buffer.from('<html>'.repeat(100)),
      'zero.obt': Buffer.alloc(4000),
    })
    const { code, hint } = await failure(() => fetched('hf:me/tiny'))
    expect(code).toBe('ERR_HUB_NOTHING_RUNS')
    for (const name of ['cut.gguf', 'empty.gguf', 'html.gguf', 'zero.obt']) expect(hint).toContain(`${name}  `)
  })

  it('come from servers that know no ranges too', async () => {
    hub.add('me/tiny', { 'tiny.gguf': tinyGguf() })
    hub.knowsRanges = false
    expect(readFileSync(await fetched('hf:me/tiny'))).toEqual(tinyGguf())
  })
})

describe('the cache', () => {
  it('that another tool has filled is used', async () => {
    const bytes = tinyGguf()
    const commit = 'ab'.repeat(20)
    mkdirSync(join(home(), 'snapshots', commit), { recursive: true })
    mkdirSync(join(home(), 'refs'))
    writeFileSync(join(home(), 'snapshots', commit, 'tiny.gguf'), bytes)
    writeFileSync(join(home(), 'refs', 'main'), commit)
    expect(await fetched('hf:me/tiny')).toContain(commit)
    expect(await fetched(`hf:me/tiny@${commit}:tiny.gguf`)).toContain(commit)
    expect(hub.seen).toEqual([])
  })

  it('has copies where links cannot be made', async () => {
    process.env.HF_HUB_DISABLE_SYMLINKS = '1'
    const bytes = tinyGguf()
    hub.add('me/tiny', { 'tiny.gguf': bytes })
    const path = await fetched('hf:me/tiny')
    expect(lstatSync(path).isSymbolicLink()).toBe(false)
    expect(readFileSync(path)).toEqual(bytes)
    hub.reset()
    expect(await fetched('hf:me/tiny', { refresh: true })).toBe(path)
    expect(hub.sentBytes).toBe(0)
  })

  it('is HF_HUB_CACHE where that is set', async () => {
    process.env.HF_HUB_CACHE = folder.path('elsewhere')
    hub.add('me/tiny', { 'tiny.gguf': tinyGguf() })
    expect(await fetched('hf:me/tiny')).toContain(folder.path('elsewhere'))
  })

  it('serves without a network what it has, also of an earlier commit', async () => {
    hub.add('me/tiny', { 'a-F32.gguf': tinyGguf(), 'b-F16.gguf': tinyGguf('f16') })
    const a = await fetched('hf:me/tiny:f32')
    hub.add('me/tiny', { 'a-F32.gguf': tinyGguf(), 'b-F16.gguf': tinyGguf('f16'), 'c.txt': '' })
    const b = await fetched('hf:me/tiny:f16')
    process.env.HF_HUB_OFFLINE = '1'
    hub.reset()
    expect(await fetched('hf:me/tiny:f16')).toBe(b)
    expect(await fetched('hf:me/tiny:f32')).toBe(a)
    expect(await codeOf(() => fetched('hf:me/tiny:q8_0'))).toBe('ERR_HUB_OFFLINE')
    expect(await codeOf(() => fetched('hf:me/other'))).toBe('ERR_HUB_OFFLINE')
    expect(await codeOf(() => fetched('https://example.com/a.gguf'))).toBe('ERR_HUB_OFFLINE')
    expect(hub.seen).toEqual([])
  })

  it('that may not be written to is an error that names the variable', async () => {
    writeFileSync(cache(), 'a file, where there should be a folder')
    hub.add('me/tiny', { 'tiny.gguf': tinyGguf() })
    const { code, hint } = await failure(() => fetched('hf:me/tiny'))
    expect(['ERR_ACCESS', 'ERR_NO_FOLDER', 'ERR_READ_ONLY']).toContain(code)
    expect(hint).toContain('HF_HUB_CACHE')
  })
})

describe('names', () => {
  it.each([
    'hf:',
    'hf:/',
    'hf:a/b/c',
    'hf:../x',
    'hf:a/..',
    'hf:a b/c',
    'hf:me/tiny@',
    'hf:me/tiny@../x',
    'hf:me/tiny:../x.gguf',
    'hf:me/tiny:/etc/passwd',
    'hf:me/tiny:a\\b.gguf',
    'hf:me/tiny:con.gguf',
    'https://',
    'https://example.com/',
    'https://example.com/a.zip',
    'https://user:secret@example.com/a.gguf',
  ])('that make no sense are refused: %s', async (name) => {
    expect(await codeOf(() => Model.load(name))).toBe('ERR_HUB_NAME')
    expect(hub.seen).toEqual([])
  })

  it('of files from the hub that lead elsewhere are as if they were not there', async () => {
    hub.add('me/tiny', {
      '../../../evil.gguf': tinyGguf(),
      'aux.gguf': tinyGguf(),
      'a/./b.gguf': tinyGguf(),
      'ok.gguf': tinyGguf('f16'),
    })
    expect(await fetched('hf:me/tiny')).toContain('ok.gguf')
    expect(filesBelow(cache()).filter((name) => /evil|aux|b\.gguf/.test(name))).toEqual([])
  })

  it('that do not exist, or that others may have, say so', async () => {
    hub.add('me/tiny', { 'tiny.gguf': tinyGguf() })
    hub.add('me/gated', { 'tiny.gguf': tinyGguf() }, { token: 'hf_right' })
    expect(await codeOf(() => fetched('hf:me/none'))).toBe('ERR_HUB_NOT_FOUND')
    expect(await codeOf(() => fetched('hf:me/tiny@v9'))).toBe('ERR_HUB_NOT_FOUND')
    expect(await codeOf(() => fetched('hf:me/tiny:other.gguf'))).toBe('ERR_HUB_NOT_FOUND')
    const gated = await failure(() => fetched('hf:me/gated'))
    expect(gated.code).toBe('ERR_HUB_ACCESS')
    expect(gated.hint).toContain(`${hub.url}/me/gated`)
    expect(gated.hint).toContain('HF_TOKEN')
    process.env.HF_TOKEN = 'hf_wrong'
    expect(await codeOf(() => fetched('hf:me/gated'))).toBe('ERR_HUB_ACCESS')
    process.env.HF_TOKEN = 'hf_right'
    expect(await fetched('hf:me/gated')).toContain('tiny.gguf')
  })
})

describe('the token', () => {
  it('goes to the hub alone, never along a redirect', async () => {
    process.env.HF_TOKEN = 'hf_secret'
    hub.add('me/tiny', { 'tiny.gguf': tinyGguf(), 'config.json': '{}' })
    await fetched('hf:me/tiny')
    await fetched(`${hub.cdnUrl}/me/tiny/tiny.gguf`)
    const [mine, others] = (['hub', 'cdn'] as const).map((at) => hub.seen.filter((one) => one.at === at))
    expect(mine!.length).toBeGreaterThan(2)
    expect(others!.length).toBeGreaterThan(1)
    expect(new Set(mine!.map(({ authorization }) => authorization))).toEqual(new Set(['Bearer hf_secret']))
    expect(new Set(others!.map(({ authorization }) => authorization))).toEqual(new Set([undefined]))
  })

  it('is read from where `hf auth login` puts it', async () => {
    mkdirSync(cache(), { recursive: true })
    writeFileSync(join(cache(), 'token'), 'hf_filed\n')
    hub.add('me/tiny', { 'tiny.gguf': tinyGguf() })
    await fetched('hf:me/tiny')
    expect(hub.seen[0]!.authorization).toBe('Bearer hf_filed')
  })
})

it("a name of a small file in the cache is git's", async () => {
  const config = JSON.stringify(tinyHfConfig())
  hub.add('me/tiny', { 'config.json': config, 'model.safetensors': safetensorsFile(tinyTensors()) })
  await fetched('hf:me/tiny')
  expect(readdirSync(join(home(), 'blobs'))).toContain(gitBlob(Buffer.from(config)))
  rmSync(home(), { recursive: true })
  hub.troubles.push(status(404, {}, 'cdn'))
  expect(await codeOf(() => fetched('hf:me/tiny'))).toBe('ERR_HUB_NOT_FOUND')
})
