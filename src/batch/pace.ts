/**
 * How long steps take, learned from those that were: how many tokens of prompts may be computed beside the answers that
 * are under way.
 */

/** Tokens that native code computes at once (kMaxStepTokens). */
export const MOST_STEP_TOKENS = 256

/**
 * An answer under way waits no longer than 100 ms or two of its own steps, whichever is longer; a little less is aimed
 * at, because steps of the same size vary.
 */
const LONGEST_MS = 90
const LONGEST_STEPS = 1.9
/** Where that leaves room, tokens keep coming evenly: a step with a piece of a prompt in it takes at most so much. */
const EVEN_MS = 40
const EVEN_STEPS = 2

/** A step that is only prompts takes about this: so long does a new request wait. */
const ALONE_MS = 90
const FIRST_ALONE = 64
/** Fewer tokens than this for each thread take hardly less time: all weights are read whatever their number. */
const LEAST_ALONE_PER_THREAD = 16

const FIRST_BESIDE = 8
const LEAST_BESIDE = 4

/** Kernels work on so many tokens at a time. */
const EIGHT = 8

/** What the newest step counts in an average. */
const NEWEST = 0.25

/** One step that something else held up says little about the next: at most twice or half of what was known counts. */
function average(before: number | undefined, ms: number): number {
  if (before === undefined) return ms
  return before + NEWEST * (Math.min(Math.max(ms, before / 2), 2 * before) - before)
}

export class Pace {
  readonly #leastAlone: number
  /** of steps with nothing but one token of each of [index] answers */
  readonly #answersMs: (number | undefined)[] = []
  /** what a token of a prompt takes in a step without answers, and what it adds to one with them */
  #aloneMs: number | undefined
  #besideMs: number | undefined
  /** the most there were in a step so far: one quick step proves little, so the next has about twice as many at most */
  #mostAlone = FIRST_ALONE / 2
  #mostBeside = 0

  constructor(threads: number) {
    this.#leastAlone = Math.min(Math.max(LEAST_ALONE_PER_THREAD * threads, 32), MOST_STEP_TOKENS)
  }

  /** A step with one token of each of `answers` requests and `prompt` tokens of prompts took `ms`. */
  observe(answers: number, prompt: number, ms: number): void {
    if (prompt === 0) {
      this.#answersMs[answers] = average(this.#answersMs[answers], ms)
    } else if (answers === 0) {
      // A few tokens take as long as some more, and would make every token seem slow.
      if (prompt < this.#leastAlone && this.#aloneMs !== undefined) return
      this.#aloneMs = average(this.#aloneMs, ms / prompt)
      this.#mostAlone = Math.max(this.#mostAlone, prompt)
    } else {
      const added = Math.max(ms - (this.stepMs(answers) ?? 0), 0.01 * ms)
      const least = this.#besideMs === undefined ? (this.#aloneMs ?? 0) / 2 : 0
      this.#besideMs = average(this.#besideMs, Math.max(added / prompt, least))
      this.#mostBeside = Math.max(this.#mostBeside, prompt)
    }
  }

  /** A step of so many answers; where it is unknown, one of a few less or more. */
  stepMs(answers: number): number | undefined {
    for (let n = answers; n > 0; n--) if (this.#answersMs[n] !== undefined) return this.#answersMs[n]
    return this.#answersMs.find((ms) => ms !== undefined)
  }

  /** Tokens of prompts in a step beside `answers` answers, at least one. */
  promptTokens(answers: number): number {
    if (answers === 0) return this.#alone()
    const own = this.stepMs(answers) ?? 0
    const limit = Math.min(Math.max(EVEN_STEPS * own, EVEN_MS), Math.max(LONGEST_STEPS * own, LONGEST_MS))
    const fitting = this.#besideMs === undefined ? FIRST_BESIDE : (limit - own) / this.#besideMs
    const most = Math.min(fitting, 2 * this.#mostBeside + EIGHT, MOST_STEP_TOKENS - answers)
    const even = Math.floor((answers + most) / EIGHT) * EIGHT - answers
    return Math.min(Math.max(even > 0 ? even : Math.floor(most), LEAST_BESIDE), Math.max(1, MOST_STEP_TOKENS - answers))
  }

  #alone(): number {
    const fitting = this.#aloneMs === undefined ? FIRST_ALONE : ALONE_MS / this.#aloneMs
    const most = Math.min(fitting, 2 * this.#mostAlone, MOST_STEP_TOKENS)
    return Math.max(Math.floor(most / EIGHT) * EIGHT, this.#leastAlone)
  }
}
