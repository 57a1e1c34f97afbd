/** A small model beside a session's own: it guesses which tokens come, and the large one says which of that is right. */
import type { ModelConfig } from '../config/config.js'
import { OnebitError } from '../errors.js'
import type { NativeSession } from '../native/native.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { Timeline } from './timeline.js'

/** What is asked of a model that guesses for another. */
interface Guessing {
  readonly config: ModelConfig
  readonly tokenizer: Tokenizer | undefined
}

/** @throws OnebitError ERR_DRAFT where its guesses would mean other tokens, or could not be taken back */
export function checkDraft(draft: Guessing, model: Guessing): void {
  const problem = draftProblem(draft, model)
  if (problem === undefined) return
  throw new OnebitError('ERR_DRAFT', `This model cannot guess for the other: ${problem}.`, {
    hint: 'Use a smaller model of the same family, with the same tokenizer.',
  })
}

function draftProblem(draft: Guessing, model: Guessing): string | undefined {
  const [its, own] = [draft.config.vocab_size, model.config.vocab_size]
  if (its !== own) return `it has a vocabulary of ${its} tokens, the other of ${own}`
  if (draft.config.delta_layers.length > 0)
    return 'it has layers with states, which do not go back to where a guess was wrong'
  if (!draft.tokenizer || !model.tokenizer) return undefined // ids alone: whoever chose them knows
  for (let id = 0; id < own; id++) {
    const [theirs, ours] = [draft.tokenizer.idToToken(id), model.tokenizer.idToToken(id)]
    if (theirs !== ours) return `its token ${id} is ${JSON.stringify(theirs)}, the other's ${JSON.stringify(ours)}`
  }
  return undefined
}

/** The small model's session. It belongs to one session, and holds a beginning of what was said there. */
export class Draft {
  readonly native: NativeSession
  #held = new Int32Array(0)

  constructor(native: NativeSession) {
    this.native = native
  }

  /** Before a generation: forgets what is not on the timeline any more. */
  begin(timeline: Timeline): void {
    if (!this.native.disposed) this.native.rewind(Math.min(timeline.commonPrefix(this.#held), this.native.length))
  }

  /** Behind it: remembers what is held, and forgets what was computed ahead of the timeline. */
  settle(timeline: Timeline): void {
    if (this.native.disposed) return
    const length = Math.min(timeline.length, this.native.length)
    this.native.rewind(length)
    this.#held = timeline.slice(0, length).slice()
  }

  dispose(): void {
    this.native.dispose()
  }
}
