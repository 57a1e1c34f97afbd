import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { OnebitError } from '../errors.js'

const FILE = new URL('../../models/stories-5M.obt', import.meta.url)

/**
 * The path of the 1-bit model that comes with the package: 5 million parameters that tell children's stories, for trying
 * things out. `models/stories-5M.md` says how it was made and how good it is.
 * @throws OnebitError ERR_FILE_NOT_FOUND when a packager has left it out
 */
export function defaultModelPath(): string {
  const path = fileURLToPath(FILE)
  if (existsSync(path)) return path
  throw new OnebitError('ERR_FILE_NOT_FOUND', `The model that comes with onebit-run is not at ${path}`, {
    hint: 'Give a model: onebit-run MODEL, a .obt or GGUF file or a folder of Hugging Face.',
  })
}
