// A GGUF file of a known shape with random weights, for the peers. Written piece by piece: 7B in Q8_0 is 7 GB.
import { closeSync, fsyncSync, openSync, renameSync, rmSync, statfsSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { importTypeScript } from '../../scripts/import-typescript.mjs'
import { metadataOf, tensorsOf } from './gguf-models.mjs'
import { idOf, pieceOf, tailOf, tensorBytes } from './gguf-types.mjs'

const { ALIGNMENT, ggufHeader, SeededRandom } = await importTypeScript('test/gguf-writer.ts')

const total = (tensors) => tensors.reduce((sum, tensor) => sum + tensorBytes(tensor), 0)

/** What a file takes, without its header. `form` as in tensorsOf. */
export function weightBytes(form) {
  return total(tensorsOf(form))
}

/** Bytes that decoding one token reads: all matrices, of an embedding that is not the head too one row only. */
export function decodeBytes(form) {
  const tensors = tensorsOf(form)
  const hasHead = tensors.some(({ name }) => name === 'output.weight')
  return total(tensors.filter(({ name, shape }) => shape.length === 2 && !(hasHead && name === 'token_embd.weight')))
}

function requireSpace(path, bytes) {
  const { bavail, bsize } = statfsSync(dirname(path))
  // A tenth for the vocabulary and for whatever else needs the disk meanwhile.
  if (bavail * bsize > 1.1 * bytes) return
  const gigabytes = (count) => (count / 1e9).toFixed(1)
  throw new Error(`${path} needs ${gigabytes(bytes)} GB; the disk has ${gigabytes(bavail * bsize)} GB left`)
}

/** Rows of one kind and width share a piece. */
function writeTensors(file, tensors) {
  const random = new SeededRandom(1)
  const pieces = new Map()
  for (const tensor of tensors) {
    const key = `${tensor.kind} ${tensor.shape.at(-1)} ${tensor.value}`
    if (!pieces.has(key)) pieces.set(key, pieceOf(tensor, random))
    const [piece, tail, bytes] = [pieces.get(key), tailOf(tensor), tensorBytes(tensor)]
    for (let left = bytes - tail.length; left > 0; left -= piece.length) {
      writeSync(file, piece, 0, Math.min(left, piece.length))
    }
    writeSync(file, tail)
    writeSync(file, Buffer.alloc((ALIGNMENT - (bytes % ALIGNMENT)) % ALIGNMENT))
  }
}

/** Makes the file `path`. `form` as in tensorsOf. */
export function makeRandomGguf(path, form) {
  const tensors = tensorsOf(form)
  const entries = tensors.map((tensor) => ({
    name: tensor.name,
    typeId: idOf(tensor.kind),
    shape: tensor.shape,
    bytes: tensorBytes(tensor),
  }))
  requireSpace(path, total(tensors))
  const part = `${path}.part`
  const file = openSync(part, 'w')
  try {
    writeSync(file, ggufHeader(metadataOf(form, tensors), entries))
    writeTensors(file, tensors)
    // Otherwise the system would still be writing while the first measurement runs.
    fsyncSync(file)
  } catch (error) {
    rmSync(part)
    throw error
  } finally {
    closeSync(file)
  }
  renameSync(part, path)
}
