// What random files of a shape hold: the names and sizes of their tensors and their metadata, as llama.cpp reads them.
// Sources: the converters of llama.cpp and ik_llama.cpp, and small files that both were seen to run.
import { SHAPES } from '../../dist/bench/shapes.js'
import { importTypeScript } from '../../scripts/import-typescript.mjs'

const { SeededRandom } = await importTypeScript('test/gguf-writer.ts')

/** The architecture of a shape; a peer without it may be given the same sizes as another (`llama`). */
export function architectureOf(shapeName) {
  const { delta_layers, attention_inner_norm, qk_norm } = SHAPES[shapeName]
  if (delta_layers) return 'qwen35'
  if (attention_inner_norm) return 'bitnet-b1.58'
  return qk_norm ? 'qwen3' : 'llama'
}

const vector = (name, length, value = 1) => ({ name, shape: [length], kind: 'F32', value })
const norm = (name, length) => vector(`${name}.weight`, length)

function attentionTensors({ dim, n_heads, n_kv_heads, head_dim, output_gate }, arch, at, matrix) {
  const inner = n_heads * head_dim
  const perHead = arch === 'qwen3' || arch === 'qwen35'
  return [
    // Each head's gate lies beside its query.
    matrix(`${at}.attn_q`, output_gate ? 2 * inner : inner, dim),
    matrix(`${at}.attn_k`, n_kv_heads * head_dim, dim),
    matrix(`${at}.attn_v`, n_kv_heads * head_dim, dim),
    ...(perHead ? [norm(`${at}.attn_q_norm`, head_dim), norm(`${at}.attn_k_norm`, head_dim)] : []),
    ...(arch === 'bitnet-b1.58' ? [norm(`${at}.attn_sub_norm`, dim)] : []),
    matrix(`${at}.attn_output`, dim, inner),
  ]
}

function deltaTensors(shape, at, matrix) {
  const { dim, delta_k_heads, delta_v_heads, delta_k_dim, delta_v_dim, delta_conv } = shape
  const values = delta_v_heads * delta_v_dim
  const channels = 2 * delta_k_heads * delta_k_dim + values
  const gate = (name) => ({ name: `${at}.${name}.weight`, shape: [delta_v_heads, dim], kind: 'BF16', value: 2 ** -6 })
  return [
    matrix(`${at}.attn_qkv`, channels, dim),
    matrix(`${at}.attn_gate`, values, dim),
    gate('ssm_beta'),
    gate('ssm_alpha'),
    { name: `${at}.ssm_conv1d.weight`, shape: [channels, delta_conv], kind: 'F32', value: 0.5 },
    // States decay by e to this, times a positive number: a positive one would let them grow without end.
    vector(`${at}.ssm_a`, delta_v_heads, -1),
    vector(`${at}.ssm_dt.bias`, delta_v_heads, 0),
    norm(`${at}.ssm_norm`, delta_v_dim),
    matrix(`${at}.ssm_out`, dim, values),
  ]
}

function layerTensors(shape, arch, layer, matrix) {
  const at = `blk.${layer}`
  const { dim, hidden_dim } = shape
  const mixing = shape.delta_layers?.includes(layer) ? deltaTensors : attentionTensors
  const mixed = mixing === deltaTensors ? deltaTensors(shape, at, matrix) : attentionTensors(shape, arch, at, matrix)
  return [
    norm(`${at}.attn_norm`, dim),
    ...mixed,
    norm(arch === 'qwen35' ? `${at}.post_attention_norm` : `${at}.ffn_norm`, dim),
    matrix(`${at}.ffn_gate`, hidden_dim, dim),
    matrix(`${at}.ffn_up`, hidden_dim, dim),
    ...(arch === 'bitnet-b1.58' ? [norm(`${at}.ffn_sub_norm`, hidden_dim)] : []),
    matrix(`${at}.ffn_down`, dim, hidden_dim),
  ]
}

/**
 * Every tensor as { name, shape: [rows, cols] or [length], kind, value }.
 * @param form { shape: a name, arch, type: of the linears, tables: of embedding and head }
 */
export function tensorsOf({ shape: name, arch, type, tables }) {
  const shape = SHAPES[name]
  const { vocab_size, dim, n_layers, tied_head } = shape
  const matrix = (tensor, rows, cols, kind = type) => ({ name: `${tensor}.weight`, shape: [rows, cols], kind })
  return [
    matrix('token_embd', vocab_size, dim, tables),
    ...Array.from({ length: n_layers }, (_, layer) => layerTensors(shape, arch, layer, matrix)).flat(),
    norm('output_norm', dim),
    ...(tied_head ? [] : [matrix('output', vocab_size, dim, tables)]),
  ]
}

/** A SentencePiece vocabulary that means nothing: the peer refuses a model without one. */
function vocabulary(size) {
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`)
  const tokens = ['<unk>', '<s>', '</s>', ...bytes]
  while (tokens.length < size) tokens.push(`\u2581w${tokens.length.toString(36)}`)
  const kind = (i) => (i === 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1) // unknown, control, byte, normal
  return {
    'tokenizer.ggml.model': { string: 'llama' },
    'tokenizer.ggml.tokens': { strings: tokens },
    'tokenizer.ggml.scores': { f32s: tokens.map((_, i) => -i) },
    'tokenizer.ggml.token_type': { i32s: tokens.map((_, i) => kind(i)) },
    'tokenizer.ggml.bos_token_id': { u32: 1 },
    'tokenizer.ggml.eos_token_id': { u32: 2 },
    'tokenizer.ggml.unknown_token_id': { u32: 0 },
  }
}

/** Gated DeltaNet's sizes. `qwen35.rope.dimension_sections` are of pictures; for text they make no difference. */
function deltaMetadata({ delta_conv, delta_k_dim, delta_k_heads, delta_v_heads, delta_v_dim }) {
  return {
    'qwen35.ssm.conv_kernel': { u32: delta_conv },
    'qwen35.ssm.state_size': { u32: delta_k_dim },
    'qwen35.ssm.group_count': { u32: delta_k_heads },
    'qwen35.ssm.time_step_rank': { u32: delta_v_heads },
    'qwen35.ssm.inner_size': { u32: delta_v_heads * delta_v_dim },
    'qwen35.full_attention_interval': { u32: 4 },
    'qwen35.rope.dimension_sections': { i32s: [11, 11, 10, 0] },
  }
}

/** The rotation that the shape's published models have in front of every matrix and behind the embedding. */
function rotationMetadata({ ternary, tied_head }, tensors) {
  const random = new SeededRandom(2)
  const gates = /ssm_(alpha|beta|conv1d)/
  const folded = tensors.filter(
    ({ name, shape }) => shape.length === 2 && !gates.test(name) && name !== 'token_embd.weight',
  )
  const widths = [...new Set(folded.map(({ shape }) => shape[1]))].sort((a, b) => a - b)
  const signs = widths.flatMap((width) => Array.from({ length: width }, () => (random.next() & 1 ? 1 : -1)))
  return {
    'prism.hadamard.version': { u32: tied_head ? 2 : 1 },
    'prism.hadamard.block_size': { u32: ternary.rotation },
    'prism.hadamard.transform': { string: 'normalized-sylvester-walsh-hadamard' },
    'prism.hadamard.axis': { string: 'input-last-dimension' },
    'prism.hadamard.sign_mode': { string: 'explicit' },
    'prism.hadamard.gdn_v_grouped': { bool: true },
    'prism.hadamard.weight_names': { strings: folded.map(({ name }) => name) },
    'prism.hadamard.sign_widths': { i32s: widths },
    'prism.hadamard.sign_values': { i32s: signs },
    'prism.hadamard.inverse_weight_names': { strings: ['token_embd.weight'] },
    ...(tied_head && { 'prism.hadamard.tied_output': { bool: true } }),
  }
}

export function metadataOf({ shape: name, arch, type }, tensors) {
  const shape = SHAPES[name]
  return {
    'general.architecture': { string: arch },
    'general.name': { string: `${name} ${type}` },
    [`${arch}.block_count`]: { u32: shape.n_layers },
    [`${arch}.context_length`]: { u32: shape.context_length },
    [`${arch}.embedding_length`]: { u32: shape.dim },
    [`${arch}.feed_forward_length`]: { u32: shape.hidden_dim },
    [`${arch}.attention.head_count`]: { u32: shape.n_heads },
    [`${arch}.attention.head_count_kv`]: { u32: shape.n_kv_heads },
    [`${arch}.attention.key_length`]: { u32: shape.head_dim },
    [`${arch}.attention.value_length`]: { u32: shape.head_dim },
    [`${arch}.attention.layer_norm_rms_epsilon`]: { f32: shape.norm_eps },
    [`${arch}.rope.dimension_count`]: { u32: shape.rope_dims ?? shape.head_dim },
    [`${arch}.rope.freq_base`]: { f32: shape.rope_theta },
    [`${arch}.vocab_size`]: { u32: shape.vocab_size },
    ...(arch === 'qwen35' && deltaMetadata(shape)),
    ...(arch === 'qwen35' && shape.ternary?.rotation && rotationMetadata(shape, tensors)),
    ...vocabulary(shape.vocab_size),
  }
}
