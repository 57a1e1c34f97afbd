/** Why a signal of ours aborted, when it was the key. */
export const KEY = 'Ctrl-C'

/**
 * Ctrl-C for a whole command: it ends what is under way. One handler, set once and never taken away: a signal that
 * arrives between two handlers, or while the process is leaving, would kill it. (Node does not stay alive for it; main
 * sees to the leaving.)
 *
 * One Ctrl-C may come twice: npm has it from the terminal too, and passes it on to what `npx onebit-run` started. So
 * the next signal after one that was obeyed is taken for the same key, until something new begins.
 */
export class Interrupts {
  #current = new AbortController()
  #mayComeAgain = false

  constructor() {
    process.on('SIGINT', () => {
      if (!this.#mayComeAgain) this.#current.abort()
      this.#mayComeAgain = !this.#mayComeAgain
    })
  }

  /** Ctrl-C as a key, in a terminal that sends no signal for it: it comes once. */
  key(): void {
    this.#current.abort(KEY)
  }

  /** Something new begins, which the next Ctrl-C aborts. */
  begin(): AbortController {
    this.#mayComeAgain = false
    return this.wait()
  }

  /** From now on Ctrl-C aborts what is returned; but what it has just aborted may have been by the same key. */
  wait(): AbortController {
    this.#current = new AbortController()
    return this.#current
  }
}
