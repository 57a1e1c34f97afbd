import { listModels } from '../hub/listing.js'
import type { Command } from './arguments.js'
import { formatBytes, plainLine } from './format.js'

export const listCommand: Command = {
  name: 'list',
  summary: 'Show the models that were downloaded: size, type, and whether they run here.',
  usage: 'list [--json]',
  positionals: { min: 0, max: 0 },
  options: { json: { type: 'boolean', help: 'print JSON' } },
  notes: ["They are in the cache of Hugging Face's tools; what those have downloaded is listed too."],
  async run(values) {
    const models = await listModels()
    if (values.json) {
      console.log(JSON.stringify(models, null, 2))
      return 0
    }
    if (models.length === 0) process.stderr.write('No model was downloaded yet: onebit pull hf:OWNER/NAME\n')
    const rows = models.map(({ name, bytes, type, words, problem }) => {
      return [name, formatBytes(bytes), type ?? '-', words ?? `does not run here: ${problem}`]
    })
    const widths = [0, 1, 2].map((i) => Math.max(0, ...rows.map((row) => row[i]!.length)))
    for (const row of rows) console.log(plainLine(row.map((text, i) => text.padEnd(widths[i] ?? 0)).join('  ')))
    return 0
  },
}
