/** What happens when nobody takes what a command prints: its results are its purpose, its notes are not. */
import { OnebitError } from '../errors.js'
import { fileError } from '../files/file-errors.js'
import { describeError } from './describe-error.js'

/** To be called once, before anything is printed. */
export function guardStreams(): void {
  // A note without a reader, or on a full disk, is lost, and the work goes on.
  process.stderr.on('error', () => {})
  let failed = false
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    // A closed pipe (`onebit run … | head -1`) is the reader's way of saying "enough".
    if (error.code === 'EPIPE') process.exit(0)
    if (failed) return
    failed = true
    // Also when the command comes to its end first.
    process.once('exit', () => {
      process.exitCode = 1
    })
    process.stderr.write(`${describeError(withoutHint(fileError(error, 'Standard output', 'writing')))}\n`, () =>
      process.exit(1),
    )
  })
}

/** The hints are about files. */
function withoutHint(error: unknown): unknown {
  return error instanceof OnebitError ? new OnebitError(error.code, error.message, { cause: error }) : error
}

/** Prints text as fast as it is taken. */
export async function printSlowly(text: string): Promise<void> {
  if (text === '' || process.stdout.write(text)) return
  await new Promise((resolve) => process.stdout.once('drain', resolve))
}

/** Resolves when all that was printed has been taken. */
export async function allPrinted(): Promise<void> {
  for (const stream of [process.stdout, process.stderr]) await new Promise((resolve) => stream.write('', resolve))
}
