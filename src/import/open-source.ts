/** Models in others' formats, told apart by what they begin with. */
import { stat } from 'node:fs/promises'
import { OnebitError } from '../errors.js'
import { fileError } from '../files/file-errors.js'
import { openFile, readFully } from '../files/file-reading.js'
import { openGguf } from './gguf.js'
import { openHuggingFace } from './hf.js'
import { openLlama2c } from './llama2c.js'
import type { SourceModel } from './source.js'

/**
 * Opens a folder or a file of any format that can be converted.
 * @throws OnebitError ERR_UNKNOWN_FORMAT, and those of each format
 */
export async function openSource(path: string): Promise<SourceModel> {
  const found = await stat(path).catch((cause) => {
    throw fileError(cause, path, 'reading')
  })
  if (found.isDirectory()) return openHuggingFace(path)
  const { file } = await openFile(path)
  const start = await readFully(file, 0, 9).finally(() => file.close())
  if (start.subarray(0, 4).toString('latin1') === 'GGUF') return openGguf(path)
  const hint = 'Give the folder that the file is in: its config.json is needed too.'
  if (start.subarray(0, 4).toString('latin1') === 'PK\x03\x04') {
    throw new OnebitError('ERR_UNKNOWN_FORMAT', `${path} is a PyTorch checkpoint without its config`, { hint })
  }
  if (start[8] === 0x7b /* { */ && path.endsWith('.safetensors')) {
    throw new OnebitError('ERR_UNKNOWN_FORMAT', `${path} is a safetensors file without its config`, { hint })
  }
  return openLlama2c(path)
}
