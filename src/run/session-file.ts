/**
 * Sessions in files: their tokens, and the bytes of the KV cache as they lie in memory. Such a file is a safetensors
 * file: tensors `kv.0`, `kv.1`, … (U8, one for each chunk of 256 positions) and `tokens` (I32), a CRC-32C of each and of
 * the header. `__metadata__` says which model, activations and kind of cache it belongs to, the session's context, and
 * how many positions are in the cache: the tokens after those are still to be computed; `extra`, if it is there, is text of
 * whoever saved it.
 *
 * A model whose layers have states makes files of version 2, with tensors `state.0`, `state.1`, … (U8) behind the chunks:
 * the states at the positions that `states` lists, of which the last is that of the cache and the others are where the
 * session can go back to.
 *
 * Chunks go one by one: no more than one of them is ever in JavaScript's memory.
 */
import type { FileHandle } from 'node:fs/promises'
import { LIMITS } from '../config/limits.js'
import { OnebitError } from '../errors.js'
import { writeAtomically, writeFully } from '../files/atomic-file.js'
import { fileError } from '../files/file-errors.js'
import { openFile } from '../files/file-reading.js'
import { withPath } from '../obt/obt.js'
import {
  type HeaderTensor,
  parseHeaderJson,
  type RefuseHeader,
  readHeaderText,
  sealedHeader,
  unsealedHeader,
} from '../obt/sealed-header.js'
import { readTensor, type StoredTensor, TensorStream } from '../obt/tensor-bytes.js'
import { CHUNK_POSITIONS, KV_TYPES, type KvType } from './kv.js'
import { ACTIVATIONS, type Activations } from './model-options.js'
import type { Timeline } from './timeline.js'

const FORMAT = 'onebit-session'
const VERSION = '1'
const VERSION_WITH_STATES = '2'
/** Beside that of the cache: as far back as one goes after a conversation was put away. */
const SAVED_CHECKPOINTS = 4
/** 2^22 positions have 16,384 chunks. */
const MAX_HEADER_BYTES = 4 << 20
const MAX_DEPTH = 3
/** Of `extra`, in characters: escaped twice it still fits into the header. */
export const MOST_EXTRA = 1 << 19

/** What a file must belong to. */
export interface SessionOrigin {
  /** the model's identity: 64 hexadecimal digits */
  model: string
  activations: Activations
  kv: KvType
}

/** What a header says beside the checksums. */
interface SavedSession extends SessionOrigin {
  context: number
  /** in the cache */
  positions: number
  /** on the timeline, at least as many */
  tokens: number
  /** of one chunk of the cache; of none when there is none */
  chunkBytes: number
  /** positions at which there are states, ascending, and the bytes of one; none without positions */
  states: number[]
  stateBytes: number
  extra: string | undefined
}

function place({ positions, tokens, chunkBytes, states, stateBytes }: SavedSession): HeaderTensor[] {
  const chunks = Math.ceil(positions / CHUNK_POSITIONS)
  const placed: HeaderTensor[] = Array.from({ length: chunks }, (_, i) => {
    return { name: `kv.${i}`, dtype: 'U8', shape: [chunkBytes], from: i * chunkBytes, to: (i + 1) * chunkBytes }
  })
  let from = chunks * chunkBytes
  for (const i of states.keys()) {
    placed.push({ name: `state.${i}`, dtype: 'U8', shape: [stateBytes], from, to: from + stateBytes })
    from += stateBytes
  }
  placed.push({ name: 'tokens', dtype: 'I32', shape: [tokens], from, to: from + 4 * tokens })
  return placed
}

function headerBytes(saved: SavedSession, tensors: readonly HeaderTensor[], crcs: readonly number[]): Buffer {
  const { model, activations, kv } = saved
  const [context, positions] = [String(saved.context), String(saved.positions)]
  const extra = saved.extra === undefined ? {} : { extra: saved.extra }
  const states = saved.states.length > 0 ? { states: saved.states.join(',') } : {}
  const version = saved.states.length > 0 ? VERSION_WITH_STATES : VERSION
  const metadata = { format: FORMAT, version, model, activations, kv, context, positions, ...states, ...extra }
  return sealedHeader(unsealedHeader(metadata, tensors, crcs))
}

/**
 * Writes a session; the target is replaced only when everything was written and synced.
 * @throws OnebitError of writeAtomically, ERR_DISPOSED; the signal's reason
 */
export async function saveTimeline(
  path: string,
  timeline: Timeline,
  origin: SessionOrigin,
  { extra, signal }: { extra: string | undefined; signal: AbortSignal | undefined },
): Promise<void> {
  const { capacity: context, computed: positions, length: tokens } = timeline
  const { chunkBytes, stateBytes } = timeline
  const states = timeline.holdStates(SAVED_CHECKPOINTS)
  const saved = { ...origin, context, positions, tokens, chunkBytes, states, stateBytes, extra }
  const tensors = place(saved)
  const chunks = tensors.length - states.length - 1
  const bytesOf = async (i: number) => {
    if (i < chunks) return timeline.readChunk(i)
    return i < chunks + states.length ? timeline.readState(i - chunks) : new Uint8Array(timeline.slice().slice().buffer)
  }
  await writeAtomically(path, async (file) => {
    const zeros = tensors.map(() => 0)
    const stream = new TensorStream(file, headerBytes(saved, tensors, zeros).length, { signal })
    const crcs: number[] = []
    for (const [i, { name, from, to }] of tensors.entries()) {
      signal?.throwIfAborted()
      crcs.push(await stream.write(name, to - from, [await bytesOf(i)]))
    }
    signal?.throwIfAborted()
    await writeFully(file, headerBytes(saved, tensors, crcs), 0)
  })
}

// ---- reading ----------------------------------------------------------------------------------------

function damaged(problem: string): never {
  throw new OnebitError('ERR_SESSION_FILE', `The saved session is damaged: ${problem}`, {
    hint: 'Copy the file again, or save the session again.',
  })
}

function noSession(): never {
  throw new OnebitError('ERR_SESSION_FILE', 'This is not a saved session', {
    hint: 'Sessions are saved by `session.save(path)`.',
  })
}

const refuse: RefuseHeader = (wrong, problem) => {
  if (wrong === 'truncated') throw new OnebitError('ERR_TRUNCATED', problem, { hint: 'Copy the file again.' })
  return noSession()
}

type Fields = Record<string, unknown>

function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function count(value: unknown, what: string, most: number): number {
  const written = typeof value === 'string' && /^(0|[1-9]\d{0,15})$/.test(value) ? Number(value) : value
  if (typeof written === 'number' && Number.isInteger(written) && written >= 0 && written <= most) return written
  return damaged(`${what} is no number from 0 to ${most}`)
}

function oneOf<T extends string>(value: unknown, what: string, choices: readonly T[]): T {
  return choices.find((choice) => choice === value) ?? damaged(`${what} is none of ${choices.join(', ')}`)
}

/** How many elements the list `name` has, by its entry. */
function elements(root: Fields, name: string): unknown {
  const entry = Object.hasOwn(root, name) ? root[name] : undefined
  const shape = isObject(entry) ? entry.shape : undefined
  return Array.isArray(shape) ? shape[0] : undefined
}

function parseMetadata(root: Fields, metadata: Fields): SavedSession {
  const { model } = metadata
  if (typeof model !== 'string' || !/^[0-9a-f]{64}$/.test(model)) damaged('it does not say of which model it is')
  const positions = count(metadata.positions, 'positions', LIMITS.context)
  const tokens = count(elements(root, 'tokens'), 'the number of tokens', LIMITS.context)
  if (positions > tokens) damaged(`${positions} positions of ${tokens} tokens are computed`)
  // Such that no offset is beyond what a number can hold.
  const chunkBytes = positions > 0 ? count(elements(root, 'kv.0'), 'the size of kv.0', 2 ** 36) : 0
  return {
    model,
    activations: oneOf(metadata.activations, 'activations', ACTIVATIONS),
    kv: oneOf(metadata.kv, 'kv', KV_TYPES),
    context: count(metadata.context, 'context', LIMITS.context),
    positions,
    tokens,
    chunkBytes,
    ...parseStates(root, metadata, positions),
    extra: parseExtra(metadata),
  }
}

function parseStates(root: Fields, metadata: Fields, positions: number): Pick<SavedSession, 'states' | 'stateBytes'> {
  if (metadata.version === VERSION) return { states: [], stateBytes: 0 }
  const listed = typeof metadata.states === 'string' ? metadata.states.split(',', SAVED_CHECKPOINTS + 2) : []
  const states = listed.map((text) => count(text, 'the position of a state', positions))
  const isAscending = states.every((position, i) => position > (states[i - 1] ?? 0))
  if (!isAscending || states.length > SAVED_CHECKPOINTS + 1 || states.at(-1) !== positions) {
    damaged('the positions of its states are in no order, or not that of the cache')
  }
  return { states, stateBytes: count(elements(root, 'state.0'), 'the size of state.0', 2 ** 40) }
}

function parseExtra({ extra }: Fields): string | undefined {
  if (extra === undefined || (typeof extra === 'string' && extra.length <= MOST_EXTRA)) return extra
  return damaged('its extra text is none, or too long')
}

/** The checksums as the file has them; how many there must be is known. */
function parseChecksums(metadata: Fields, tensors: number): number[] {
  const text = typeof metadata.crc32c === 'string' ? metadata.crc32c : ''
  const sums = parseHeaderJson(Buffer.from(text), '__metadata__.crc32c', 1, damaged)
  const digits = isObject(sums) && typeof sums.tensors === 'string' ? sums.tensors : ''
  if (digits.length !== 8 * tensors || !/^[0-9a-f]*$/.test(digits)) damaged('it has not one checksum for each tensor')
  return (digits.match(/.{8}/g) ?? []).map((hex) => Number.parseInt(hex, 16))
}

interface Found {
  saved: SavedSession
  tensors: StoredTensor[]
}

function parseHeader(text: Buffer, fileBytes: number): Found {
  const root = parseHeaderJson(text, 'The header', MAX_DEPTH, damaged)
  const metadata = isObject(root) ? root.__metadata__ : undefined
  if (!isObject(root) || !isObject(metadata) || metadata.format !== FORMAT) return noSession()
  if (metadata.version !== VERSION && metadata.version !== VERSION_WITH_STATES) {
    const found = typeof metadata.version === 'string' ? metadata.version.slice(0, 20) : 'none'
    const problem = `The saved session has format version ${found}; this program reads versions ${VERSION} and ${VERSION_WITH_STATES}`
    throw new OnebitError('ERR_VERSION', problem, { hint: 'Use a newer onebit-run.' })
  }
  const saved = parseMetadata(root, metadata)
  const placed = place(saved)
  const crcs = parseChecksums(metadata, placed.length)
  // The header's own checksum is in it, so this finds any change at all.
  const expected = headerBytes(saved, placed, crcs).subarray(8)
  if (!expected.equals(text)) damaged('its header differs from its only legal form')
  const start = 8 + text.length
  const bytes = start + placed.at(-1)!.to
  if (fileBytes !== bytes) {
    const code = fileBytes < bytes ? 'ERR_TRUNCATED' : 'ERR_FILE_SIZE'
    const hint = 'Copy the file again, or save the session again.'
    throw new OnebitError(code, `The file has ${fileBytes} bytes, its header describes ${bytes}`, { hint })
  }
  const tensors = placed.map(({ name, from, to }, i) => {
    return { name, offset: start + from, bytes: to - from, crc32c: crcs[i]! }
  })
  return { saved, tensors }
}

function checkOrigin(saved: SavedSession, origin: SessionOrigin): void {
  const other = (problem: string, hint: string): never => {
    throw new OnebitError('ERR_SESSION_MODEL', `The session was saved ${problem}`, { hint })
  }
  if (saved.model !== origin.model) {
    other('with another model', `Load the model whose \`info.identity\` begins with ${saved.model.slice(0, 12)}.`)
  }
  if (saved.activations !== origin.activations) {
    const hint = `Load the model with the option activations: '${saved.activations}'.`
    other(`with activations ${saved.activations}, the model computes with ${origin.activations}`, hint)
  }
  if (saved.kv !== origin.kv) {
    other(`with a cache of ${saved.kv}, ${origin.kv} is wanted`, `Give the option kv: '${saved.kv}'.`)
  }
}

async function readTokens(file: FileHandle, tensor: StoredTensor, vocabSize: number, signal?: AbortSignal) {
  const ids = new Int32Array((await readTensor(file, tensor, signal)).buffer)
  const bad = ids.findIndex((id) => id < 0 || id >= vocabSize)
  if (bad < 0) return ids
  const problem = `Token ${bad} of the saved session is ${ids[bad]}; the model knows ids 0 to ${vocabSize - 1}`
  throw new OnebitError('ERR_TOKEN_RANGE', problem)
}

export interface RestoreRequest {
  origin: SessionOrigin
  vocabSize: number
  /** positions of the model */
  mostContext: number
  /** an empty one of a session with so many positions, unless others are asked for */
  create: (context: number) => Timeline
  signal: AbortSignal | undefined
}

/**
 * Reads a session into a timeline that `create` makes. Nothing is allocated from what the file says before its size and
 * header were found right, and it belongs to the model.
 * @throws OnebitError ERR_SESSION_FILE, ERR_SESSION_MODEL, ERR_VERSION, ERR_CHECKSUM, ERR_TRUNCATED, ERR_FILE_SIZE,
 *   ERR_TOKEN_RANGE, ERR_CONTEXT_FULL, those of opening a file, and of `create`; the signal's reason
 */
export async function restoreTimeline(
  path: string,
  request: RestoreRequest,
): Promise<{ timeline: Timeline; extra: string | undefined }> {
  const { file, bytes } = await openFile(path)
  try {
    const { saved, tensors } = parseHeader(await readHeaderText(file, bytes, MAX_HEADER_BYTES, refuse), bytes)
    checkOrigin(saved, request.origin)
    if (saved.context < saved.tokens || saved.context > request.mostContext) damaged(`its context is ${saved.context}`)
    const ids = await readTokens(file, tensors.at(-1)!, request.vocabSize, request.signal)
    const timeline = await fill(request.create(saved.context), file, { saved, tensors }, ids, request.signal)
    return { timeline, extra: saved.extra }
  } catch (cause) {
    throw withPath(fileError(cause, path, 'reading'), path)
  } finally {
    await file.close()
  }
}

async function fill(timeline: Timeline, file: FileHandle, found: Found, ids: Int32Array, signal?: AbortSignal) {
  const { saved, tensors } = found
  try {
    if (ids.length > timeline.capacity) {
      const problem = `The saved session has ${ids.length} tokens, the context is ${timeline.capacity}`
      throw new OnebitError('ERR_CONTEXT_FULL', problem, { hint: 'Restore it with a larger `context`.' })
    }
    if (saved.positions > 0 && saved.chunkBytes !== timeline.chunkBytes) damaged('its chunks have another size')
    const wanted = saved.positions > 0 ? timeline.stateBytes : 0
    if (saved.stateBytes !== wanted) damaged('its states have another size')
    const chunks = tensors.length - saved.states.length - 1
    for (const [i, tensor] of tensors.slice(0, -1).entries()) {
      const bytes = await readTensor(file, tensor, signal)
      if (i < chunks) await timeline.writeChunk(i, bytes)
      else await timeline.writeState(saved.states[i - chunks]!, bytes)
    }
    signal?.throwIfAborted()
    timeline.restored(saved.positions, ids)
    return timeline
  } catch (cause) {
    timeline.dispose()
    throw cause
  }
}
