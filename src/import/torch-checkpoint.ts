/** PyTorch checkpoints (`torch.save` since 1.6): a zip with a pickle of names and one stored entry per storage. */
import type { FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { OnebitError } from '../errors.js'
import { openFile, readExactly } from '../files/file-reading.js'
import { type PickledTensor, readStateDict } from './pickle.js'
import { RAW_TYPE_BYTES, type RawTensor, type RawTensors } from './raw-tensors.js'
import { badSource } from './source.js'
import { entryStart, readEntry, readZipDirectory, type ZipEntry } from './zip.js'

/** Names and shapes of a 70B model take less than a tenth. */
const MAX_PICKLE_BYTES = 64 << 20

/** Rows one after the other without gaps: then a tensor's bytes are a slice of its storage. */
function isContiguous({ shape, strides }: PickledTensor): boolean {
  if (shape.length !== strides.length) return false
  let expected = 1
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== expected) return false
    expected *= shape[i]!
  }
  return true
}

class TorchFile {
  readonly #starts = new Map<string, number>()

  constructor(
    readonly path: string,
    readonly file: FileHandle,
    readonly fileBytes: number,
    readonly entries: Map<string, ZipEntry>,
    /** the folder inside the zip */
    readonly prefix: string,
  ) {}

  /** A tensor whose place was checked against its storage; where the storage starts is looked up at the first read. */
  tensor(name: string, pickled: PickledTensor): RawTensor {
    const { key, type, storageElements, offset, shape } = pickled
    const entry = this.entries.get(`${this.prefix}data/${key}`)
    if (entry === undefined) throw badSource(`${this.path}: tensor ${name} has no data`)
    const width = RAW_TYPE_BYTES[type]
    const elements = shape.reduce((product, size) => product * size, 1)
    if (entry.bytes !== storageElements * width || !(offset + elements <= storageElements)) {
      throw badSource(`${this.path}: tensor ${name} does not fit into its storage`)
    }
    if (!isContiguous(pickled)) {
      throw new OnebitError('ERR_UNSUPPORTED_TENSOR', `${this.path}: tensor ${name} is a transposed or strided view`, {
        hint: 'Save the checkpoint again after calling .contiguous() on it.',
      })
    }
    const read = async (start: number, length: number) => {
      const at = (await this.#start(entry)) + offset * width + start
      return readExactly(this.path, this.file, at, length)
    }
    return { name, type, shape, read }
  }

  async #start(entry: ZipEntry): Promise<number> {
    const known = this.#starts.get(entry.name)
    if (known !== undefined) return known
    const start = await entryStart(this.path, this.file, entry, this.fileBytes)
    this.#starts.set(entry.name, start)
    return start
  }
}

async function checkMagic(path: string, file: FileHandle, bytes: number): Promise<void> {
  const magic = bytes < 4 ? 0 : (await readExactly(path, file, 0, 4)).readUInt32LE()
  if (magic === 0x04034b50) return
  // Before 1.6 a checkpoint was several pickles one after the other; the first starts with a long integer.
  if ((magic & 0xffff) === 0x0280) {
    throw badSource(`${path} is in PyTorch's old format`, 'Load it in PyTorch and save it again with torch.save.')
  }
  throw badSource(`${path} is not a PyTorch checkpoint: it is not a zip file`)
}

async function readFileTensors(path: string, file: FileHandle, bytes: number): Promise<RawTensor[]> {
  await checkMagic(path, file, bytes)
  const entries = await readZipDirectory(path, file, bytes)
  const pickles = [...entries.keys()].filter((name) => /^([^/]+\/)?data\.pkl$/.test(name))
  if (pickles.length !== 1) throw badSource(`${path} is not a PyTorch checkpoint: it has ${pickles.length} data.pkl`)
  const prefix = pickles[0]!.slice(0, -'data.pkl'.length)
  const order = entries.get(`${prefix}byteorder`)
  if (order !== undefined && (await readEntry(path, file, order, bytes, 16)).toString() !== 'little') {
    throw badSource(`${path} was written on a big-endian machine`)
  }
  const torch = new TorchFile(path, file, bytes, entries, prefix)
  const dict = readStateDict(await readEntry(path, file, entries.get(pickles[0]!)!, bytes, MAX_PICKLE_BYTES))
  return [...dict].map(([name, pickled]) => torch.tensor(name, pickled))
}

/** Opens these files and puts their tensors together; a name in two of them is an error. */
export async function openTorchCheckpoint(folder: string, names: readonly string[]): Promise<RawTensors> {
  const files: FileHandle[] = []
  const tensors = new Map<string, RawTensor>()
  const close = async () => {
    for (const file of files.splice(0)) await file.close()
  }
  try {
    for (const name of names) {
      const { file, bytes } = await openFile(join(folder, name))
      files.push(file)
      for (const tensor of await readFileTensors(join(folder, name), file, bytes)) {
        if (tensors.has(tensor.name)) throw badSource(`${name}: tensor ${tensor.name} is in another file too`)
        tensors.set(tensor.name, tensor)
      }
    }
  } catch (cause) {
    await close()
    throw cause
  }
  return { tensors, files: names.map((name) => join(folder, name)), close }
}
