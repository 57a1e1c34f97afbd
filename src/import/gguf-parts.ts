/**
 * A model in several GGUF files, as llama.cpp's gguf-split writes them: NAME-00001-of-00003.gguf and so on, of which the
 * first has all metadata. Any of them stands for the whole.
 */
import type { FileHandle } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { OnebitError } from '../errors.js'
import { openFile } from '../files/file-reading.js'
import { shown } from '../shown-value.js'
import { namesOfParts, parsePartName } from './gguf-part-name.js'
import { type GgufHeader, type GgufValue, readGgufHeader } from './gguf-reader.js'
import { badSource } from './source.js'

export interface GgufPart {
  path: string
  file: FileHandle
  header: GgufHeader
}

/** Real models have some dozens; each is an open file. */
const MAX_PARTS = 512

/** Writers differ in the width of their whole numbers. */
function plain(value: GgufValue | undefined): GgufValue | undefined {
  return typeof value === 'bigint' ? Number(value) : value
}

/** How many files a file says it is one of; 1: it is whole. */
export function partCount(path: string, metadata: ReadonlyMap<string, GgufValue>): number {
  const value = plain(metadata.get('split.count'))
  if (value === undefined) return 1
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= MAX_PARTS) return value || 1
  throw badSource(`${path}: split.count is ${shown(value)}; a whole number up to ${MAX_PARTS} makes sense`)
}

/** The paths of all parts, by the name of one. */
function partPaths(path: string, count: number): string[] {
  const name = parsePartName(basename(path))
  if (name?.count !== count) {
    throw badSource(
      `${path} is one of ${count} parts, and its name does not say where the others are`,
      `They are found by names such as NAME-00001-of-${String(count).padStart(5, '0')}.gguf, as they are downloaded.`,
    )
  }
  return namesOfParts(name).map((one) => join(dirname(path), one))
}

async function openPart(path: string): Promise<GgufPart> {
  const { file, bytes } = await openFile(path)
  try {
    return { path, file, header: readGgufHeader(path, file.fd, bytes) }
  } catch (cause) {
    await file.close()
    throw cause
  }
}

async function openOther(path: string, number: number, count: number): Promise<GgufPart> {
  try {
    return await openPart(path)
  } catch (cause) {
    if (!(cause instanceof OnebitError) || cause.code !== 'ERR_FILE_NOT_FOUND') throw cause
    const message = `The model has ${count} parts, and part ${number} is missing: ${path} does not exist`
    throw new OnebitError('ERR_FILE_NOT_FOUND', message, { hint: 'Get it into the same folder.', cause })
  }
}

/** That a file is the part its name says, of a model of that many. */
function checkPart({ path, header: { metadata } }: GgufPart, index: number, count: number): void {
  if (partCount(path, metadata) !== count) {
    throw badSource(`${path} is not one of ${count} parts, as others of its model are (split.count)`)
  }
  const found = plain(metadata.get('split.no'))
  if (found !== index) throw badSource(`${path} has split.no ${shown(found)}, by its name it should be ${index}`)
}

/** The first part knows how many tensors all of them have. */
function checkTensorCount([first, ...others]: readonly GgufPart[]): void {
  const said = plain(first!.header.metadata.get('split.tensors.count'))
  const found = [first!, ...others].reduce((sum, { header }) => sum + header.tensors.length, 0)
  if (said !== undefined && said !== found) {
    throw badSource(
      `${first!.path} says that its parts have ${shown(said)} tensors (split.tensors.count), they have ${found}`,
    )
  }
}

export async function closeParts(parts: readonly GgufPart[]): Promise<void> {
  for (const { file } of parts) await file.close()
}

/**
 * All files of a model, given any of them; the first is the one with the metadata.
 * @throws OnebitError ERR_BAD_SOURCE, ERR_FILE_NOT_FOUND, which names the missing part, and as readGgufHeader
 */
export async function openGgufParts(path: string): Promise<GgufPart[]> {
  const given = await openPart(path)
  const parts: GgufPart[] = []
  try {
    const count = partCount(path, given.header.metadata)
    if (count === 1) return [given]
    const paths = partPaths(path, count)
    const own = paths.findIndex((one) => basename(one) === basename(path))
    for (const [index, one] of paths.entries()) {
      const part = index === own ? given : await openOther(one, index + 1, count)
      parts.push(part)
      checkPart(part, index, count)
    }
    if (own < 0) throw badSource(`${path} is called part ${parsePartName(path)!.number} of ${count}`)
    checkTensorCount(parts)
    return parts
  } catch (cause) {
    await closeParts(parts.includes(given) ? parts : [given, ...parts])
    throw cause
  }
}

/** The metadata of a model, given any of its parts. */
export async function readGgufMetadata(path: string): Promise<ReadonlyMap<string, GgufValue>> {
  const given = await openPart(path)
  await given.file.close()
  const { metadata } = given.header
  const count = partCount(path, metadata)
  if (count === 1 || plain(metadata.get('split.no')) === 0) return metadata
  const first = await openOther(partPaths(path, count)[0]!, 1, count)
  await first.file.close()
  return first.header.metadata
}
