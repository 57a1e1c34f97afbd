/** Why a signal of ours aborted, when it was the key. */
export const KEY = 'Ctrl-C'

/** npm passes a signal on within milliseconds; nobody who wants to press again is that quick. */
const SOON_MS = 1500

/**
 * Ctrl-C for a whole command: it ends what is under way. One handler, set once and never taken away: a signal that
 * arrives between two handlers, or while the process is leaving, would kill it. (Node does not stay alive for it; main
 * sees to the leaving.)
 *
 * One Ctrl-C may come twice: npm has it from the terminal too, and passes it on to what `npx onebit-run` started. So
 * the next signal after one that was obeyed is taken for the same key when it comes soon, until something new begins.
 */
export class Interrupts {
  #current = new AbortController()
  /** until when a signal may be the last one's copy, in milliseconds of the process */
  #mayComeUntil = 0

  constructor() {
    process.on('SIGINT', () => {
      const now = performance.now()
      const isCopy = now < this.#mayComeUntil
      if (!isCopy) this.#current.abort()
      this.#mayComeUntil = isCopy ? 0 : now + SOON_MS
    })
  }

  /** Ctrl-C as a key, in a terminal that sends no signal for it: it comes once. */
  key(): void {
    this.#current.abort(KEY)
  }

  /** Something new begins, which the next Ctrl-C aborts. */
  begin(): AbortController {
    this.#mayComeUntil = 0
    return this.wait()
  }

  /** From now on Ctrl-C aborts what is returned; but what it has just aborted may have been by the same key. */
  wait(): AbortController {
    this.#current = new AbortController()
    return this.#current
  }
}
