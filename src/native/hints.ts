/** What a user can do about an error that native code found; the sentence itself comes from there. */

/** The context by the names that set it. */
export const CONTEXT_OPTION = '(`context` in code; -c of `onebit run`, score and perplexity)'

export const NATIVE_HINTS: Readonly<Record<string, string>> = {
  ERR_OUT_OF_MEMORY: `Use a smaller context ${CONTEXT_OPTION} or a smaller model, or close other programs.`,
  ERR_MEMORY_LIMIT: `Use a smaller context ${CONTEXT_OPTION} or a smaller model, or raise \`memoryLimit\`.`,
  ERR_NO_THREAD:
    'Close other programs, or raise the limit on processes and threads (`ulimit -u`, or that of the container).',
  ERR_ISA: 'Unset ONEBIT_ISA to let the program choose; `onebit doctor` lists what this machine has.',
  ERR_CHECKSUM: 'The file is damaged. Copy or convert it again.',
  ERR_CONTEXT_FULL: `Use a larger context ${CONTEXT_OPTION}, at most what the model allows, or drop old tokens with rewind().`,
  ERR_BUSY: 'Wait for the generation under way, abort it, or use another session of the same model.',
}
