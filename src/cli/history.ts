/** What was typed in earlier chats, so that the arrow keys find it: one JSON string a line, the latest last. */
import { appendFile, mkdir, readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { writeAtomically, writeFully } from '../files/atomic-file.js'

/** How many are kept. */
export const MOST_REMEMBERED = 200
/** A file may grow to so many times that before it is written anew. */
const SLACK = 4
const MOST_BYTES = 8 << 20

/** The file, by $ONEBIT_HISTORY if that is set (empty: none), else where this system keeps such things. */
export function historyPath(env: NodeJS.ProcessEnv = process.env, platform = process.platform): string | undefined {
  if (env.ONEBIT_HISTORY !== undefined) return env.ONEBIT_HISTORY || undefined
  const home = homedir()
  if (platform === 'win32') return join(env.LOCALAPPDATA || join(home, 'AppData', 'Local'), 'onebit-run', 'history')
  if (platform === 'darwin') return join(home, 'Library', 'Application Support', 'onebit-run', 'history')
  return join(env.XDG_STATE_HOME || join(home, '.local', 'state'), 'onebit-run', 'history')
}

/**
 * A chat works as well without its history, so no failure is an error: a folder that cannot be written means that nothing
 * is remembered, and a damaged line is left out.
 */
export class History {
  readonly #path: string | undefined
  #writing: Promise<void> = Promise.resolve()

  constructor(path: string | undefined) {
    this.#path = path
  }

  /** What there is, the latest first. */
  async read(): Promise<string[]> {
    if (this.#path === undefined) return []
    try {
      const bytes = await readFile(this.#path)
      const lines = bytes.toString('utf8').split('\n')
      const messages = lines.flatMap((line) => message(line) ?? [])
      const kept = messages.slice(-MOST_REMEMBERED)
      if (lines.length > SLACK * MOST_REMEMBERED || bytes.length > MOST_BYTES) await this.#rewrite(kept)
      return kept.reverse()
    } catch {
      return []
    }
  }

  /** Remembers one more. */
  add(typed: string): void {
    const path = this.#path
    if (path === undefined) return
    this.#writing = this.#writing.then(async () => {
      try {
        await mkdir(dirname(path), { recursive: true, mode: 0o700 })
        await appendFile(path, line(typed), { mode: 0o600 })
      } catch {
        // It is not remembered.
      }
    })
  }

  /** Resolves when all is written. */
  async written(): Promise<void> {
    await this.#writing
  }

  async #rewrite(messages: readonly string[]): Promise<void> {
    const bytes = Buffer.from(messages.map(line).join(''))
    await writeAtomically(this.#path!, async (file) => {
      await file.chmod(0o600)
      await writeFully(file, bytes, 0)
    })
  }
}

const line = (typed: string) => `${JSON.stringify(typed)}\n`

function message(line: string): string | undefined {
  try {
    const typed: unknown = JSON.parse(line)
    return typeof typed === 'string' ? typed : undefined
  } catch {
    return undefined
  }
}
