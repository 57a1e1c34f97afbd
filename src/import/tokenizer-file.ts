/** `--tokenizer FILE`: a tokenizer that comes apart from its model. */
import { dirname } from 'node:path'
import { OnebitError } from '../errors.js'
import { openFile } from '../files/file-reading.js'
import { MAX_TOKENIZER_BYTES } from '../obt/obt-header.js'
import { tokenizerFromLlama2c } from '../text/llama2c-vocabulary.js'
import { tokenizerFromSentencePiece } from '../text/sentencepiece.js'
import { readGgufText } from './gguf.js'
import { jsonBytes, readFolderText, readOptional } from './hf-text.js'
import type { SourceText } from './source.js'

type Kind = 'json' | 'gguf' | 'sentencepiece' | 'llama2c'

function kindOf(path: string, bytes: Buffer): Kind {
  if (bytes.subarray(0, 4).toString('latin1') === 'GGUF') return 'gguf'
  if (path.endsWith('.json')) return 'json'
  if (path.endsWith('.model')) return 'sentencepiece'
  if (path.endsWith('.bin')) return 'llama2c'
  throw new OnebitError('ERR_TOKENIZER_FILE', `${path} is not a tokenizer file that is known`, {
    hint: 'Give a tokenizer.json, a SentencePiece .model, a llama2.c .bin or a .gguf file.',
  })
}

/**
 * The tokenizer of a file; a tokenizer.json brings the tokenizer_config.json beside it.
 * @throws OnebitError ERR_TOKENIZER_FILE, ERR_UNSUPPORTED_TOKENIZER, and those of reading files
 */
export async function readTokenizerFile(path: string, vocabSize: number): Promise<SourceText> {
  const { file } = await openFile(path)
  await file.close()
  const bytes = (await readOptional(path, MAX_TOKENIZER_BYTES)) ?? Buffer.alloc(0)
  switch (kindOf(path, bytes)) {
    case 'gguf':
      return readGgufText(path)
    case 'json':
      return readFolderText(dirname(path), {}, path)
    case 'sentencepiece':
      return { tokenizer: jsonBytes(tokenizerFromSentencePiece(bytes)) }
    case 'llama2c':
      return { tokenizer: jsonBytes(tokenizerFromLlama2c(bytes, vocabSize)) }
  }
}
