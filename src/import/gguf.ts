/** GGUF models of the Llama family and Qwen3, quantised blocks included. */

import { LIMITS, linearShape, type ModelConfig, ROLES, type Role, type RopeScaling } from '../config/architecture.js'
import { OnebitError } from '../errors.js'
import { openFile, readExactly } from '../files/file-reading.js'
import { addon } from '../native/addon.js'
import type { SourceType } from '../native/native.js'
import { shown } from '../shown-value.js'
import { tokenizerFromGguf } from '../text/gguf-vocabulary.js'
import { type GgufHeader, type GgufTensorInfo, type GgufValue, readGgufHeader } from './gguf-reader.js'
import { chatTemplateBlob, jsonBytes } from './hf-text.js'
import {
  badSource,
  checkDimension,
  missingTensor,
  type SourceModel,
  type SourceTensor,
  type SourceText,
  unsupportedArchitecture,
  wrongShape,
} from './source.js'

/** By ggml type id: what we read, with the elements and bytes of a block. */
const TYPES: Record<number, { type: SourceType; elements: number; bytes: number }> = {
  0: { type: 'f32', elements: 1, bytes: 4 },
  1: { type: 'f16', elements: 1, bytes: 2 },
  2: { type: 'q4_0', elements: 32, bytes: 18 },
  3: { type: 'q4_1', elements: 32, bytes: 20 },
  8: { type: 'q8_0', elements: 32, bytes: 34 },
  30: { type: 'bf16', elements: 1, bytes: 2 },
  41: { type: 'q1_0', elements: 128, bytes: 18 },
}

/** Names of the types we do not read, for the message; ggml has no others in use. */
const OTHER_TYPES: Record<number, string> = {
  6: 'Q5_0',
  7: 'Q5_1',
  9: 'Q8_1',
  10: 'Q2_K',
  11: 'Q3_K',
  12: 'Q4_K',
  13: 'Q5_K',
  14: 'Q6_K',
  15: 'Q8_K',
  16: 'IQ2_XXS',
  17: 'IQ2_XS',
  18: 'IQ3_XXS',
  19: 'IQ1_S',
  20: 'IQ4_NL',
  21: 'IQ3_S',
  22: 'IQ2_S',
  23: 'IQ4_XS',
  29: 'IQ1_M',
  34: 'TQ1_0',
  35: 'TQ2_0',
  39: 'MXFP4',
  42: 'Q2_0',
}

const LINEAR_NAMES: Record<Role, string> = {
  wq: 'attn_q',
  wk: 'attn_k',
  wv: 'attn_v',
  wo: 'attn_output',
  w1: 'ffn_gate',
  w2: 'ffn_down',
  w3: 'ffn_up',
}

/** Metadata of one architecture, read under its prefix. */
class Keys {
  constructor(
    readonly metadata: Map<string, GgufValue>,
    readonly architecture: string,
  ) {}

  get(key: string): GgufValue | undefined {
    return this.metadata.get(`${this.architecture}.${key}`)
  }

  number(key: string, fallback?: number): number {
    const value = this.get(key) ?? fallback
    const plain = typeof value === 'bigint' ? Number(value) : value
    if (typeof plain === 'number' && Number.isFinite(plain)) return plain
    throw badSource(
      `${this.architecture}.${key} must be a number, found ${plain === undefined ? 'nothing' : typeof plain}`,
    )
  }

  size(key: string, max: number, fallback?: number): number {
    return checkDimension(`${this.architecture}.${key}`, this.number(key, fallback), max)
  }
}

function ropeScaling(keys: Keys, factors: number[] | undefined, context: number): RopeScaling {
  const type = keys.get('rope.scaling.type') ?? (keys.get('rope.scale_linear') === undefined ? 'none' : 'linear')
  if (factors !== undefined) {
    if (type === 'none' || type === 'linear') return { type: 'factors', factors }
    throw badSource(`rope_freqs.weight together with RoPE scaling of type ${String(type)}`)
  }
  const factor = () => keys.number('rope.scaling.factor', keys.number('rope.scale_linear', 1))
  if (type === 'none') return { type }
  if (type === 'linear') return { type, factor: factor() }
  if (type !== 'yarn') {
    throw new OnebitError('ERR_UNSUPPORTED_ROPE', `RoPE scaling of type ${shown(type)}`, {
      hint: 'linear, yarn and rope_freqs.weight can be converted.',
    })
  }
  // llama.cpp multiplies the usual magnitude by attn_factor instead of replacing it.
  const attention = keys.number('rope.scaling.yarn_attn_factor', keys.number('rope.scaling.attn_factor', 1))
  const magnitude = attention === 1 ? 0 : attention * (0.1 * Math.log(factor()) + 1)
  return {
    type,
    factor: factor(),
    original_context: keys.size('rope.scaling.original_context_length', LIMITS.context, context),
    beta_fast: keys.number('rope.scaling.yarn_beta_fast', 32),
    beta_slow: keys.number('rope.scaling.yarn_beta_slow', 1),
    attention_factor: magnitude,
  }
}

type SourceConfig = SourceModel['config']

function readConfig(keys: Keys, tensors: TensorMap, factors: number[] | undefined): SourceConfig {
  const n_heads = keys.size('attention.head_count', LIMITS.heads)
  const dim = keys.size('embedding_length', LIMITS.dim)
  const head_dim = keys.size('attention.key_length', LIMITS.head_dim, Math.floor(dim / n_heads))
  const same = (key: string) => {
    const value = keys.number(key, head_dim)
    if (value === head_dim) return
    throw unsupportedArchitecture(`${keys.architecture} with ${key} ${value} and heads of size ${head_dim}`)
  }
  same('attention.value_length')
  same('rope.dimension_count')
  const context_length = keys.size('context_length', LIMITS.context)
  const qwen3 = keys.architecture === 'qwen3'
  return {
    architecture: qwen3 ? 'qwen3' : 'llama',
    vocab_size: checkDimension('the vocabulary', tensors.get('token_embd.weight')?.dimensions[1], LIMITS.vocab),
    dim,
    hidden_dim: keys.size('feed_forward_length', LIMITS.dim),
    n_layers: keys.size('block_count', LIMITS.layers),
    n_heads,
    n_kv_heads: keys.size('attention.head_count_kv', LIMITS.heads, n_heads),
    head_dim,
    context_length,
    norm_eps: shortest(keys.number('attention.layer_norm_rms_epsilon')),
    rope_theta: shortest(keys.number('rope.freq_base', 10000)),
    // The rows of q and k in a llama GGUF were reordered for rotation of neighbours; those of qwen3 were not.
    rope_style: qwen3 ? 'half' : 'interleaved',
    rope_scaling: ropeScaling(keys, factors, context_length),
    tied_head: !tensors.has('output.weight'),
  }
}

/** The shortest decimal that is this f32: 1e-5 and not 0.000009999999747378752. */
function shortest(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits))
    if (Math.fround(short) === Math.fround(value)) return short
  }
  return value
}

type TensorMap = Map<string, GgufTensorInfo>

/** Every tensor's type known, its bytes inside the file, no two sharing any. */
function checkTensors(path: string, { tensors, fileBytes }: GgufHeader): TensorMap {
  const byName: TensorMap = new Map()
  let end = 0
  let before = ''
  for (const tensor of [...tensors].sort((a, b) => a.offset - b.offset)) {
    const { name, type, dimensions, offset } = tensor
    const known = TYPES[type]
    if (known === undefined) {
      const what = OTHER_TYPES[type] ?? `the unknown type ${type}`
      throw new OnebitError('ERR_UNSUPPORTED_TENSOR_TYPE', `${path}: tensor ${name} has type ${what}`, {
        hint: 'F32, F16, BF16, Q8_0, Q4_0, Q4_1 and Q1_0 can be converted.',
      })
    }
    if (dimensions[0]! % known.elements !== 0) {
      throw badSource(`${path}: tensor ${name} has rows of ${dimensions[0]}, not a multiple of ${known.elements}`)
    }
    const bytes = (dimensions.reduce((product, size) => product * size, 1) / known.elements) * known.bytes
    if (byName.has(name)) throw badSource(`${path}: tensor ${name} is there twice`)
    if (offset < end) throw badSource(`${path}: tensors ${before} and ${name} overlap at byte ${offset}`)
    end = offset + bytes
    before = name
    if (end > fileBytes) {
      const message = `${path}: tensor ${name} ends at byte ${end}, the file has ${fileBytes}`
      throw new OnebitError('ERR_TRUNCATED', message, { hint: 'The download stopped early; get the file again.' })
    }
    byName.set(name, tensor)
  }
  return byName
}

type ReadAt = (position: number, length: number) => Promise<Uint8Array>

/** Takes tensors out of the map, so that what is left at the end is what nobody asked for. */
class Taker {
  readonly #tensors: TensorMap
  readonly #read: ReadAt
  readonly #left: Set<string>

  constructor(tensors: TensorMap, read: ReadAt) {
    this.#tensors = tensors
    this.#read = read
    this.#left = new Set(tensors.keys())
  }

  /** shape: [rows, cols], or [cols] of a vector */
  optional(name: string, ...shape: number[]): SourceTensor | undefined {
    const info = this.#tensors.get(name)
    if (info === undefined) return undefined
    this.#left.delete(name)
    const found = [...info.dimensions].reverse()
    if (found.length !== shape.length || found.some((size, i) => size !== shape[i]))
      throw wrongShape(name, found, shape)
    const { type, elements, bytes } = TYPES[info.type]!
    const cols = shape.at(-1)!
    const rowBytes = (cols / elements) * bytes
    const read = (first: number, count: number) => this.#read(info.offset + first * rowBytes, count * rowBytes)
    return { name, type, rows: shape.length === 1 ? 1 : shape[0]!, cols, read }
  }

  required(name: string, ...shape: number[]): SourceTensor {
    const found = this.optional(name, ...shape)
    if (found === undefined) throw missingTensor(name)
    return found
  }

  checkNothingLeft(): void {
    const [name] = this.#left
    if (name === undefined) return
    throw badSource(
      `The source has a tensor ${name}, which a model of its architecture does not use`,
      'It is probably of a kind that only looks like a Llama.',
    )
  }
}

function mapTensors(config: SourceConfig, take: Taker): Map<string, SourceTensor> {
  const { dim, vocab_size, head_dim, n_layers, architecture } = config
  const out = new Map<string, SourceTensor>()
  out.set('tok_embeddings.weight', take.required('token_embd.weight', vocab_size, dim))
  for (let layer = 0; layer < n_layers; layer++) {
    out.set(`layers.${layer}.attention_norm`, take.required(`blk.${layer}.attn_norm.weight`, dim))
    out.set(`layers.${layer}.ffn_norm`, take.required(`blk.${layer}.ffn_norm.weight`, dim))
    if (architecture === 'qwen3') {
      out.set(`layers.${layer}.q_norm`, take.required(`blk.${layer}.attn_q_norm.weight`, head_dim))
      out.set(`layers.${layer}.k_norm`, take.required(`blk.${layer}.attn_k_norm.weight`, head_dim))
    }
    for (const role of ROLES) {
      const [rows, cols] = linearShape(config as ModelConfig, role)
      const name = `blk.${layer}.${LINEAR_NAMES[role]}`
      out.set(`layers.${layer}.${role}.weight`, take.required(`${name}.weight`, rows, cols))
      const bias = take.optional(`${name}.bias`, rows)
      if (bias !== undefined) out.set(`layers.${layer}.${role}.bias`, bias)
    }
  }
  out.set('norm', take.required('output_norm.weight', dim))
  if (!config.tied_head) out.set('output.weight', take.required('output.weight', vocab_size, dim))
  take.checkNothingLeft()
  return out
}

async function readRopeFactors(take: Taker, head_dim: number): Promise<number[] | undefined> {
  const tensor = take.optional('rope_freqs.weight', head_dim / 2)
  if (tensor === undefined) return undefined
  const values = addon().toF32(await tensor.read(0, 1), tensor.type as SourceType, 1, tensor.cols)
  return Array.from(values, shortest)
}

function readText(metadata: Map<string, GgufValue>): SourceText {
  const entries = [...metadata].filter(([key]) => key.startsWith('tokenizer.'))
  if (!metadata.has('tokenizer.ggml.model')) return {}
  const { tokenizer, config, chatTemplate } = tokenizerFromGguf(Object.fromEntries(entries))
  return {
    tokenizer: jsonBytes({ tokenizer, config }),
    chatTemplate: chatTemplate === undefined ? undefined : chatTemplateBlob(chatTemplate, config),
  }
}

function checkModel(path: string, { metadata, tensors }: GgufHeader): Keys {
  const architecture = metadata.get('general.architecture')
  if (typeof architecture !== 'string') {
    throw badSource(
      `${path} does not say its architecture (general.architecture)`,
      'It may be no model, or only a part of one.',
    )
  }
  if (architecture !== 'llama' && architecture !== 'qwen3') throw unsupportedArchitecture(architecture.slice(0, 60))
  const parts = metadata.get('split.count')
  if (parts !== undefined && Number(parts) > 1) {
    throw badSource(`${path} is one of ${String(parts)} parts`, 'Join them first: llama-gguf-split --merge FIRST OUT.')
  }
  if (tensors.length === 0) throw badSource(`${path} has no tensors: it holds only a vocabulary`)
  return new Keys(metadata, architecture)
}

/** The tokenizer of a GGUF file, which may have nothing else in it. */
export async function readGgufText(path: string): Promise<SourceText> {
  const { file, bytes } = await openFile(path)
  try {
    return readText(readGgufHeader(path, file.fd, bytes).metadata)
  } finally {
    await file.close()
  }
}

/**
 * Opens a GGUF file.
 * @throws OnebitError ERR_UNSUPPORTED_ARCHITECTURE, ERR_UNSUPPORTED_TENSOR_TYPE, ERR_UNSUPPORTED_ROPE,
 *   ERR_UNSUPPORTED_TOKENIZER, ERR_MISSING_TENSOR, ERR_TENSOR_SHAPE, ERR_BAD_SOURCE, ERR_TRUNCATED
 */
export async function openGguf(path: string): Promise<SourceModel> {
  const { file, bytes } = await openFile(path)
  try {
    const header = readGgufHeader(path, file.fd, bytes)
    const keys = checkModel(path, header)
    const placed = checkTensors(path, header)
    const take = new Taker(placed, (position, length) => readExactly(path, file, position, length))
    const { head_dim } = readConfig(keys, placed, undefined)
    const config = readConfig(keys, placed, await readRopeFactors(take, head_dim))
    const tensors = mapTensors(config, take)
    const text = readText(header.metadata)
    return { format: 'gguf', config, tensors, ...text, layernorm: false, files: [path], close: () => file.close() }
  } catch (cause) {
    await file.close()
    throw cause
  }
}
