/** Turns of the event loop in which a limit is counted; fewer where one would be shorter than a millisecond. */
const MOST_TURNS = 8

/**
 * How long a thread or another process may take. Counted in eight parts, each with a timer of its own, so that only time in which
 * this process ran counts: where the system stopped it for a while, or its event loop was held up, what was asked for had
 * no time either, or has answered and only was not heard yet. A single timer is over at once then.
 */
export class TimeLimit {
  #timer: NodeJS.Timeout | undefined
  readonly #onOver: () => void

  constructor(ms: number, onOver: () => void) {
    this.#onOver = onOver
    const turns = Math.max(1, Math.min(MOST_TURNS, Math.floor(ms)))
    this.#wait(ms / turns, turns)
  }

  clear(): void {
    clearTimeout(this.#timer)
  }

  #wait(ms: number, turns: number): void {
    this.#timer = setTimeout(() => {
      if (turns > 1) this.#wait(ms, turns - 1)
      else this.#onOver()
    }, ms)
  }
}
