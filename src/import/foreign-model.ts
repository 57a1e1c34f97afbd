import { stat } from 'node:fs/promises'
import { fileError } from '../files/file-errors.js'
import { openFile, readFully } from '../files/file-reading.js'

/** What is no `.obt` file and yet a model by itself: a folder of Hugging Face's, or a GGUF file. */
export async function isForeignModel(path: string): Promise<boolean> {
  const found = await stat(path).catch((cause) => {
    throw fileError(cause, path, 'reading')
  })
  if (found.isDirectory()) return true
  const { file } = await openFile(path)
  const start = await readFully(file, 0, 4).finally(() => file.close())
  return start.toString('latin1') === 'GGUF'
}
