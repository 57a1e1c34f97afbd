/** Models as they are named on a command line: a path, or a name that may have to be downloaded first. */
import { createInterface } from 'node:readline/promises'
import type { Look } from '../hub/look.js'
import { isModelAddress } from '../hub/model-address.js'
import { progressBar } from './progress.js'

export interface ModelFileOptions {
  /** nothing on stderr but errors and questions */
  quiet?: boolean
  /** ask for what is newest */
  refresh?: boolean
}

/** The path of a model. @throws OnebitError as fetchModel */
export async function modelFile(
  given: string,
  { quiet = false, refresh = false }: ModelFileOptions = {},
): Promise<string> {
  if (!isModelAddress(given)) return given
  const { fetchModel } = await import('../hub/fetch-model.js')
  let bar = progressBar('downloading')
  try {
    return await fetchModel(given, {
      refresh,
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
  const { lookLine } = await import('../hub/choose.js')
  const repository = given.replace(/^hf:/i, '').replace(/[@:].*$/s, '')
  const lines = looks.map((look, i) => `${String(i + 1).padStart(3)}  ${lookLine(look, repository)}`)
  process.stderr.write(`Several models run here:\n${lines.join('\n')}\n`)
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  try {
    for (;;) {
      const typed = (await terminal.question(`Which (1 to ${looks.length})? `)).trim()
      if (typed === '') return undefined
      const chosen = /^\d+$/.test(typed) ? looks[Number(typed) - 1] : undefined
      if (chosen !== undefined) return chosen
    }
  } finally {
    terminal.close()
  }
}
