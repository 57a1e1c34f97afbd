/** The user's token for the hub, from where Hugging Face's tools have it. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { hubHome, isSwitchedOn } from './cache-folder.js'

/** HF_TOKEN, or what `hf auth login` wrote down. */
export function hubToken(): string | undefined {
  if (isSwitchedOn('HF_HUB_DISABLE_IMPLICIT_TOKEN')) return undefined
  const given = [process.env.HF_TOKEN, process.env.HUGGING_FACE_HUB_TOKEN].find((token) => token?.trim())
  const token = (given ?? readToken() ?? '').trim()
  // Anything else cannot stand in a header.
  return /^[\x21-\x7e]+$/.test(token) ? token : undefined
}

function readToken(): string | undefined {
  try {
    return readFileSync(process.env.HF_TOKEN_PATH || join(hubHome(), 'token'), 'utf8')
  } catch {
    return undefined
  }
}
