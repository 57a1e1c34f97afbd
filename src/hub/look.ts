/**
 * What a model is and whether it runs here, by its own header. Of one that is elsewhere only that is fetched: it goes into an
 * empty file as long as the real one, and then the importers judge it as they judge any model.
 */
import { copyFile, type FileHandle, mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { modelSize } from '../config/model-size.js'
import { modelWords } from '../config/model-words.js'
import { type ModelHeader, readModelHeader } from '../convert/foreign-model.js'
import { OnebitError } from '../errors.js'
import { fileError } from '../files/file-errors.js'
import { HeaderGoesOn, readGgufHeader } from '../import/gguf-reader.js'
import { readJson } from '../import/hf-text.js'
import type { Candidate, ListedFile } from './candidates.js'
import { copyRange, type RemoteFiles } from './remote-range.js'

/** A model that somebody has looked at. */
export interface Look<C extends Candidate = Candidate> {
  candidate: C
  /** in words, as `onebit info` says it; undefined: it does not run here */
  words?: string
  /** of its numbers, most of them first: q4_0, f32 */
  types: string[]
  /** why it does not run here */
  error?: OnebitError
}

/** Enough for most headers without a vocabulary; a vocabulary and its merges have some megabytes more. */
const FIRST_BYTES = 1 << 20
const MORE_BYTES = 4 << 20
/** The limit of the safetensors library itself. */
const MOST_JSON_BYTES = 100_000_000
/** Tensors that are read to know what a model computes: factors of RoPE. */
const READ_AT_ONCE = { name: 'rope_freqs.weight', mostBytes: 1 << 16 }

/** A model that is here. */
export async function lookAt<C extends Candidate>(candidate: C, path: string): Promise<Look<C>> {
  try {
    const header = await readModelHeader(path)
    const { config, provenance, fileBytes, blobs } = header
    const { bitsPerLinearWeight } = modelSize(config, blobs, fileBytes)
    return { candidate, words: modelWords(config, bitsPerLinearWeight, provenance.name), types: typesOf(header) }
  } catch (error) {
    if (!(error instanceof OnebitError)) throw error
    return { candidate, types: [], error }
  }
}

/** As the trade calls it: codes are what the blocks of one type of GGUF are read as, and what folders of BitNet have. */
function typeName(counted: string): string {
  const name = counted.replace(/^\d+ x /, '')
  return name === 'codes' ? 'i2_s' : name
}

function typesOf({ config, numberTypes }: ModelHeader): string[] {
  if (numberTypes !== undefined) return numberTypes.split(', ').map(typeName)
  const kinds = Object.values(config.linears).map((kind) => (kind.kind === 'dense' ? kind.dtype : kind.kind))
  return [...new Set<string>(kinds)]
}

/** The type that a model is called by: norms and biases are f32 in nearly all of them. */
export function mainType({ types }: Pick<Look, 'types'>): string | undefined {
  return types.find((type) => type !== 'f32') ?? types[0]
}

/** Whether the header says that a model is of a type, by whatever name of it: Q2_0 has two layouts, one also called PQ2_0. */
export function isOfType(look: Pick<Look, 'types'>, type: string): boolean {
  const [main, wanted] = [mainType(look), type.toLowerCase()]
  return main !== undefined && (main === wanted || (main === 'q2_0_g128' && ['q2_0', 'pq2_0'].includes(wanted)))
}

/** A model that is elsewhere. @throws OnebitError ERR_HUB_*, and those of writing files; the signal's reason */
export async function lookFromAfar<File extends ListedFile>(
  candidate: Candidate<File>,
  remote: RemoteFiles<File>,
): Promise<Look<Candidate<File>>> {
  const folder = await mkdtemp(join(tmpdir(), 'onebit-look-')).catch((cause) => {
    throw fileError(cause, tmpdir(), 'writing')
  })
  try {
    if (candidate.files.some(({ path }) => /\.bin$/i.test(path))) return await lookAtConfig(candidate, remote)
    for (const file of candidate.files) await writeStub(folder, file, remote)
    const path = candidate.kind === 'folder' ? folder : join(folder, basename(candidate.files[0]!.path))
    return named(await lookAt(candidate, path), folder)
  } finally {
    await rm(folder, { recursive: true, force: true }).catch(() => {})
  }
}

/** Of a PyTorch checkpoint: what its tensors are stands at its end, in a program, and is looked at when it is here. */
async function lookAtConfig<File extends ListedFile>(
  candidate: Candidate<File>,
  remote: RemoteFiles<File>,
): Promise<Look<Candidate<File>>> {
  const config = candidate.files.find(({ path }) => basename(path) === 'config.json')!
  const { readHfConfig } = await import('../import/hf.js')
  try {
    const json = await readJson(await remote.fetch(config))
    const { structure } = readHfConfig(json ?? {})
    return { candidate, words: `${structure.architecture}, a PyTorch checkpoint`, types: [] }
  } catch (error) {
    if (!(error instanceof OnebitError) || error.code.startsWith('ERR_HUB')) throw error
    return { candidate, types: [], error }
  }
}

/** What was wrong with a stub is told of the file that it stands for. */
function named<C extends Candidate>(look: Look<C>, folder: string): Look<C> {
  const { error, ...others } = look
  if (error === undefined) return look
  const message = error.message.replaceAll(join(folder, '/'), '').replaceAll(folder, look.candidate.name || 'it')
  return { ...others, error: new OnebitError(error.code, message, { hint: error.hint, cause: error }) }
}

async function writeStub<File extends ListedFile>(
  folder: string,
  file: File,
  remote: RemoteFiles<File>,
): Promise<void> {
  const path = join(folder, basename(file.path))
  const ending = /\.(gguf|safetensors|obt)$/i.exec(file.path)?.[1]?.toLowerCase()
  if (ending === undefined) return copyFile(await remote.fetch(file), path)
  const handle = await open(path, 'wx+')
  try {
    await handle.truncate(file.bytes)
    const stub: Stub<File> = { handle, path, file, remote, bytes: 0 }
    await (ending === 'gguf' ? fillGguf(stub) : fillJsonHeader(stub))
  } catch (cause) {
    throw fileError(cause, path, 'writing')
  } finally {
    await handle.close()
  }
}

interface Stub<File extends ListedFile> {
  handle: FileHandle
  path: string
  file: File
  remote: RemoteFiles<File>
  /** from the start of the file that are there */
  bytes: number
}

async function extend<File extends ListedFile>(stub: Stub<File>, to: number): Promise<void> {
  const end = Math.min(to, stub.file.bytes)
  await copyRange(stub.remote, stub.file, stub.handle, stub.bytes, end)
  stub.bytes = end
}

async function fillGguf<File extends ListedFile>(stub: Stub<File>): Promise<void> {
  const { handle, path, file } = stub
  await extend(stub, FIRST_BYTES)
  for (;;) {
    try {
      const { tensors } = readGgufHeader(path, handle.fd, file.bytes, stub.bytes)
      const wanted = tensors.find(({ name }) => name === READ_AT_ONCE.name)
      if (wanted === undefined || wanted.offset + READ_AT_ONCE.mostBytes <= stub.bytes) return
      const end = Math.min(wanted.offset + READ_AT_ONCE.mostBytes, file.bytes)
      return await copyRange(stub.remote, file, handle, wanted.offset, end)
    } catch (error) {
      if (error instanceof OnebitError) return // it will be found again, by whoever asks what it is
      if (!(error instanceof HeaderGoesOn)) throw error
      await extend(stub, Math.max(error.neededBytes, stub.bytes + MORE_BYTES))
    }
  }
}

/** Of safetensors and .obt: eight bytes with the length of a JSON text, and that text. */
async function fillJsonHeader<File extends ListedFile>(stub: Stub<File>): Promise<void> {
  await extend(stub, FIRST_BYTES)
  const { buffer, bytesRead } = await stub.handle.read(Buffer.alloc(8), 0, 8, 0)
  const length = bytesRead === 8 ? Number(buffer.readBigUInt64LE()) : 0
  if (8 + length > stub.bytes && length <= MOST_JSON_BYTES) await extend(stub, 8 + length)
}
