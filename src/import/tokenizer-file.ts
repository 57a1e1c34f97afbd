/** `--tokenizer FILE`: a tokenizer that comes apart from its model. */
import { dirname } from 'node:path'
import { OnebitError } from '../errors.js'
import { openFile, readExactly } from '../files/file-reading.js'
import { MAX_TOKENIZER_BYTES } from '../obt/obt-header.js'
import { tokenizerFromLlama2c } from '../text/llama2c-vocabulary.js'
import { tokenizerFromSentencePiece } from '../text/sentencepiece.js'
import { readGgufText } from './gguf-text.js'
import { folderText } from './hf-text.js'
import { badSource } from './source.js'
import { onlyTokenizer, type SourceText } from './source-text.js'

async function beginning(path: string): Promise<{ start: string; bytes: number }> {
  const { file, bytes } = await openFile(path)
  try {
    return { start: (await readExactly(path, file, 0, Math.min(bytes, 4))).toString('latin1'), bytes }
  } finally {
    await file.close()
  }
}

async function wholeFile(path: string): Promise<Buffer> {
  const { file, bytes } = await openFile(path)
  try {
    if (bytes > MAX_TOKENIZER_BYTES)
      throw badSource(`${path} has ${bytes} bytes, at most ${MAX_TOKENIZER_BYTES} are read`)
    return await readExactly(path, file, 0, bytes)
  } finally {
    await file.close()
  }
}

/**
 * The text that a file holds; a tokenizer.json brings what stands beside it in its folder. `vocabSize`: the model's, which
 * llama2.c files do not say themselves.
 * @throws OnebitError ERR_TOKENIZER_FILE, ERR_UNSUPPORTED_TOKENIZER, and those of reading files
 */
export async function tokenizerFile(path: string, vocabSize: number): Promise<SourceText> {
  const { start } = await beginning(path)
  if (start === 'GGUF') return readGgufText(path)
  if (path.endsWith('.json')) return folderText(dirname(path), {}, path)
  if (path.endsWith('.model')) {
    const bytes = await wholeFile(path)
    return onlyTokenizer(() => tokenizerFromSentencePiece(bytes))
  }
  if (path.endsWith('.bin')) {
    const bytes = await wholeFile(path)
    return onlyTokenizer(() => tokenizerFromLlama2c(bytes, vocabSize))
  }
  throw new OnebitError('ERR_TOKENIZER_FILE', `${path} is not a tokenizer file that is known`, {
    hint: 'Give a tokenizer.json, a SentencePiece .model, a llama2.c .bin or a .gguf file.',
  })
}
