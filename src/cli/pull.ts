import { isModelAddress } from '../hub/model-address.js'
import { type Command, UsageError } from './arguments.js'
import { modelFile } from './model-file.js'

export const pullCommand: Command = {
  name: 'pull',
  summary: 'Download a model of the hub, or what is newest of one that is here.',
  usage: 'pull hf:OWNER/NAME[:FILE-OR-TYPE] [-q]',
  positionals: { min: 1, max: 64 },
  options: { quiet: { type: 'boolean', short: 'q', help: 'nothing on stderr but errors' } },
  notes: [
    'Prints where the model is. What was fetched before a cut, Ctrl-C or a full disk is kept, and the same command goes on behind it.',
    'hf:OWNER/NAME@REVISION takes a branch, a tag or a commit. Variables: HF_HOME or HF_HUB_CACHE (where it goes), HF_TOKEN (who asks), HF_ENDPOINT (a mirror), HF_HUB_OFFLINE=1 (no network), HTTPS_PROXY and NO_PROXY.',
  ],
  check(_values, positionals) {
    const path = positionals.find((name) => !isModelAddress(name))
    if (path !== undefined) {
      throw new UsageError(
        `${JSON.stringify(path)} is no name of a model.`,
        'Names are hf:OWNER/NAME or https://…/FILE.gguf',
      )
    }
  },
  async run(values, names) {
    for (const name of names) console.log(await modelFile(name, { quiet: values.quiet === true, refresh: true }))
    return 0
  },
}
