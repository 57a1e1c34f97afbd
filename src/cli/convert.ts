import {
  CONVERT_TYPES,
  type ConvertOptions,
  checkConvertOptions,
  convert,
  EMBED_TYPES,
  SVID_METHODS,
} from '../convert/convert.js'
import { type Command, type OptionValues, UsageError } from './arguments.js'
import { formatBytes } from './format.js'
import { Interrupts } from './interrupts.js'
import { modelFile } from './model-file.js'
import { progressBar } from './progress.js'

export const convertCommand: Command = {
  name: 'convert',
  summary: 'Make a .obt file from a Hugging Face folder, a GGUF, an official OneBit checkpoint or a llama2.c file.',
  usage: 'convert SOURCE -o OUT.obt [--type T] [--embed T] [--tokenizer FILE] [--chat-template FILE]',
  positionals: { min: 1, max: 1 },
  options: {
    output: { type: 'string', short: 'o', value: 'OUT.obt', help: 'the file to write' },
    type: {
      type: 'string',
      choices: CONVERT_TYPES,
      help: 'kind of the linear layers (default: signs and ternary weights stay, small models stay f32, else q8)',
    },
    embed: { type: 'string', choices: EMBED_TYPES, help: 'kind of the embedding and the head' },
    tokenizer: {
      type: 'string',
      value: 'FILE',
      help: "tokenizer.json, tokenizer.model, tok512.bin or a .gguf instead of the source's own; none: without one",
    },
    'chat-template': {
      type: 'string',
      api: 'chatTemplate',
      value: 'FILE',
      help: "a Jinja file instead of the source's own chat template; none: without one",
    },
    method: { type: 'string', choices: SVID_METHODS, help: 'onebit: rank-1 factorisation of |W| (default svd)' },
    split: { type: 'number', help: 'onebit: share of the scale given to h, 0 to 1 (default 0.5)' },
    layernorm: { type: 'boolean', help: "onebit: the paper's LayerNorm after every linear (for training on)" },
    quiet: { type: 'boolean', short: 'q', help: 'no report on stderr' },
  },
  notes: [
    '--type onebit starts a 1-bit model by SVID: each weight matrix becomes its signs and two vectors g and h. Without training after it, the result talks nonsense; the relative error printed per layer says how far it is from the source.',
  ],
  check(values) {
    if (values.output === undefined) throw new UsageError('Say where to write: -o OUT.obt')
    checkConvertOptions(conversionOptions(values))
  },
  async run(values, [source]) {
    const output = values.output as string
    const say = (line: string) => {
      if (!values.quiet) process.stderr.write(`${line}\n`)
    }
    const bar = progressBar('converting')
    const interrupted = new Interrupts().begin()
    try {
      const { signal } = interrupted
      const path = await modelFile(source!, { quiet: values.quiet === true, signal })
      const report = await convert(path, output, {
        ...conversionOptions(values),
        signal,
        onProgress: bar.update,
        onLayer: ({ name, relativeError }) => {
          bar.done()
          say(`${name.padEnd(24)} relative error of |W| ${relativeError.toFixed(4)}`)
        },
      })
      bar.done()
      for (const warning of report.warnings) say(`warning: ${warning}`)
      say(
        `${output}: ${formatBytes(report.fileBytes)}, ${report.bitsPerLinearWeight.toFixed(3)} bits per linear weight, ${report.bitsPerWeightOfFile.toFixed(3)} per weight of the whole file`,
      )
      return 0
    } catch (error) {
      if (!interrupted.signal.aborted) throw error
      bar.done()
      say('Stopped; nothing was written.')
      return 130
    } finally {
      bar.done()
    }
  },
}

function conversionOptions(values: OptionValues): ConvertOptions {
  const names = ['type', 'embed', 'tokenizer', 'chat-template', 'method', 'split', 'layernorm']
  return Object.fromEntries(names.map((name) => [convertCommand.options[name]!.api ?? name, values[name]]))
}
