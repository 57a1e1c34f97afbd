/** What a grammar says about an answer, as those who generate see it. */

/**
 * What an answer has to look like:
 * - schema: JSON that is valid by this JSON Schema; json: any JSON object
 * - regex: the whole answer matches
 * - grammar: EBNF with a rule `root`
 * - tag: free text with parts of fixed form in it (tool calls), as a structural tag of XGrammar
 */
export type AnswerShape =
  | { schema: boolean | Readonly<Record<string, unknown>> }
  | { json: true }
  | { regex: string }
  | { grammar: string }
  | { tag: Readonly<Record<string, unknown>> }

/** Which tokens may come next in one answer. Used by one generation, from its first token to its last. */
export interface Constraint {
  /**
   * The tokens that may come next, a bit for each id (id i is bit i % 32 of word i / 32); undefined: every token may.
   * When the answer is complete, only the model's own end tokens may come. The array stays as it is until the next call.
   * @throws OnebitError ERR_GRAMMAR_TIMEOUT, ERR_GRAMMAR
   */
  next(): Promise<Int32Array | undefined>
  /** This token was chosen. What may follow it is being found out meanwhile. */
  accept(id: number): void
  /** Any number of times. */
  dispose(): void
}

/** Makes constraints for one model's vocabulary. */
export interface Grammars {
  /**
   * @throws OnebitError ERR_SCHEMA, ERR_REGEX, ERR_GRAMMAR (what is wrong with it), ERR_GRAMMAR_LIMIT (size, depth),
   *   ERR_GRAMMAR_TIMEOUT (it takes too long to compile); the signal's reason
   */
  constrain(shape: AnswerShape, options?: { signal?: AbortSignal }): Promise<Constraint>
  dispose(): void
}
