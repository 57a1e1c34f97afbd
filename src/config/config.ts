/**
 * What a model is: its sizes, the features of its computation by name, and how its matrices are stored. Everything
 * that reads, writes or computes a model goes by this, and by nothing else; fields.ts has the range and the default of
 * each field, tensors.ts the tensors that it implies.
 */
import type { LinearKind } from './kinds.js'
import type { RopeScaling } from './rope.js'

/** The features of a computation. In a file one that has its default is left out. */
export interface Features {
  /** of every norm of the model: before attention, before the feed-forward, at the end, and the inner ones */
  norm: 'rms' | 'layer'
  /** those norms have a bias */
  norm_bias: boolean
  /** rotary: queries and keys are rotated; learned: a row of a table is added to the embedding */
  positions: 'rotary' | 'learned'
  /** with learned positions: the table's row of position 0 */
  position_offset: number
  /** with rotary positions: how many of the first elements of a head are rotated */
  rope_dims: number
  /** RMSNorm of every head of q and k before the rotation */
  qk_norm: boolean
  /** norm of the mixed heads (n_heads x head_dim) before wo */
  attention_inner_norm: boolean
  /** a position sees itself and the window - 1 before it; 0: all before it */
  window: number
  /**
   * wq has 2 x n_heads x head_dim rows, per head first the query's and then the gate's; the mixed heads are
   * multiplied by sigmoid(gate) before wo
   */
  output_gate: boolean
  /** gated: w2 (act(w1 x) * w3 x); plain: w2 act(w1 x), and there is no w3 */
  feed_forward: 'gated' | 'plain'
  /** relu2 is the square of relu; gelu is exact, gelu_tanh its usual approximation */
  activation: 'silu' | 'relu' | 'relu2' | 'gelu' | 'gelu_tanh'
  /** norm of the feed-forward's inner vector (hidden_dim) before w2 */
  ffn_inner_norm: boolean
  /** attention and feed-forward both read x, and both are added to it; otherwise the feed-forward reads x with attention in it */
  parallel_residual: boolean
  /**
   * Layers, ascending, that mix tokens by a gated delta rule in place of attention: value heads whose states, matrices of
   * delta_k_dim x delta_v_dim, every token decays, corrects and reads (Gated DeltaNet, arXiv 2412.06464). Without such
   * layers the numbers below are 0.
   */
  delta_layers: readonly number[]
  /** heads of the delta rule's keys and queries */
  delta_k_heads: number
  /** its heads of values, each with a state of its own: a multiple of delta_k_heads */
  delta_v_heads: number
  /** numbers of a key or query head: rows of a state */
  delta_k_dim: number
  /** numbers of a value head: columns of a state */
  delta_v_dim: number
  /** tokens that the convolution in front of the rule sees, the newest among them */
  delta_conv: number
  /** which key head value head h reads: grouped, h div (v_heads / k_heads); tiled, h mod k_heads */
  delta_head_order: 'grouped' | 'tiled'
}

/** A model without how its matrices are stored: what an importer finds out. */
export interface ModelStructure extends Features {
  /** where the model comes from, such as llama; nothing is computed by it */
  architecture: string
  /** tokens that there are logits for: rows of the embedding and of the head */
  vocab_size: number
  /** width of the residual stream */
  dim: number
  /** feed-forward width */
  hidden_dim: number
  /** layers, each an attention (or a delta rule) and a feed-forward */
  n_layers: number
  /** heads of queries */
  n_heads: number
  /** heads of keys and values, each for n_heads / n_kv_heads heads of queries */
  n_kv_heads: number
  /** numbers of a head */
  head_dim: number
  /** positions that the model was made for: no session has more */
  context_length: number
  /** added under the root of every norm */
  norm_eps: number
  /** base of the rotation's frequencies: pair i turns by position x rope_theta^(-2 i / rope_dims) */
  rope_theta: number
  /** half: pairs (i, i + rope_dims/2), as Hugging Face stores; interleaved: pairs (2i, 2i+1), as llama2.c and GGUF llama */
  rope_style: 'half' | 'interleaved'
  /** how the frequencies are stretched for longer contexts */
  rope_scaling: RopeScaling
  /** the embedding is the head too, and stands in the file once */
  tied_head: boolean
}

/** What a model is: sizes, features of its computation, and how its matrices are stored. Always complete. */
export interface ModelConfig extends ModelStructure {
  /** a row for each token */
  embedding: LinearKind
  /** from the last norm's output to logits; equal to `embedding` when tied */
  head: LinearKind
  /** kinds of the linears of every layer; a key "3.wq" overrides "wq" in layer 3 */
  linears: Record<string, LinearKind>
}

/** A config as a file has it, in this order of keys: features with their defaults are left out. */
export type WrittenConfig = Omit<ModelConfig, keyof Features> & Partial<Features>
