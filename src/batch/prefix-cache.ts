/** Sessions of requests that have ended, kept because the next request may begin with the same tokens. */
import type { NativeSession } from '../native/native.js'
import type { KnownScores } from './known-scores.js'

export interface Kept {
  native: NativeSession
  /** the tokens in its cache */
  ids: Int32Array
  scores: KnownScores | undefined
  /** of all of it, as it was when it was kept */
  readonly bytes: number
}

/** Less in common than this is not worth keeping or copying a session. */
export const LEAST_SHARED = 16

export function commonPrefix(a: Int32Array, b: Int32Array): number {
  const end = Math.min(a.length, b.length)
  let n = 0
  while (n < end && a[n] === b[n]) n++
  return n
}

/** With how many of its first `length` tokens a session can go on. */
export function reachable(native: NativeSession, length: number): number {
  return native.stateBytes > 0 ? native.reachable(length) : length
}

/** Whether `a` can do all that `b` can. */
function replaces(a: Kept, b: Kept): boolean {
  if (b.ids.length > a.ids.length || commonPrefix(a.ids, b.ids) < b.ids.length) return false
  if (reachable(a.native, b.ids.length) < b.ids.length) return false
  const [known, top] = [a.scores?.known ?? 0, a.scores?.top ?? 0]
  return !b.scores || (known >= b.scores.known && top >= b.scores.top)
}

export class PrefixCache {
  readonly #most: number
  /** least recently used first */
  #kept: Kept[] = []
  #bytes = 0

  /** @param most bytes */
  constructor(most: number) {
    this.#most = most
  }

  get bytes(): number {
    return this.#bytes
  }

  get entries(): readonly Kept[] {
    return this.#kept
  }

  /** Takes a session that nobody uses, and frees whatever is too much then. */
  add(native: NativeSession, ids: Int32Array, scores: KnownScores | undefined): void {
    const bytes = native.usedBytes + ids.byteLength + (scores?.bytes ?? 0)
    const kept: Kept = { native, ids, scores, bytes }
    if (ids.length < LEAST_SHARED || bytes > this.#most) {
      native.dispose()
      return
    }
    const better = this.#kept.find((other) => replaces(other, kept))
    if (better) {
      native.dispose()
      this.touch(better)
      return
    }
    for (const other of this.#kept.filter((other) => replaces(kept, other))) this.#free(other)
    this.#kept.push(kept)
    this.#bytes += bytes
    while (this.#bytes > this.#most) this.#free(this.#kept[0]!)
  }

  /** It was used just now. */
  touch(kept: Kept): void {
    this.#kept = [...this.#kept.filter((other) => other !== kept), kept]
  }

  /** Gives a session away. */
  take(kept: Kept): void {
    this.#kept = this.#kept.filter((other) => other !== kept)
    this.#bytes -= kept.bytes
  }

  /** Frees everything; false when there was nothing. */
  clear(): boolean {
    const some = this.#kept.length > 0
    for (const { native } of this.#kept) native.dispose()
    this.#kept = []
    this.#bytes = 0
    return some
  }

  #free(kept: Kept): void {
    this.take(kept)
    kept.native.dispose()
  }
}
