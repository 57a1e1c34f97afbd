import { basename } from 'node:path'

/** What a model is called by its file or folder. */
export function modelName(path: string): string {
  return basename(path).replace(/\.(obt|gguf)$/, '')
}
