/**
 * Hugging Face folders of the Llama family, with weights in safetensors or PyTorch files; and the official OneBit
 * checkpoints, which are such folders with model_type bitllama and 1-bit linears in one of two layouts.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { linearShape, type ModelConfig, ROLES, type Role } from '../config/architecture.js'
import { type Fields, type HfConfig, isObject, parseHfConfig } from './hf-config.js'
import { noConfig, readFolderText, readJson } from './hf-text.js'
import { floatTensor, packedTensor, type RawTensor, type RawTensors } from './raw-tensors.js'
import { openSafetensors } from './safetensors.js'
import { badSource, missingTensor, type SourceModel, type SourceTensor, wrongShape } from './source.js'
import { openTorchCheckpoint } from './torch-checkpoint.js'

const LINEAR_NAMES: Record<Role, string> = {
  wq: 'self_attn.q_proj',
  wk: 'self_attn.k_proj',
  wv: 'self_attn.v_proj',
  wo: 'self_attn.o_proj',
  w1: 'mlp.gate_proj',
  w2: 'mlp.down_proj',
  w3: 'mlp.up_proj',
}
const ATTENTION_ROLES: readonly Role[] = ['wq', 'wk', 'wv', 'wo']

/** Tensors that hold nothing of the model: a table computed from the config, and the official trainer's teacher. */
function isIgnored(name: string): boolean {
  return name.endsWith('.rotary_emb.inv_freq') || name.startsWith('teacher_model.')
}

/** Takes tensors out by name, so that what is left at the end is what nobody asked for. */
class Taker {
  readonly #raw: RawTensors['tensors']
  readonly #left: Set<string>
  /** some checkpoints lack the `model.` in front */
  readonly #prefix: string

  constructor(raw: RawTensors['tensors']) {
    this.#raw = raw
    this.#left = new Set([...raw.keys()].filter((name) => !isIgnored(name)))
    this.#prefix = raw.has('embed_tokens.weight') ? '' : 'model.'
  }

  raw(name: string): RawTensor | undefined {
    const full = name === 'lm_head.weight' ? name : this.#prefix + name
    this.#left.delete(full)
    return this.#raw.get(full)
  }

  optional(name: string, ...shape: number[]): SourceTensor | undefined {
    const raw = this.raw(name)
    return raw && floatTensor(raw, shape)
  }

  required(name: string, ...shape: number[]): SourceTensor {
    const found = this.optional(name, ...shape)
    if (found === undefined) throw missingTensor(this.#prefix + name)
    return found
  }

  checkNothingLeft(): void {
    const [name] = this.#left
    if (name === undefined) return
    throw badSource(
      `The source has a tensor ${name}, which a model of its config does not use`,
      'It is probably of a kind that only looks like a Llama.',
    )
  }
}

type SignLayout = 'packed' | 'training'

/** int8 weights are packed signs; floats with a scale at each end are the training layout's latent weights. */
function signLayout(raw: RawTensors['tensors']): SignLayout {
  const weight = [...raw].find(([name]) => !isIgnored(name) && name.endsWith('layers.0.self_attn.q_proj.weight'))?.[1]
  return weight?.type === 'I8' || weight?.type === 'U8' ? 'packed' : 'training'
}

interface Mapping {
  hf: HfConfig
  take: Taker
  /** undefined: dense */
  signs: SignLayout | undefined
}

function signWeight({ take }: Mapping, name: string, layout: SignLayout, rows: number, cols: number): SourceTensor {
  if (layout === 'training') return take.required(`${name}.weight`, rows, cols)
  const raw = take.raw(`${name}.weight`)
  if (raw === undefined) throw missingTensor(`${name}.weight`)
  if (raw.type !== 'I8' && raw.type !== 'U8')
    throw badSource(`Tensor ${raw.name} has type ${raw.type}, others are packed`)
  if (cols % 8 !== 0) throw wrongShape(raw.name, raw.shape, [rows, cols / 8])
  return packedTensor(raw, rows, cols)
}

function* linearTensors(mapping: Mapping, layer: number, role: Role): Generator<[string, SourceTensor]> {
  const { hf, take, signs } = mapping
  const [rows, cols] = linearShape(hf.config as ModelConfig, role)
  const name = `layers.${layer}.${LINEAR_NAMES[role]}`
  if (signs === undefined) yield ['weight', take.required(`${name}.weight`, rows, cols)]
  else {
    yield ['g', take.required(`${name}.input_factor`, cols)]
    yield ['weight', signWeight(mapping, name, signs, rows, cols)]
    yield ['h', take.required(`${name}.weight_scale`, rows)]
  }
  const mustHave = ATTENTION_ROLES.includes(role) ? hf.attention_bias : hf.mlp_bias
  const bias = take.optional(`${name}.bias`, rows)
  if (bias !== undefined) yield ['bias', bias]
  else if (mustHave) throw missingTensor(`model.${name}.bias`)
}

function mapTensors(mapping: Mapping): Map<string, SourceTensor> {
  const { hf, take } = mapping
  const { dim, vocab_size, head_dim, n_layers, architecture } = hf.config
  const out = new Map<string, SourceTensor>()
  out.set('tok_embeddings.weight', take.required('embed_tokens.weight', vocab_size, dim))
  for (let layer = 0; layer < n_layers; layer++) {
    out.set(`layers.${layer}.attention_norm`, take.required(`layers.${layer}.input_layernorm.weight`, dim))
    out.set(`layers.${layer}.ffn_norm`, take.required(`layers.${layer}.post_attention_layernorm.weight`, dim))
    if (architecture === 'qwen3') {
      out.set(`layers.${layer}.q_norm`, take.required(`layers.${layer}.self_attn.q_norm.weight`, head_dim))
      out.set(`layers.${layer}.k_norm`, take.required(`layers.${layer}.self_attn.k_norm.weight`, head_dim))
    }
    for (const role of ROLES) {
      for (const [part, tensor] of linearTensors(mapping, layer, role))
        out.set(`layers.${layer}.${role}.${part}`, tensor)
    }
  }
  out.set('norm', take.required('norm.weight', dim))
  const head = take.optional('lm_head.weight', vocab_size, dim)
  if (!hf.config.tied_head) {
    if (head === undefined) throw missingTensor('lm_head.weight')
    out.set('output.weight', head)
  }
  take.checkNothingLeft()
  return out
}

/** The file names in an index, which must be names and nothing more: an index can say anything. */
function shardNames(index: Fields, file: string): string[] {
  const map = index.weight_map
  const names = isObject(map) ? [...new Set(Object.values(map))] : []
  if (names.length === 0) throw badSource(`${file} has no weight_map`)
  return names.map((name) => {
    if (typeof name === 'string' && /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name)) return name
    throw badSource(`${file} names a file ${JSON.stringify(name)?.slice(0, 80)}, which is not a plain file name`)
  })
}

const WEIGHT_FILES = [
  { single: 'model.safetensors', open: openSafetensors },
  { single: 'pytorch_model.bin', open: openTorchCheckpoint },
] as const

async function openWeights(folder: string): Promise<RawTensors> {
  for (const { single, open } of WEIGHT_FILES) {
    if (existsSync(join(folder, single))) return open(folder, [single])
    const index = await readJson(join(folder, `${single}.index.json`))
    if (index !== undefined) return open(folder, shardNames(index, `${single}.index.json`))
  }
  throw badSource(`${folder} has no model.safetensors, no pytorch_model.bin and no index of such files`)
}

/**
 * Opens a model folder.
 * @throws OnebitError ERR_UNKNOWN_FORMAT, ERR_UNSUPPORTED_ARCHITECTURE, ERR_UNSUPPORTED_ROPE,
 *   ERR_UNSUPPORTED_TENSOR_TYPE, ERR_MISSING_TENSOR, ERR_TENSOR_SHAPE, ERR_BAD_SOURCE, ERR_PICKLE_FORBIDDEN,
 *   ERR_TRUNCATED, and those of reading files
 */
export async function openHuggingFace(folder: string): Promise<SourceModel> {
  const json = await readJson(join(folder, 'config.json'))
  if (json === undefined) throw noConfig(folder)
  const hf = parseHfConfig(json)
  const text = await readFolderText(folder, json)
  const raw = await openWeights(folder)
  try {
    const signs = hf.model_type === 'bitllama' ? signLayout(raw.tensors) : undefined
    const tensors = mapTensors({ hf, take: new Taker(raw.tensors), signs })
    return {
      format: signs === undefined ? 'huggingface' : `onebit-${signs}`,
      config: hf.config,
      tensors,
      ...text,
      layernorm: signs !== undefined,
      files: raw.files,
      close: () => raw.close(),
    }
  } catch (cause) {
    await raw.close()
    throw cause
  }
}
