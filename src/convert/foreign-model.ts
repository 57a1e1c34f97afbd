/** What a model of another format would be as a `.obt` file, without making one. */
import { stat } from 'node:fs/promises'
import { basename, resolve } from 'node:path'
import type { ModelConfig } from '../config/config.js'
import { type Blobs, tensorBytes, tensorTable } from '../config/tensors.js'
import { isForeignModel } from '../import/foreign-model.js'
import { openSource } from '../import/open-source.js'
import type { SourceModel } from '../import/source.js'
import { type ObtTensor, type Provenance, readObtHeader } from '../obt/obt.js'
import { packageVersion } from '../package-version.js'
import { planConversion } from './convert-plan.js'
import { convertedText } from './convert-text.js'

export interface ForeignModel {
  config: ModelConfig
  files: readonly { path: string; bytes: number }[]
  /** of all files */
  fileBytes: number
  /** as a `.obt` file would have them: about what they take in memory */
  weightBytes: number
  /** how its numbers are stored in those files: such as "210 x q4_1, 61 x f32" */
  numberTypes: string
  provenance: Provenance
  /** what a user should know, one sentence each */
  notes: string[]
}

/** Tensors by the type of their numbers, the most frequent first. */
function numberTypes({ tensors }: SourceModel): string {
  const counts = new Map<string, number>()
  for (const { type } of tensors.values()) counts.set(type, (counts.get(type) ?? 0) + 1)
  const sorted = [...counts].sort((a, b) => b[1] - a[1])
  return sorted.map(([type, count]) => `${count} x ${type}`).join(', ')
}

/** What a source calls its model, for the provenance. */
export function nameIn({ name }: SourceModel): { name?: string } {
  return name === undefined ? {} : { name }
}

/** @throws OnebitError those of planConversion */
export async function describeForeign(path: string, source: SourceModel): Promise<ForeignModel> {
  const { config, notes } = planConversion(source, {})
  const files = await Promise.all(source.files.map(async (file) => ({ path: file, bytes: (await stat(file)).size })))
  return {
    config,
    notes,
    files,
    fileBytes: files.reduce((sum, { bytes }) => sum + bytes, 0),
    weightBytes: tensorTable(config, { tokenizer: 0, chat_template: 0 }).reduce(
      (sum, one) => sum + tensorBytes(one),
      0,
    ),
    numberTypes: numberTypes(source),
    provenance: {
      source: basename(resolve(path)),
      ...nameIn(source),
      format: source.format,
      files: files.map((file) => ({ name: basename(file.path), bytes: file.bytes })),
      method: 'direct',
      converter: `onebit-run ${packageVersion()}`,
    },
  }
}

/** What can be said of a model without loading it. */
export interface ModelHeader {
  path: string
  config: ModelConfig
  provenance: Provenance
  fileBytes: number
  blobs: Blobs
  /** of a `.obt` file */
  tensors?: readonly ObtTensor[]
  /** of any other: how its numbers are stored */
  numberTypes?: string
  notes: string[]
}

/**
 * Of whatever Model.load takes.
 * @throws OnebitError as readObtHeader and openSource
 */
export async function readModelHeader(path: string): Promise<ModelHeader> {
  if (!(await isForeignModel(path))) return { ...(await readObtHeader(path)), notes: [] }
  const source = await openSource(path)
  try {
    const { config, provenance, fileBytes, notes, numberTypes } = await describeForeign(path, source)
    const { tokenizer, chatTemplate, warnings } = await convertedText(source.text, {}, config.vocab_size)
    const blobs = { tokenizer: tokenizer?.length ?? 0, chat_template: chatTemplate?.length ?? 0 }
    return { path, config, provenance, fileBytes, blobs, numberTypes, notes: [...notes, ...warnings] }
  } finally {
    await source.close()
  }
}
