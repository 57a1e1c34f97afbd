import { describeKind, linearKindSummary, type ModelSize, modelSize, stateBytes } from '../config/model-size.js'
import { activationWords, modelWords } from '../config/model-words.js'
import { type TensorSpec, tensorBytes, tensorTable } from '../config/tensors.js'
import { type ModelHeader, readModelHeader } from '../convert/foreign-model.js'
import type { Command } from './arguments.js'
import { formatBytes, formatCount, plainLine } from './format.js'

type Row = [name: string, text: string]

function recurrenceRows({ config }: ModelHeader): Row[] {
  const { delta_layers, n_layers, delta_k_heads, delta_v_heads, delta_k_dim, delta_v_dim } = config
  if (delta_layers.length === 0) return []
  const heads = `${delta_v_heads} heads of ${delta_k_dim} x ${delta_v_dim}, ${delta_k_heads} for keys`
  const state = `a state of ${formatBytes(stateBytes(config))}`
  return [['recurrent', `${delta_layers.length} of ${n_layers} layers, Gated DeltaNet: ${heads}; ${state}`]]
}

function computationRows(header: ModelHeader): Row[] {
  const { config } = header
  const heads = `${config.n_heads} heads of ${config.head_dim}, ${config.n_kv_heads} for keys and values`
  const scaling = config.rope_scaling.type === 'none' ? '' : `, ${config.rope_scaling.type} scaling`
  const positions = config.positions === 'learned' ? 'learned positions' : `RoPE theta ${config.rope_theta}${scaling}`
  return [
    [
      'architecture',
      `${config.architecture}: ${config.n_layers} layers, width ${config.dim}, feed-forward ${config.hidden_dim}`,
    ],
    ['attention', `${heads}; ${positions}`],
    ...recurrenceRows(header),
    ['vocabulary', `${config.vocab_size} tokens${config.tied_head ? ', head tied to the embedding' : ''}`],
    ['context', `${config.context_length} positions`],
    ['activations', activationWords(config)],
  ]
}

/** Shares are of what the parts are parts of: a `.obt` file, or the memory that a model of another format takes. */
function sizeRows({ config, fileBytes, numberTypes }: ModelHeader, size: ModelSize): Row[] {
  const isForeign = numberTypes !== undefined
  const parts = Object.entries(size.bytes).filter(([, bytes]) => bytes > 0)
  const memoryBytes = parts.reduce((sum, [, bytes]) => sum + bytes, 0)
  const whole = isForeign ? memoryBytes : fileBytes
  const linears = `${size.bitsPerLinearWeight.toFixed(3)} in the linear layers${isForeign ? ' in memory' : ''}`
  return [
    ['parameters', formatCount(size.parameters)],
    ...linearKindSummary(config).map(({ kind, count }): Row => ['linears', `${count} x ${kind}`]),
    ['embedding', describeKind(config.embedding)],
    ...(config.tied_head ? [] : [['head', describeKind(config.head)] as Row]),
    ['bits per weight', `${linears}, ${size.bitsPerWeightOfFile.toFixed(3)} in the whole file`],
    ...(isForeign
      ? ([
          ['in the file', numberTypes],
          ['in memory', formatBytes(memoryBytes)],
        ] as Row[])
      : []),
    ...parts.map(([part, bytes]): Row => {
      return [`  ${part}`, `${formatBytes(bytes)} (${((100 * bytes) / whole).toFixed(1)} %)`]
    }),
  ]
}

function rowsOf(header: ModelHeader, size: ModelSize): Row[] {
  const { config, path, fileBytes, blobs, provenance, notes } = header
  return [
    ['model', modelWords(config, size.bitsPerLinearWeight, provenance.name)],
    ['file', `${path}  ${formatBytes(fileBytes)}`],
    ...computationRows(header),
    ...sizeRows(header, size),
    ['tokenizer', blobs.tokenizer > 0 ? 'inside' : 'none: works with token ids'],
    ['chat template', blobs.chat_template > 0 ? 'inside' : 'none'],
    ...Object.entries(provenance).map(([key, value]): Row => {
      return [key, typeof value === 'string' ? value : JSON.stringify(value)]
    }),
    ...notes.map((note): Row => ['note', note]),
  ]
}

interface ShownTensor {
  spec: TensorSpec
  bytes: number
  /** in a `.obt` file; what is converted while it is read has no place of its own */
  offset?: number
}

function tensorsOf({ tensors, config, blobs }: ModelHeader): readonly ShownTensor[] {
  return tensors ?? tensorTable(config, blobs).map((spec) => ({ spec, bytes: tensorBytes(spec) }))
}

export const infoCommand: Command = {
  name: 'info',
  summary: 'Show what is in a model file: architecture, kinds, bits per weight, size, where it came from.',
  usage: 'info MODEL [--tensors] [--json]',
  positionals: { min: 1, max: 1 },
  options: {
    tensors: { type: 'boolean', help: 'list every tensor, as it is in memory' },
    json: { type: 'boolean', help: 'print JSON' },
  },
  async run(values, [path]) {
    const header = await readModelHeader(path!)
    const { config, provenance } = header
    const size = modelSize(config, header.blobs, header.fileBytes)
    if (values.json) {
      const words = modelWords(config, size.bitsPerLinearWeight, provenance.name)
      const tensors = tensorsOf(header).map(({ spec, offset, bytes }) => ({ ...spec, offset, bytes }))
      const shown = { path, words, config, size, provenance, ...(values.tensors ? { tensors } : {}) }
      console.log(JSON.stringify(shown, null, 2))
      return 0
    }
    const rows = rowsOf(header, size)
    const width = Math.max(...rows.map(([name]) => name.length))
    for (const [name, text] of rows) console.log(plainLine(`${name.padEnd(width)}  ${text}`))
    if (values.tensors) {
      console.log()
      for (const { spec, offset } of tensorsOf(header)) {
        const place = offset === undefined ? '' : ` at ${offset}`
        console.log(`${spec.name.padEnd(28)} ${spec.dtype.padEnd(4)} [${spec.shape.join(', ')}]${place}`)
      }
    }
    return 0
  },
}
