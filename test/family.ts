/** The golden models of the Llama family that transformers ran: folders, ids, and the logits after each id. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { convert } from '../dist/convert/convert.js'
import { Model } from '../dist/index.js'
import { dataFile } from './data.js'

export const FAMILY = 'golden/family'

interface Run {
  ids: number[]
  /** (ids, vocabulary), row-major */
  logits: Float32Array
}

/** A float32 array of numpy's, in C order. */
function readNpy(path: string): Float32Array {
  const bytes = readFileSync(path)
  const header = bytes.toString('latin1', 10, 10 + bytes.readUInt16LE(8))
  if (!header.includes("'descr': '<f4'") || !header.includes("'fortran_order': False")) throw new Error(header)
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset + 10 + header.length, bytes.byteOffset + bytes.length))
}

export function familyRuns(name: string): Run[] {
  return goldenRuns(join(FAMILY, name))
}

/** Of a folder of the data that has ids.json, logits-a.npy and logits-b.npy, or others instead of `logits`. */
export function goldenRuns(path: string, logits = 'logits'): Run[] {
  const folder = dataFile(path)
  const ids = JSON.parse(readFileSync(join(folder, 'ids.json'), 'utf8')) as Record<'a' | 'b', number[]>
  return (['a', 'b'] as const).map((run) => ({ ids: ids[run], logits: readNpy(join(folder, `${logits}-${run}.npy`)) }))
}

/** Converts a source without rounding a number and loads it with float activations and an f32 cache. */
export async function loadExactly(source: string, target: string): Promise<Model> {
  await convert(source, target, { type: 'f32', embed: 'f32' })
  return Model.load(target, { activations: 'f32', kv: 'f32' })
}

/** As the README of golden/family says: at most 1e-3 anywhere, and 1e-4 in the root of the mean square. */
const TOLERANCE = { max: 1e-3, rms: 1e-4 }

export function expectClose(found: Float32Array, expected: Float32Array, { max, rms } = TOLERANCE): void {
  expect(found.length).toBe(expected.length)
  let [largest, squares] = [0, 0]
  found.forEach((value, i) => {
    const gap = Math.abs(value - expected[i]!)
    largest = Math.max(largest, gap)
    squares += gap * gap
  })
  expect(Math.sqrt(squares / found.length)).toBeLessThan(rms)
  expect(largest).toBeLessThan(max)
}

type Way = (model: Model, ids: number[]) => Promise<Float32Array>

async function inPieces(model: Model, ids: number[], size: number): Promise<Float32Array> {
  const session = model.createSession()
  const rows: number[] = []
  for (let from = 0; from < ids.length; from += size) {
    const { data } = await session.logits(ids.slice(from, from + size), { all: true })
    rows.push(...data)
  }
  return Float32Array.from(rows)
}

/** Ways to the same logits after each id, by what one calls them. */
export const WAYS: Record<string, Way> = {
  'at once': async (model, ids) => (await model.createSession().logits(ids, { all: true })).data,
  'token by token': (model, ids) => inPieces(model, ids, 1),
  ...Object.fromEntries(
    [1, 7, 64].map((chunk): [string, Way] => [
      `in chunks of ${chunk}`,
      async (model, ids) => (await model.createSession().logits(ids, { all: true, chunk })).data,
    ]),
  ),
  'in calls of 7': (model, ids) => inPieces(model, ids, 7),
  'rewound after other ids': async (model, ids) => {
    const session = model.createSession()
    const half = ids.length >> 1
    const { data: first } = await session.logits(ids.slice(0, half), { all: true })
    await session.logits(ids.toReversed())
    session.rewind(half)
    const { data: second } = await session.logits(ids.slice(half), { all: true })
    return Float32Array.from([...first, ...second])
  },
  'forked in the middle, its origin going on otherwise': async (model, ids) => {
    const session = model.createSession()
    const half = ids.length >> 1
    const { data: first } = await session.logits(ids.slice(0, half), { all: true })
    const fork = await session.fork()
    await session.logits(ids.toReversed())
    const { data: second } = await fork.logits(ids.slice(half), { all: true })
    return Float32Array.from([...first, ...second])
  },
}
