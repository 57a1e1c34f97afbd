/**
 * An architecture is one description: how the two formats in which models come, Hugging Face folders and GGUF files,
 * say what a model of this kind computes, and what they call its tensors. The importers open files and walk; whatever
 * differs from one kind of model to the next is here. A new architecture is a file in this folder and a line in list.ts.
 */
import type { ModelStructure } from '../config/config.js'
import type { ModelPart, Role } from '../config/tensors.js'
import type { GgufKeys } from '../import/gguf-keys.js'
import type { HfFields } from '../import/hf-fields.js'

type LayerPart =
  | Role
  | 'attention_norm'
  | 'q_norm'
  | 'k_norm'
  | 'attention_inner_norm'
  | 'ffn_norm'
  | 'ffn_inner_norm'
  | 'conv'
  | 'decay'
  | 'time_bias'
  | 'delta_norm'
type PartName = 'tok_embeddings' | 'position_embeddings' | 'norm' | 'output' | `layers.*.${LayerPart}`

/**
 * Their name of each part of a model that the architecture can have, `*` standing for the layer. The tensors of it are
 * called so with `.weight` or `.bias` behind, in both formats; but decay and time_bias just so, with nothing behind.
 */
export type TensorNames = Readonly<Partial<Record<PartName, string>>>

/** Whether a linear has a bias: a tensor that must be there, may be there, or must not. */
export type BiasRules = Readonly<Record<Role, 'required' | 'optional' | 'none'>>

/**
 * Linears that lie in one tensor under one name, in this order. by head: all rows of the first head of each, then of the
 * second, and on; by matrix: one whole matrix after the other.
 */
export interface FusedLinears {
  roles: readonly Role[]
  by: 'head' | 'matrix'
}

/** What each number of a part becomes, where a source does not have the numbers that are computed with. */
export type Adjust = (part: Pick<ModelPart, 'name' | 'part'>) => ((value: number) => number) | undefined

/** What a source's own description of its model says. */
export interface Reading {
  structure: ModelStructure
  biases: BiasRules
  /** the names of its tensors, where they are not the architecture's usual ones */
  names?: TensorNames
}

/** What a GGUF file says by its tensors and not by its metadata. */
export interface GgufFacts {
  /** rows of the embedding */
  vocab_size: number
  /** it has no head of its own */
  tied_head: boolean
  /** rope_freqs.weight, if it is there */
  rope_factors: number[] | undefined
  /** layers that there are tensors of, up to the first that is there to predict several tokens ahead */
  plain_layers: number
}

export interface HuggingFaceDescription {
  /** config.json's model_type */
  modelTypes: readonly string[]
  /** config.json's architectures, of models whose model_type is that of another: this says more */
  classes?: readonly string[]
  names: TensorNames
  /** what names begin with, except in checkpoints of the bare base model */
  basePrefix: string
  /** what they begin with in place of basePrefix where the text model is a part of a larger one */
  nestedPrefix?: string
  fused?: FusedLinears
  /** tensors that hold nothing of the model */
  isIgnored(name: string): boolean
  adjust?: Adjust
  /** model types whose linears are signs, with the names of the two vectors beside each weight */
  signs?: { modelTypes: readonly string[]; g: string; h: string }
  /** @throws OnebitError ERR_UNSUPPORTED_ARCHITECTURE, ERR_UNSUPPORTED_ROPE, ERR_BAD_SOURCE, naming the key */
  read(config: HfFields): Reading
}

export interface GgufDescription {
  /** general.architecture */
  architectures: readonly string[]
  names: TensorNames
  fused?: FusedLinears
  /** tensors that hold nothing of the model that has this structure */
  isIgnored?(name: string, structure: ModelStructure): boolean
  /** Keys that it does not ask for are an error. @throws as above */
  read(keys: GgufKeys, facts: GgufFacts): Reading
}

export interface Architecture {
  /** as a file's config has it; nothing is computed by it */
  name: string
  /** for people */
  title: string
  huggingFace: HuggingFaceDescription
  /** absent: there are no such files, or they have another architecture's name */
  gguf?: GgufDescription
}

/** Their name of a part, without `.weight` or `.bias`. */
export function theirName(names: TensorNames, { name }: Pick<ModelPart, 'name'>): string {
  const [, layer, rest] = /^layers\.(\d+)\.(.*)$/.exec(name) ?? [undefined, '', name]
  const key = `${layer === '' ? '' : 'layers.*.'}${rest!.replace(/\.bias$/, '')}` as PartName
  const found = names[key]
  if (found === undefined) throw new Error(`the description of this architecture has no name for ${key}`)
  return found.replace('*', layer!)
}
