/** The order of value heads where what stands behind them is rotated: rows as the file has them, and as they are read. */
import { expect, it } from 'vitest'
import type { ModelStructure } from '../dist/config/config.js'
import { withDefaults } from '../dist/config/fields.js'
import type { SourceTensor } from '../dist/import/source.js'
import { groupValueHeads } from '../dist/import/value-heads.js'
import { failure } from './expect-code.js'

const [KEYS, REP, K_DIM, V_DIM] = [2, 3, 4, 5]

const STRUCTURE: ModelStructure = withDefaults({
  architecture: 'qwen35',
  vocab_size: 8,
  dim: 4,
  hidden_dim: 4,
  n_layers: 3,
  n_heads: 1,
  n_kv_heads: 1,
  head_dim: 4,
  context_length: 8,
  norm_eps: 1e-6,
  rope_theta: 10000,
  rope_style: 'half',
  rope_scaling: { type: 'none' },
  tied_head: true,
  delta_layers: [0, 2],
  delta_k_heads: KEYS,
  delta_v_heads: KEYS * REP,
  delta_k_dim: K_DIM,
  delta_v_dim: V_DIM,
  delta_conv: 2,
  delta_head_order: 'tiled',
})

/** Each row holds its own number, in two bytes. */
function numbered(rows: number): SourceTensor {
  const read = async (first: number, count: number) => {
    return new Uint8Array(Array.from({ length: count }, (_, i) => [first + i, first + i]).flat())
  }
  return { name: 'rows', type: 'f16', rows, cols: 1, read }
}

function vector(cols: number): SourceTensor {
  const bytes = new Uint8Array(Array.from({ length: cols }, (_, i) => [i, i]).flat())
  return { name: 'elements', type: 'f16', rows: 1, cols, read: async () => bytes }
}

function tensorsOf(): Map<string, SourceTensor> {
  const [qk, v, heads] = [2 * KEYS * K_DIM, KEYS * REP * V_DIM, KEYS * REP]
  const parts: [string, SourceTensor][] = [
    ['w_qkv.weight', numbered(qk + v)],
    ['conv', numbered(qk + v)],
    ['w_z.weight', numbered(v)],
    ['w_beta.weight', numbered(heads)],
    ['w_alpha.weight', numbered(heads)],
    ['decay', vector(heads)],
    ['time_bias', vector(heads)],
    ['w_out.weight', numbered(4)],
  ]
  return new Map([0, 2].flatMap((layer) => parts.map(([name, tensor]) => [`layers.${layer}.${name}`, tensor] as const)))
}

async function rowsOf({ read, rows }: SourceTensor, piece = rows): Promise<number[]> {
  const found: number[] = []
  for (let first = 0; first < rows; first += piece) found.push(...(await read(first, Math.min(piece, rows - first))))
  return found.filter((_, i) => i % 2 === 0)
}

const BOTH = new Map([0, 2].map((layer) => [`layers.${layer}.w_out`, true]))

it('is grouped by key head: of two key heads and three value heads each, 0 2 4 and 1 3 5', async () => {
  const tensors = tensorsOf()
  expect(groupValueHeads(tensors, STRUCTURE, BOTH, true)).toEqual({ ...STRUCTURE, delta_head_order: 'grouped' })
  const order = [0, 2, 4, 1, 3, 5]
  const of = (head: number, before = 0) => Array.from({ length: V_DIM }, (_, i) => before + head * V_DIM + i)
  const before = 2 * KEYS * K_DIM
  const keys = Array.from({ length: before }, (_, i) => i)
  for (const layer of [0, 2]) {
    const get = (name: string) => tensors.get(`layers.${layer}.${name}`)!
    for (const piece of [1, 3, 7, 100]) {
      const mixed = [...keys, ...order.flatMap((head) => of(head, before))]
      expect(await rowsOf(get('w_qkv.weight'), piece)).toEqual(mixed)
      expect(await rowsOf(get('conv'), piece)).toEqual(mixed)
      expect(await rowsOf(get('w_z.weight'), piece)).toEqual(order.flatMap((head) => of(head)))
      expect(await rowsOf(get('w_alpha.weight'), piece)).toEqual(order)
      expect(await rowsOf(get('w_beta.weight'), piece)).toEqual(order)
    }
    for (const name of ['decay', 'time_bias']) {
      expect([...(await get(name).read(0, 1))].filter((_, i) => i % 2 === 0)).toEqual(order)
    }
    expect(await rowsOf(get('w_out.weight'))).toEqual([0, 1, 2, 3])
  }
})

it('stays where none is rotated, or their columns are tiled too', () => {
  for (const [rotations, isGrouped] of [
    [new Map(), true],
    [BOTH, false],
  ] as const) {
    const tensors = tensorsOf()
    const before = [...tensors.values()]
    expect(groupValueHeads(tensors, STRUCTURE, rotations, isGrouped)).toBe(STRUCTURE)
    expect([...tensors.values()]).toEqual(before)
  }
})

it('fits none where some are rotated and others are not', async () => {
  const some = new Map([['layers.2.w_out', true]])
  const { code, message } = await failure(() => groupValueHeads(tensorsOf(), STRUCTURE, some, true))
  expect(code).toBe('ERR_UNSUPPORTED_ARCHITECTURE')
  expect(message).toContain('prism.hadamard.gdn_v_grouped, ssm_out of layer 2 rotated and that of layer 0 not')
})
