/**
 * Qwen3.5 against transformers: layers of the delta rule and attention with a gate, from folders and GGUF files, by every way
 * to the same logits.
 */
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, describe, expect, it } from 'vitest'
import { Model } from '../dist/index.js'
import { dataFile, missing } from './data.js'
import { failure } from './expect-code.js'
import { expectClose, goldenRuns, WAYS } from './family.js'
import { temporaryFolder } from './tiny-model.js'

const folder = temporaryFolder()
afterAll(folder.remove)

const GOLDEN = 'golden/qwen35'
/** As the README of the golden files says. */
const TOLERANCE = { max: 2e-3, rms: 2e-4 }
const EXACT = { activations: 'f32', kv: 'f32' } as const

interface Golden {
  name: string
  source: string
  vocabulary: number
  expected: object
}

const RULE = { delta_k_heads: 2, delta_k_dim: 16, delta_v_dim: 16, delta_conv: 4, delta_layers: [0, 1, 2, 4, 5, 6] }
const TIED = { ...RULE, tied_head: true, n_layers: 8, delta_v_heads: 6, rope_dims: 8 }
const UNTIED = { ...RULE, tied_head: false, n_layers: 8, delta_v_heads: 8, rope_dims: 16 }

const GOLDENS: Golden[] = [
  { name: 'tied', source: 'tied/hf', vocabulary: 288, expected: { ...TIED, delta_head_order: 'grouped' } },
  { name: 'tied', source: 'tied/model.f32.gguf', vocabulary: 288, expected: { ...TIED, delta_head_order: 'tiled' } },
  { name: 'untied', source: 'untied/hf', vocabulary: 288, expected: { ...UNTIED, delta_head_order: 'grouped' } },
  {
    name: 'untied',
    source: 'untied/model.bf16.gguf',
    vocabulary: 288,
    expected: { ...UNTIED, delta_head_order: 'tiled' },
  },
  {
    name: 'ternary-tq2_0',
    source: 'ternary-tq2_0/model.tq2_0.gguf',
    vocabulary: 272,
    expected: { tied_head: true, n_layers: 4, delta_v_heads: 8, delta_k_dim: 32, delta_layers: [0, 1, 2] },
  },
  {
    name: 'ternary-q2_0',
    source: 'ternary-q2_0/model.q2_0.gguf',
    vocabulary: 272,
    expected: { tied_head: false, n_layers: 4, delta_v_heads: 6, delta_k_dim: 64, delta_layers: [0, 1, 2] },
  },
]
/** In pieces as uneven as those of the README, each a call of its own. */
async function inUnevenPieces(model: Model, ids: number[]): Promise<Float32Array> {
  const session = model.createSession()
  const rows: number[] = []
  for (const size of [7, 1, 1, 13, 2, 1, 1, 1, ids.length]) {
    const piece = ids.slice(session.position, session.position + size)
    rows.push(...(await session.logits(piece, { all: true })).data)
  }
  return Float32Array.from(rows)
}

const ALL_WAYS: typeof WAYS = { ...WAYS, 'in uneven pieces': inUnevenPieces }

/** The likeliest token is the same wherever it is likelier than the next by more than may be wrong. */
function expectSameTop(found: Float32Array, expected: Float32Array, columns: number): void {
  for (let at = 0; at < expected.length; at += columns) {
    const row = expected.subarray(at, at + columns)
    const [first, second] = row.toSorted().reverse()
    if (first! - second! <= TOLERANCE.max) continue
    const top = row.indexOf(first!)
    expect(found.subarray(at, at + columns).indexOf(Math.max(...found.subarray(at, at + columns)))).toBe(top)
  }
}

describe.skipIf(missing(`${GOLDEN}/tied/logits-a.npy`)).each(GOLDENS)('Qwen3.5, $source', (golden) => {
  const source = dataFile(`${GOLDEN}/${golden.source}`)
  let loaded: Promise<Model> | undefined
  const model = () => (loaded ??= Model.load(source, EXACT))
  afterAll(async () => (await loaded)?.dispose())

  it('is what its source says', async () => {
    expect((await model()).config).toMatchObject({
      architecture: 'qwen35',
      output_gate: true,
      qk_norm: true,
      ...golden.expected,
    })
  })

  it.each(Object.keys(ALL_WAYS))('gives its logits %s', async (way) => {
    for (const { ids, logits } of goldenRuns(`${GOLDEN}/${golden.name}`)) {
      const found = await ALL_WAYS[way]!(await model(), ids)
      expectClose(found, logits, TOLERANCE)
      expectSameTop(found, logits, golden.vocabulary)
    }
  })
})

describe.skipIf(missing(`${GOLDEN}/tied/logits-a.npy`))('Qwen3.5 that is another', () => {
  const source = dataFile(`${GOLDEN}/tied/hf`)
  const config = (): Record<string, unknown> => JSON.parse(readFileSync(`${source}/config.json`, 'utf8'))
  const other = folder.path('other')
  const loadWith = (fields: Record<string, unknown>) => {
    cpSync(source, other, { recursive: true })
    writeFileSync(`${other}/config.json`, JSON.stringify({ ...config(), ...fields }))
    return Model.load(other, EXACT)
  }

  it.each([
    [{ attn_output_gate: false }, 'ERR_UNSUPPORTED_ARCHITECTURE', 'attn_output_gate'],
    [{ hidden_act: 'gelu' }, 'ERR_UNSUPPORTED_ARCHITECTURE', 'hidden_act'],
    [{ layer_types: Array(8).fill('sliding_attention') }, 'ERR_UNSUPPORTED_ARCHITECTURE', 'sliding_attention'],
    [{ layer_types: ['linear_attention'] }, 'ERR_BAD_SOURCE', 'layer_types'],
    [{ text_config: 3 }, 'ERR_BAD_SOURCE', 'text_config'],
    [{ linear_num_value_heads: 0 }, 'ERR_BAD_SOURCE', 'linear_num_value_heads'],
    [{ linear_value_head_dim: 8 }, 'ERR_TENSOR_SHAPE', 'linear_attn'],
    [{ linear_conv_kernel_dim: 3 }, 'ERR_TENSOR_SHAPE', 'conv1d'],
  ])('%j is refused', async (fields, code, named) => {
    const error = await failure(() => loadWith(fields))
    expect([error.code, error.message]).toEqual([code, expect.stringContaining(named)])
  })

  it.each([
    ['block_count', 8],
    ['nextn_predict_layers', 2],
    ['nextn_predict_layers', 8],
    ['nextn_predict_layers', 0],
    ['nextn_predict_layers', 9],
  ])('a GGUF file with %s %d, which its layers contradict', async (key, value) => {
    const bytes = readFileSync(dataFile(`${GOLDEN}/untied/model.bf16.gguf`))
    // Behind a key are the type of its value, here u32, and the value.
    bytes.writeUInt32LE(value, bytes.indexOf(`qwen35.${key}`) + `qwen35.${key}`.length + 4)
    writeFileSync(folder.path('contradicted.gguf'), bytes)
    const { code } = await failure(() => Model.load(folder.path('contradicted.gguf'), EXACT))
    expect(code).toBe('ERR_BAD_SOURCE')
  })

  it('has the layers that the interval says where no list does', async () => {
    const model = await loadWith({ layer_types: undefined, full_attention_interval: 4 })
    expect(model.config.delta_layers).toEqual([0, 1, 2, 4, 5, 6])
    const [run] = goldenRuns(`${GOLDEN}/tied`)
    expectClose(await WAYS['at once']!(model, run!.ids), run!.logits, TOLERANCE)
    await model.dispose()
    expect((await failure(() => loadWith({ layer_types: undefined, full_attention_interval: 2 }))).code).toBe(
      'ERR_MISSING_TENSOR',
    )
  })
})
