/** A GGUF model in several files, in the form in which llama.cpp's gguf-split writes them. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type GgufTensor, ggufFile, type MetadataValue } from './gguf-writer.js'

export function partName(name: string, part: number, count: number): string {
  const digits = (number: number) => String(number).padStart(5, '0')
  return `${name}-${digits(part)}-of-${digits(count)}.gguf`
}

/** The keys that say which part a file is; `part` counts from 1. */
export function splitKeys(part: number, count: number, tensors: number): Record<string, MetadataValue> {
  return {
    'split.no': { u32: part - 1 },
    'split.count': { u32: count },
    'split.tensors.count': { u32: tensors },
  }
}

/** Writes the parts into a folder; tensors are dealt out in runs, the metadata are the first part's alone. */
export function writeParts(
  folder: string,
  name: string,
  metadata: Record<string, MetadataValue>,
  tensors: readonly GgufTensor[],
  counts: readonly number[],
): string[] {
  let at = 0
  return counts.map((count, i) => {
    const path = join(folder, partName(name, i + 1, counts.length))
    const keys = splitKeys(i + 1, counts.length, tensors.length)
    writeFileSync(path, ggufFile(i === 0 ? { ...metadata, ...keys } : keys, tensors.slice(at, at + count)))
    at += count
    return path
  })
}
