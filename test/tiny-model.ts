/** Small models with random weights, of every kind of linear, with a tokenizer of single bytes. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Features, WrittenConfig } from '../dist/config/config.js'
import type { LinearKind } from '../dist/config/kinds.js'
import { rolesOf, type TensorSpec } from '../dist/config/tensors.js'
import { addon } from '../dist/native/addon.js'
import { writeObt } from '../dist/obt/obt.js'

export const KINDS = {
  f32: { kind: 'dense', dtype: 'f32', bias: false },
  f16: { kind: 'dense', dtype: 'f16', bias: true },
  bf16: { kind: 'dense', dtype: 'bf16', bias: false },
  q8: { kind: 'dense', dtype: 'q8', bias: false },
  sign: { kind: 'sign', rank: 0, mid_scale: false, layernorm: true, bias: true },
  chain: { kind: 'sign', rank: 64, mid_scale: true, layernorm: false, bias: false },
  column: { kind: 'sign', rank: 0, mid_scale: false, layernorm: false, bias: false, column: true, half: true },
  q1_0: { kind: 'q1_0', bias: false },
} as const satisfies Record<string, LinearKind>

export type KindName = keyof typeof KINDS

export interface TinyOptions {
  kind?: KindName
  embedding?: 'f32' | 'f16' | 'q8' | 'q1_0'
  architecture?: 'llama' | 'qwen3'
  dim?: number
  layers?: number
  context?: number
  /** those that the architecture does not have by default */
  features?: Partial<Features>
  tied?: boolean
  tokenizer?: boolean
  chat?: boolean
  /** a chat template instead of the usual one */
  template?: string
  /** more special tokens */
  special?: readonly string[]
  /** puts other numbers into a tensor */
  change?: (name: string, bytes: Uint8Array) => void
}

const SPECIAL = ['<|bos|>', '<|im_start|>', '<|im_end|>']
export const TINY_VOCAB = 256 + SPECIAL.length

/** The letters by which byte-level vocabularies name bytes: printable ones themselves, the others from U+0100 on. */
function byteLetters(): string[] {
  const letters: string[] = []
  let next = 256
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174
    letters.push(String.fromCharCode(printable ? byte : next++))
  }
  return letters
}

/** One token a byte, id = byte; the special tokens follow. */
function tinyTokenizer(more: readonly string[] = []) {
  const vocab = Object.fromEntries(byteLetters().map((letter, id) => [letter, id]))
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }
  return {
    tokenizer: {
      version: '1.0',
      added_tokens: [...SPECIAL, ...more].map((content, i) => ({
        id: 256 + i,
        content,
        special: true,
        normalized: false,
      })),
      normalizer: null,
      pre_tokenizer: byteLevel,
      post_processor: null,
      decoder: byteLevel,
      model: { type: 'BPE', vocab, merges: [] },
    },
    config: { bos_token: SPECIAL[0], eos_token: SPECIAL[2], add_bos_token: true },
  }
}

const TEMPLATE = `{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`

/** These layers mix by the delta rule: 2 key heads, 4 value heads, widths that are no multiple of a vector's. */
export function deltaFeatures(delta_layers: number[]): Partial<Features> {
  return { delta_layers, delta_k_heads: 2, delta_v_heads: 4, delta_k_dim: 20, delta_v_dim: 32, delta_conv: 4 }
}

export function tinyConfig(options: TinyOptions = {}): WrittenConfig {
  const dim = options.dim ?? 128
  const heads = dim / 32
  const kind = KINDS[options.kind ?? 'sign']
  const embedding = { ...KINDS[options.embedding ?? 'q8'], bias: false } as LinearKind
  const { feed_forward = 'gated', delta_layers = [] } = options.features ?? {}
  const roles = rolesOf({ feed_forward, delta_layers, n_layers: options.layers ?? 2 })
  return {
    architecture: options.architecture ?? 'llama',
    vocab_size: TINY_VOCAB + (options.special?.length ?? 0),
    dim,
    hidden_dim: 2 * dim,
    n_layers: options.layers ?? 2,
    n_heads: heads,
    n_kv_heads: heads / 2,
    head_dim: 32,
    context_length: options.context ?? 256,
    norm_eps: 1e-5,
    rope_theta: 10000,
    rope_style: 'half',
    rope_scaling: { type: 'none' },
    tied_head: options.tied ?? true,
    embedding,
    head: embedding,
    linears: Object.fromEntries(roles.map((role) => [role, kind])),
    ...options.features,
  }
}

/** xorshift32: the same numbers every time, from a name. */
function numbers(seed: string): () => number {
  let state = [...seed].reduce((sum, letter) => (Math.imul(sum, 31) + letter.charCodeAt(0)) | 0, 17) || 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32
  }
}

function bytesOf(array: Float32Array | Uint16Array | Int8Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength)
}

function randomTensor(spec: TensorSpec): Uint8Array {
  const random = numbers(spec.name)
  const count = spec.shape.reduce((product, size) => product * size, 1)
  const floats = (middle: number, spread: number) =>
    Float32Array.from({ length: count }, () => middle + spread * (2 * random() - 1))
  if (spec.dtype === 'U8') return Uint8Array.from({ length: count }, () => 256 * random())
  if (spec.dtype === 'I8') return bytesOf(Int8Array.from({ length: count }, () => 255 * random() - 127))
  if (spec.name.endsWith('.weight')) {
    const values = floats(0, 0.25)
    if (spec.dtype === 'F32') return bytesOf(values)
    const type = spec.dtype === 'F16' ? 'f16' : 'bf16'
    return addon().fromF32(values, type, spec.shape[0]!, spec.shape[1]!).data
  }
  if (spec.dtype === 'F16') return addon().fromF32(floats(0.1, 0.05), 'f16', 1, count).data
  if (spec.name.endsWith('.decay')) return bytesOf(floats(-0.5, 0.4)) // a state has to forget
  if (/\.(conv|time_bias)$/.test(spec.name)) return bytesOf(floats(0, 0.5))
  if (spec.name.endsWith('norm')) return bytesOf(floats(1, 0.3))
  if (spec.name.endsWith('.scale')) return bytesOf(floats(0.002, 0.001))
  if (spec.name.endsWith('.bias')) return bytesOf(floats(0, 0.1))
  return bytesOf(floats(spec.name.endsWith('.g') ? 1 : 0.1, 0.05))
}

/** Writes a model; the same options give the same bytes. */
export async function writeTinyModel(path: string, options: TinyOptions = {}): Promise<void> {
  const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))
  const content = {
    config: tinyConfig(options),
    provenance: { source: 'test/tiny-model.ts' },
    tokenizer: options.tokenizer === false ? undefined : json(tinyTokenizer(options.special)),
    chatTemplate:
      options.chat === false
        ? undefined
        : json({ template: options.template ?? TEMPLATE, bos_token: SPECIAL[0], eos_token: SPECIAL[2] }),
  }
  await writeObt(path, content, async function* (spec) {
    const bytes = randomTensor(spec)
    options.change?.(spec.name, bytes)
    yield bytes
  })
}

/** A folder that goes away with `remove()`. */
export function temporaryFolder(): { path: (name: string) => string; remove: () => void } {
  const folder = mkdtempSync(join(tmpdir(), 'onebit-test-'))
  return { path: (name) => join(folder, name), remove: () => rmSync(folder, { recursive: true, force: true }) }
}
