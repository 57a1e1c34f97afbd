/** The tensors of a `.obt` file as bytes, by name. */
import { readFileSync } from 'node:fs'
import { readObtHeader } from '../dist/obt/obt.js'

export async function readTensors(path: string): Promise<Map<string, Buffer>> {
  const { tensors } = await readObtHeader(path)
  const bytes = readFileSync(path)
  return new Map(tensors.map(({ spec, offset, bytes: size }) => [spec.name, bytes.subarray(offset, offset + size)]))
}

export function floats(bytes: Buffer | undefined): Float32Array {
  if (bytes === undefined) throw new Error('no such tensor')
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length))
}
