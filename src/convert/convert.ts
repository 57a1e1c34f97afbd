/** `onebit convert`: a model in somebody else's format becomes a `.obt` file. */
import { realpath, stat } from 'node:fs/promises'
import { basename, resolve } from 'node:path'
import type { ModelConfig } from '../config/config.js'
import { modelSize } from '../config/model-size.js'
import { tensorBytes, tensorTable } from '../config/tensors.js'
import { badOption } from '../errors.js'
import { checkTarget } from '../files/atomic-file.js'
import { hashFile } from '../files/hash-file.js'
import { openSource } from '../import/open-source.js'
import type { SourceModel } from '../import/source.js'
import type { Provenance } from '../obt/obt-header.js'
import { writeObt } from '../obt/obt-writer.js'
import { booleanOption, choiceOption, numberOption, optionFields, signalOption, stringOption } from '../options.js'
import { packageVersion } from '../package-version.js'
import { Encoder, type SvidOptions } from './convert-encode.js'
import { type ConvertType, planConversion } from './convert-plan.js'
import { convertedText, type TextOptions } from './convert-text.js'
import { nameIn } from './foreign-model.js'

export type { ConvertType } from './convert-plan.js'

export interface ConvertOptions extends TextOptions {
  /** of the linear layers; absent: signs stay signs, models up to 50 MB stay f32, everything else becomes q8 */
  type?: ConvertType | undefined
  /** of the embedding and the head; absent: as `type` (onebit: q8) */
  embed?: 'f32' | 'f16' | 'q8' | undefined
  /** with type onebit: how |W| is factorised (default svd; nmf stops and shares the scale as the official scripts) */
  method?: 'svd' | 'nmf' | undefined
  /** with type onebit: |h| = sigma^split, |g| = sigma^(1 - split), 0 to 1 (default: svd 0.5, nmf as it falls out) */
  split?: number | undefined
  /**
   * With type onebit: put the paper's LayerNorm behind every linear (default false). A model that will not be trained
   * is closer to its teacher without it.
   */
  layernorm?: boolean | undefined
  /** the source is read once for its checksum, then converted: both count */
  onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined
  /** with type onebit, after each matrix */
  onLayer?: ((layer: LayerError) => void) | undefined
  signal?: AbortSignal | undefined
}

/** || |W| - h gT || / ||W|| of a matrix that became signs */
export interface LayerError {
  name: string
  relativeError: number
}

export interface ConvertReport {
  output: string
  format: SourceModel['format']
  config: ModelConfig
  fileBytes: number
  sourceBytes: number
  bitsPerLinearWeight: number
  /** embedding and head counted too */
  bitsPerWeightOfFile: number
  /** of every matrix that SVID made, in file order */
  errors: LayerError[]
  hasTokenizer: boolean
  hasChatTemplate: boolean
  /** what a user should know, one sentence each */
  warnings: string[]
}

type SourceFile = { name: string; bytes: number; sha256: string }

/** Adds up what is done over both passes. */
class Progress {
  #done = 0

  constructor(
    readonly total: number,
    readonly options: ConvertOptions,
  ) {}

  add(bytes: number): void {
    this.options.signal?.throwIfAborted()
    this.#done += bytes
    this.options.onProgress?.(this.#done, this.total)
  }
}

async function totalSize(paths: readonly string[]): Promise<number> {
  const sizes = await Promise.all(paths.map(async (path) => (await stat(path)).size))
  return sizes.reduce((sum, size) => sum + size, 0)
}

export const CONVERT_TYPES = ['f32', 'f16', 'bf16', 'q8', 'onebit'] as const
export const EMBED_TYPES = ['f32', 'f16', 'q8'] as const
export const SVID_METHODS = ['svd', 'nmf'] as const
const ONEBIT_ONLY = ['layernorm', 'method', 'split']
const OPTION_NAMES = ['type', 'embed', 'tokenizer', 'chatTemplate', ...ONEBIT_ONLY, 'onProgress', 'onLayer', 'signal']

/** @throws OnebitError ERR_BAD_OPTION */
export function checkConvertOptions(options: ConvertOptions): SvidOptions {
  const fields = optionFields('options', options, OPTION_NAMES)
  const type = choiceOption(fields, 'type', CONVERT_TYPES)
  choiceOption(fields, 'embed', EMBED_TYPES)
  stringOption(fields, 'tokenizer')
  stringOption(fields, 'chatTemplate')
  const unused = ONEBIT_ONLY.find((name) => fields[name] !== undefined)
  if (type !== 'onebit' && unused !== undefined) throw badOption(unused, 'is used only with type onebit')
  booleanOption(fields, 'layernorm')
  signalOption(fields)
  return {
    method: choiceOption(fields, 'method', SVID_METHODS) ?? 'svd',
    split: numberOption(fields, 'split', 0, 1),
  }
}

function provenanceOf(source: SourceModel, path: string, files: SourceFile[], options: ConvertOptions): Provenance {
  const { method, split } = checkConvertOptions(options)
  const how: Provenance =
    options.type === 'onebit'
      ? { method: 'svid', svid: method, ...(split !== undefined && { split }), trained: false }
      : { method: 'converted' }
  return {
    source: basename(resolve(path)),
    ...nameIn(source),
    format: source.format,
    files,
    ...how,
    converter: `onebit-run ${packageVersion()}`,
  }
}

async function samePath(a: string, b: string): Promise<boolean> {
  const [first, second] = await Promise.all([a, b].map((path) => realpath(path).catch(() => path)))
  return first === second
}

function warningsOf(planned: string[], options: ConvertOptions, ofText: string[]): string[] {
  const untrained = 'Signs without training give poor text; distillation is what makes them good.'
  return [...planned, ...(options.type === 'onebit' ? [untrained] : []), ...ofText]
}

async function checkPaths(path: string, output: string): Promise<void> {
  if (await samePath(path, output)) throw badOption('output', 'must not be the source itself')
  await checkTarget(output)
}

async function convertSource(
  source: SourceModel,
  path: string,
  output: string,
  options: ConvertOptions,
): Promise<ConvertReport> {
  const { config, notes } = planConversion(source, options)
  const { tokenizer, chatTemplate, warnings } = await convertedText(source.text, options, config.vocab_size)
  const blobs = { tokenizer: tokenizer?.length ?? 0, chat_template: chatTemplate?.length ?? 0 }
  const tensorSizes = tensorTable(config, blobs).reduce((sum, spec) => sum + tensorBytes(spec), 0)
  const sourceBytes = await totalSize(source.files)
  const progress = new Progress(sourceBytes + tensorSizes, options)
  const files: SourceFile[] = []
  // What was converted can be told from anything else of the same name.
  for (const file of source.files) {
    files.push({ name: basename(file), ...(await hashFile(file, (bytes) => progress.add(bytes))) })
  }
  const errors: LayerError[] = []
  const encoder = new Encoder(source, config, {
    svid: checkConvertOptions(options),
    signal: options.signal,
    onMatrix: (name, relativeError) => {
      errors.push({ name, relativeError })
      options.onLayer?.({ name, relativeError })
    },
  })
  const provenance = provenanceOf(source, path, files, options)
  const fileBytes = await writeObt(
    output,
    { config, tokenizer, chatTemplate, provenance },
    (spec) => encoder.produce(spec),
    { signal: options.signal, onProgress: (bytes) => progress.add(bytes) },
  )
  const { bitsPerLinearWeight, bitsPerWeightOfFile } = modelSize(config, blobs, fileBytes)
  return {
    output,
    format: source.format,
    config,
    fileBytes,
    sourceBytes,
    bitsPerLinearWeight,
    bitsPerWeightOfFile,
    errors,
    hasTokenizer: tokenizer !== undefined,
    hasChatTemplate: chatTemplate !== undefined,
    warnings: warningsOf(notes, options, warnings),
  }
}

/**
 * Converts a Hugging Face folder, an official OneBit checkpoint folder, a GGUF file or a llama2.c file. The output is
 * replaced only when everything went well.
 * @throws OnebitError what the importers and writeObt throw, ERR_BAD_OPTION; and the signal's reason
 */
export async function convert(path: string, output: string, options: ConvertOptions = {}): Promise<ConvertReport> {
  checkConvertOptions(options)
  options.signal?.throwIfAborted()
  const source = await openSource(path)
  try {
    await checkPaths(path, output)
    return await convertSource(source, path, output, options)
  } finally {
    await source.close()
  }
}
