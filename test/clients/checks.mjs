// How a program of these tests counts, and the line with which it ends: `N passed, N failed, N skipped`.
import { Tally } from '../../scripts/tally.mjs'

/** Only for what hangs. */
const MOST_MS = 120_000

export class Checks {
  #tally = new Tally()
  #name

  constructor(name) {
    this.#name = name
  }

  /** One check: `work` throws when something does not hold. */
  async check(what, work) {
    let late
    const limit = new Promise((_, reject) => {
      late = setTimeout(() => reject(new Error(`it did not end within ${MOST_MS / 1000} s`)), MOST_MS)
    })
    try {
      await Promise.race([work(), limit])
      this.#tally.passed++
      console.log(`${this.#name}: ${what}`)
    } catch (error) {
      this.#tally.fail(`${this.#name}: ${what}: ${error?.stack ?? error}`)
    } finally {
      clearTimeout(late)
    }
  }

  skip(what) {
    this.#tally.skip(`${this.#name}: ${what}`)
  }

  finish() {
    this.#tally.finish()
  }
}

/** Waits until something holds; it is tried every 20 ms. */
export async function until(holds) {
  const end = performance.now() + MOST_MS / 2
  while (!(await holds())) {
    if (performance.now() > end) throw new Error('it did not come to hold')
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
