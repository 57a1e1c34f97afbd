/** The models that a server offers, by the names they were given when it started. */
import { type AnswerFormat, answerFormat } from '../answer/format.js'
import { Batch } from '../batch/batch.js'
import type { BatchOptions } from '../batch/requests.js'
import type { Model } from '../run/model.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { Fields } from './body.js'
import { badField, HttpError } from './errors.js'

export interface Served {
  readonly name: string
  readonly model: Model
  readonly batch: Batch
  readonly format: AnswerFormat
  /** seconds since 1970 */
  readonly created: number
}

export class ServedModels {
  readonly #byName = new Map<string, Served>()
  /** requests of one model that are computed together */
  readonly parallel: number

  constructor(models: readonly { name: string; model: Model }[], options: BatchOptions) {
    this.parallel = options.parallel ?? 4
    const created = Math.floor(Date.now() / 1000)
    for (const { name, model } of models) {
      const format = answerFormat(model.chatTemplate?.source)
      this.#byName.set(name, { name, model, format, created, batch: new Batch(model, options) })
    }
  }

  get all(): Served[] {
    return [...this.#byName.values()]
  }

  /**
   * The model that a request names; the first one where it names none. A name is looked up and never becomes a path.
   * @throws HttpError 404
   */
  named(name: unknown): Served {
    if (name === undefined) return this.all[0]!
    if (typeof name !== 'string') throw badField('model', 'must be a string')
    const found = this.#byName.get(name)
    if (found) return found
    const names = this.all.map((one) => JSON.stringify(one.name)).join(', ')
    throw new HttpError(404, `There is no model of this name here; there are ${names}.`, {
      param: 'model',
      code: 'model_not_found',
    })
  }

  of({ model }: Fields): Served {
    return this.named(model)
  }

  async close(graceMs: number): Promise<void> {
    await Promise.all(this.all.map(({ batch }) => batch.close({ graceMs })))
  }
}

/** What a token is called where tokens are told one by one: its text, special ones by their names. */
export function tokenText(tokenizer: Tokenizer, id: number): string {
  return tokenizer.decode([id], { continuation: true })
}
