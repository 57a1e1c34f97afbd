/** Models as they are named on a command line: a path, or a name that may have to be downloaded first. */
import type { Look } from '../hub/look.js'
import { isModelAddress } from '../hub/model-address.js'
import { progressBar } from './progress.js'

export interface ModelFileOptions {
  /** nothing on stderr but errors and questions */
  quiet?: boolean
  /** ask for what is newest */
  refresh?: boolean
  /** stops the download; without it Ctrl-C ends the process, which loses nothing either */
  signal?: AbortSignal
}

/** The path of a model. @throws OnebitError as fetchModel */
export async function modelFile(
  given: string,
  { quiet = false, refresh = false, signal }: ModelFileOptions = {},
): Promise<string> {
  if (!isModelAddress(given)) return given
  const { fetchModel } = await import('../hub/fetch-model.js')
  let bar = progressBar('downloading')
  try {
    return await fetchModel(given, {
      refresh,
      signal,
      onProgress: (done, total) => bar.update(done, total),
      onNote: (line) => {
        bar.done()
        bar = progressBar('downloading')
        if (!quiet) process.stderr.write(`${line}\n`)
      },
      ...(process.stdin.isTTY && process.stderr.isTTY ? { choose: (looks) => ask(looks, given) } : {}),
    })
  } finally {
    bar.done()
  }
}

/** Which of several; undefined when the person says none. */
async function ask(looks: readonly Look[], given: string): Promise<Look | undefined> {
  const [{ lookLine }, { createInterface }] = await Promise.all([import('../hub/choose.js'), import('node:readline')])
  const repository = given.replace(/^hf:/i, '').replace(/[@:].*$/s, '')
  const lines = looks.map((look, i) => `${String(i + 1).padStart(3)}  ${lookLine(look, repository)}`)
  process.stderr.write(`Several models run here:\n${lines.join('\n')}\n`)
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  terminal.setPrompt(`Which (1 to ${looks.length})? `)
  try {
    terminal.prompt()
    // Ctrl-C and Ctrl-D end the lines.
    for await (const line of terminal) {
      const typed = line.trim()
      if (typed === '') return undefined
      const chosen = /^\d+$/.test(typed) ? looks[Number(typed) - 1] : undefined
      if (chosen !== undefined) return chosen
      terminal.prompt()
    }
    return undefined
  } finally {
    terminal.close()
  }
}
