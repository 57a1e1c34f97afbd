import { removeModel } from '../hub/listing.js'
import type { Command } from './arguments.js'
import { formatBytes } from './format.js'

export const rmCommand: Command = {
  name: 'rm',
  summary: 'Remove a model that was downloaded.',
  usage: 'rm hf:OWNER/NAME[:FILE-OR-TYPE]',
  positionals: { min: 1, max: 64 },
  options: { quiet: { type: 'boolean', short: 'q', help: 'nothing on stderr but errors' } },
  notes: ["Without a file or a type all that is here of the repository goes. It goes for Hugging Face's tools too."],
  async run(values, names) {
    for (const name of names) {
      const bytes = await removeModel(name)
      if (!values.quiet) process.stderr.write(`${name}: ${formatBytes(bytes)} free again\n`)
    }
    return 0
  },
}
