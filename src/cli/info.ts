import { describeKind, linearKindSummary, modelSize } from '../config/model-size.js'
import { readModelHeader } from '../convert/foreign-model.js'
import type { Command } from './arguments.js'
import { formatBytes, formatCount } from './format.js'

export const infoCommand: Command = {
  name: 'info',
  summary: 'Show what is in a model file: architecture, kinds, bits per weight, size, where it came from.',
  usage: 'info MODEL [--tensors] [--json]',
  positionals: { min: 1, max: 1 },
  options: {
    tensors: { type: 'boolean', help: 'list every tensor of a .obt file' },
    json: { type: 'boolean', help: 'print JSON' },
  },
  async run(values, [path]) {
    const header = await readModelHeader(path!)
    const size = modelSize(header.config, header.blobs, header.fileBytes)
    if (values.json) {
      const tensors = (header.tensors ?? []).map(({ spec, offset, bytes }) => ({ ...spec, offset, bytes }))
      const { config, provenance } = header
      console.log(JSON.stringify({ path, config, size, provenance, ...(values.tensors ? { tensors } : {}) }, null, 2))
      return 0
    }
    const { config } = header
    const heads = `${config.n_heads} heads of ${config.head_dim}, ${config.n_kv_heads} for keys and values`
    const scaling = config.rope_scaling.type === 'none' ? '' : `, ${config.rope_scaling.type} scaling`
    const rows: [string, string][] = [
      ['file', `${path}  ${formatBytes(header.fileBytes)}`],
      [
        'architecture',
        `${config.architecture}: ${config.n_layers} layers, width ${config.dim}, feed-forward ${config.hidden_dim}`,
      ],
      ['attention', `${heads}; RoPE theta ${config.rope_theta}${scaling}`],
      ['vocabulary', `${config.vocab_size} tokens${config.tied_head ? ', head tied to the embedding' : ''}`],
      ['context', `${config.context_length} positions`],
      ['parameters', formatCount(size.parameters)],
      ...linearKindSummary(config).map(({ kind, count }): [string, string] => ['linears', `${count} x ${kind}`]),
      ['embedding', describeKind(config.embedding)],
      ...(config.tied_head ? [] : [['head', describeKind(config.head)] as [string, string]]),
      [
        'bits per weight',
        `${size.bitsPerLinearWeight.toFixed(3)} in the linear layers, ${size.bitsPerWeightOfFile.toFixed(3)} in the whole file`,
      ],
      ...Object.entries(size.bytes)
        .filter(([, bytes]) => bytes > 0)
        .map(([part, bytes]): [string, string] => [
          `  ${part}`,
          `${formatBytes(bytes)} (${((100 * bytes) / header.fileBytes).toFixed(1)} %)`,
        ]),
      ['tokenizer', header.blobs.tokenizer > 0 ? 'inside' : 'none: works with token ids'],
      ['chat template', header.blobs.chat_template > 0 ? 'inside' : 'none'],
      ...Object.entries(header.provenance).map(([key, value]): [string, string] => [
        key,
        typeof value === 'string' ? value : JSON.stringify(value),
      ]),
    ]
    for (const note of header.notes) rows.push(['note', note])
    const width = Math.max(...rows.map(([name]) => name.length))
    for (const [name, text] of rows) console.log(`${name.padEnd(width)}  ${text}`)
    if (values.tensors) {
      console.log()
      for (const { spec, offset } of header.tensors ?? []) {
        console.log(`${spec.name.padEnd(28)} ${spec.dtype.padEnd(4)} [${spec.shape.join(', ')}] at ${offset}`)
      }
    }
    return 0
  },
}
