/** `onebit info`: what is in a model, in words that its user knows, of files that are run as they are too. */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { withDefaults } from '../dist/config/fields.js'
import type { LinearKind } from '../dist/config/kinds.js'
import { activationWords, modelWords } from '../dist/config/model-words.js'
import { convert } from '../dist/convert/convert.js'
import { Model } from '../dist/index.js'
import { program } from './command.js'
import { failure } from './expect-code.js'
import { tinyQwen3 } from './fixtures/tiny-qwen3.js'
import { ggufFile } from './gguf-writer.js'
import { TINY_METADATA, tinyGgufTensors } from './tiny-gguf.js'
import { temporaryFolder, tinyConfig } from './tiny-model.js'
import { safetensorsFile, tinyHfConfig, tinyTensors, writeFolder } from './tiny-source.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

function rowsOf(path: string): Map<string, string> {
  const { status, stdout, stderr } = program('onebit', ['info', path])
  expect([status, stderr]).toEqual([0, ''])
  const lines = stdout.trimEnd().split('\n')
  return new Map(lines.map((line) => [line.split(/\s{2,}/, 1)[0] || line.trim().split(' ', 1)[0]!, line]))
}

function named(name: string): string {
  const path = folder.path('named.gguf')
  writeFileSync(path, ggufFile({ ...TINY_METADATA, 'general.name': { string: name } }, tinyGgufTensors()))
  return path
}

/** The parts' shares in percent. */
function shares(rows: ReadonlyMap<string, string>): number[] {
  return [...rows.values()]
    .flatMap((line) => Number(/^ {2}.*\((.*) %\)$/.exec(line)?.[1] ?? Number.NaN))
    .filter((n) => n > 0)
}

describe('the first line', () => {
  it.each([
    ['Ternary Bonsai 2 4B', 'Bonsai 2'],
    ['bonsai-2-27b', 'Bonsai 2'],
    ['Bonsai-27B', 'Bonsai'],
    ['Bonsai 2B', 'Bonsai'],
    ['Ternary-Bonsai-1.7B', 'Bonsai'],
    ['Falcon-E-1B-Instruct', 'Falcon-E'],
    ['bitnet2b', 'BitNet'],
    ['Something Else 3B', 'Something Else 3B'],
  ])('%s is %s', (name, family) => {
    expect(modelWords(withDefaults(tinyConfig()), 2.125, name)).toBe(`1-bit, 2.125 bits per weight, ${family}`)
  })

  it('leaves out what nobody said, and says what is unusual', () => {
    const config = withDefaults(tinyConfig())
    expect(modelWords(config, 1.0625)).toBe('1-bit, 1.063 bits per weight')
    expect(modelWords({ ...config, window: 64 }, 8, ' ')).toBe('1-bit, 8 bits per weight, sees 64 positions back')
    const q8 = { kind: 'dense', dtype: 'q8', bias: false } as const
    const linears = Object.fromEntries(Object.keys(config.linears).map((role) => [role, q8]))
    expect(modelWords({ ...config, linears }, 8)).toBe('8-bit, 8 bits per weight')
  })

  it('goes by the weights, not by the matrices', () => {
    const config = withDefaults(tinyConfig())
    const f32 = { kind: 'dense', dtype: 'f32', bias: false } as const
    // Five of seven matrices, but the two of the feed-forward that are left are larger than they.
    const linears = { ...config.linears, wq: f32, wk: f32, wv: f32, wo: f32, w1: f32 }
    const weights = 4 * config.dim * config.dim + config.hidden_dim * config.dim
    expect(2 * config.hidden_dim * config.dim > weights).toBe(modelWords({ ...config, linears }, 1).startsWith('1-bit'))
  })
})

describe('the models people have', () => {
  const config = withDefaults(tinyConfig())
  const every = (kind: LinearKind) => ({
    ...config,
    linears: Object.fromEntries(Object.keys(config.linears).map((role) => [role, kind])),
  })

  it('are named as they are known', () => {
    const rotation = { block: 128, signs: true }
    const bonsai = every({ kind: 'ternary', group: 128, bias: false, rotation })
    expect(modelWords(bonsai, 2.125, 'Ternary Bonsai 2 4B')).toBe('ternary, 2.125 bits per weight, Bonsai 2, rotated')
    expect(activationWords(bonsai)).toContain('made for floats')
    const hybrid = { ...config, n_layers: 4, delta_layers: [0, 1, 2] }
    const words = modelWords({ ...hybrid, linears: { ...config.linears, ...deltaLinears } }, 1)
    expect(words).toContain('recurrent (DeltaNet) in 3 of 4 layers')
    const normed = every({ kind: 'ternary', group: 0, bias: false, norm_in: true })
    expect(modelWords(normed, 2)).toBe('ternary, 2 bits per weight, norms in front of matrices')
    expect(activationWords(normed)).toContain('as the model was trained')
  })
  const q8 = { kind: 'dense', dtype: 'q8', bias: false } as const
  const deltaLinears = Object.fromEntries(['w_qkv', 'w_z', 'w_beta', 'w_alpha', 'w_out'].map((role) => [role, q8]))
})

describe('what activations of 8 bits mean', () => {
  const config = withDefaults(tinyConfig())
  const f16 = { kind: 'dense', dtype: 'f16', bias: false } as const

  it('is said of every model', () => {
    expect(activationWords(config)).toContain('made for floats')
    expect(activationWords({ ...config, architecture: 'bitnet-b1.58' })).toContain('as the model was trained')
    const linears = Object.fromEntries(Object.keys(config.linears).map((role) => [role, f16]))
    expect(activationWords({ ...config, linears, embedding: f16, head: f16 })).toContain('nothing is rounded')
  })
})

describe('info', () => {
  it('of a GGUF file: shares of the memory, not of the file', () => {
    const path = folder.path('q1.gguf')
    writeFileSync(path, tinyQwen3())
    const rows = rowsOf(path)
    expect(rows.get('model')).toContain('1-bit')
    expect(rows.get('in the file')).toMatch(/\d+ x q1_0/)
    expect(rows.get('activations')).toContain('made for floats')
    const found = shares(rows)
    expect(found.length).toBeGreaterThan(2)
    expect(found.reduce((sum, share) => sum + share, 0)).toBeCloseTo(100, 0)
  })

  it('of a file whose numbers take more room in memory: no part is larger than the whole', () => {
    const path = writeFolder(folder.path('f16'), tinyHfConfig({ _name_or_path: 'prism-ml/Bonsai-1.7B' }), {
      'model.safetensors': safetensorsFile(tinyTensors(), 'F16'),
    })
    const rows = rowsOf(path)
    expect(rows.get('model')).toContain('Bonsai')
    expect(shares(rows).reduce((sum, share) => sum + share, 0)).toBeCloseTo(100, 0)
  })

  it('lists the tensors of any model, as they are in memory', async () => {
    const path = named('Listed')
    await convert(path, folder.path('listed.obt'))
    const json = (file: string) =>
      JSON.parse(program('onebit', ['info', file, '--tensors', '--json']).stdout).tensors as { name: string }[]
    const weights = (file: string) => json(file).filter(({ name }) => !/^(tokenizer|chat_template)$/.test(name))
    const without = ({ offset: _, ...rest }: { name: string; offset?: number }) => rest
    expect(weights(path).length).toBeGreaterThan(10)
    expect(weights(path)).toEqual(weights(folder.path('listed.obt')).map(without))
    const { stdout } = program('onebit', ['info', path, '--tensors'])
    expect(stdout).toMatch(/^layers\.1\.wq\.weight +\w+ +\[16, 16\]$/m)
  })

  it('of a folder of GGUF files names them', async () => {
    const path = writeFolder(folder.path('repository'), {}, {})
    rmSync(join(path, 'config.json'))
    const hint = async () => (await failure(() => Model.load(path))).hint
    expect(await hint()).toContain('Hugging Face')
    for (const name of ['b.Q2_0.gguf', 'a.GGUF', 'README.md']) writeFileSync(join(path, name), '')
    expect(await hint()).toContain('("a.GGUF", "b.Q2_0.gguf")')
  })

  it('of the .obt file that convert makes: the same first line', async () => {
    const path = named('Ternary Bonsai 2 4B')
    await convert(path, folder.path('named.obt'))
    const [direct, converted] = [rowsOf(path), rowsOf(folder.path('named.obt'))]
    expect(direct.get('model')).toContain('Bonsai 2')
    expect(converted.get('model')).toBe(direct.get('model'))
    expect(converted.get('name')).toContain('Ternary Bonsai 2 4B')
  })

  it('keeps a file’s text on its line', () => {
    const rows = rowsOf(named('clear\u001b[2J and\nfile  fake\u202e'))
    expect(rows.get('model')).toContain('clear\\u{1b}[2J and\\u{a}file  fake\\u{202e}')
    expect(rows.get('file')).toContain('named.gguf')
  })

  it('says the same to programs', () => {
    const { words, size } = JSON.parse(program('onebit', ['info', named('Bonsai 2 9B'), '--json']).stdout)
    expect(words).toBe('32-bit floats, 32 bits per weight, Bonsai 2')
    expect(size.bytes.linear).toBeGreaterThan(0)
  })
})
