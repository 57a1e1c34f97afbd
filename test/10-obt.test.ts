/** The `.obt` container: what is accepted, and that nothing else is. */
import { writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Features, WrittenConfig } from '../dist/config/config.js'
import { withDefaults, writtenConfig } from '../dist/config/fields.js'
import { rolesOf, tensorBytes, tensorTable } from '../dist/config/tensors.js'
import { OnebitError } from '../dist/errors.js'
import { readObtHeader } from '../dist/obt/obt.js'
import { MAX_HEADER_BYTES, parseHeader } from '../dist/obt/obt-header.js'
import { Model } from '../dist/run/model.js'
import { bestOf } from './best-of.js'
import { craftFile, craftHeader } from './obt-crafter.js'
import { readBlob } from './read-blob.js'
import { deltaFeatures, KINDS, type KindName, temporaryFolder, tinyConfig, writeTinyModel } from './tiny-model.js'

const LONG = process.env.ONEBIT_LONG === '1'
const folder = temporaryFolder()
afterAll(() => folder.remove())

/** A model whose header is as short as headers get: one layer, one kind. */
function smallConfig(): WrittenConfig {
  const sizes = { vocab_size: 3, dim: 8, hidden_dim: 8, n_heads: 1, n_kv_heads: 1, head_dim: 2 }
  const linears = Object.fromEntries(
    rolesOf({ feed_forward: 'gated' }).map((role) => [role, role === 'wo' ? KINDS.q8 : KINDS.sign]),
  )
  return { ...tinyConfig({ layers: 1 }), ...sizes, linears }
}

describe('a file from our writer', () => {
  const path = folder.path('good.obt')
  beforeAll(() => writeTinyModel(path, { kind: 'chain', embedding: 'f16', tied: false }))

  test('reads back with the table that its config makes', async () => {
    const header = await readObtHeader(path)
    expect(header.tensors.map(({ spec }) => spec)).toEqual(tensorTable(header.config, header.blobs))
    expect(header.headerBytes % 64).toBe(0)
    let at = header.headerBytes
    for (const { spec, offset, bytes } of header.tensors) {
      expect([spec.name, offset, bytes]).toEqual([spec.name, at, tensorBytes(spec)])
      at += bytes
    }
    expect(at).toBe(header.fileBytes)
    expect((await readFile(path)).length).toBe(header.fileBytes)
  })

  test('gives its blobs back, and notices when one is damaged', async () => {
    const header = await readObtHeader(path)
    const blob = await readBlob(header, 'chat_template')
    expect(JSON.parse(Buffer.from(blob!).toString())).toHaveProperty('template')
    const bytes = await readFile(path)
    bytes[bytes.length - 3]! ^= 1
    writeFileSync(folder.path('blob.obt'), bytes)
    const damaged = await readObtHeader(folder.path('blob.obt'))
    await expect(readBlob(damaged, 'chat_template')).rejects.toMatchObject({ code: 'ERR_CHECKSUM' })
  })

  test('is what the crafter of these tests makes of the same data', async () => {
    const header = await readObtHeader(path)
    const whole = await readFile(path)
    const { blobs, headerBytes } = header
    const config = writtenConfig(header.config)
    const provenanceText = JSON.stringify(header.provenance)
    const crafted = craftFile({ config, blobs, provenanceText, data: whole.subarray(headerBytes) })
    expect(crafted.equals(whole)).toBe(true)
  })
})

describe('a damaged header is rejected', () => {
  const good = craftFile({ config: smallConfig() })
  const headerEnd = 8 + Number(good.readBigUInt64LE())

  // Half a million errors are made here; recording where each came from would take most of the time.
  const { stackTraceLimit } = Error
  beforeAll(() => {
    Error.stackTraceLimit = 0
  })
  afterAll(() => {
    Error.stackTraceLimit = stackTraceLimit
  })

  /** As readObtHeader takes a file apart, without a file. Anything but an OnebitError is thrown on. */
  function isAccepted(bytes: Buffer): boolean {
    const length = bytes.length < 9 ? Number.POSITIVE_INFINITY : Number(bytes.readBigUInt64LE())
    if (length > MAX_HEADER_BYTES || 8 + length > bytes.length) return false
    try {
      parseHeader(bytes.subarray(8, 8 + length), bytes.length)
      return true
    } catch (error) {
      if (error instanceof OnebitError) return false
      throw error
    }
  }

  test('the undamaged one is accepted', () => {
    expect(isAccepted(good)).toBe(true)
  })

  test('every byte of it with every other value', { timeout: 600_000 }, () => {
    const bytes = Buffer.from(good)
    const accepted: string[] = []
    for (let at = 0; at < headerEnd; at++) {
      const right = bytes[at]!
      for (let step = 1; step < 256; step++) {
        bytes[at] = right ^ step
        if (isAccepted(bytes)) accepted.push(`byte ${at} = ${right ^ step}`)
      }
      bytes[at] = right
    }
    expect(accepted).toEqual([])
  })

  test('every length of the file but the right one', async () => {
    const longer = Buffer.concat([good, Buffer.alloc(64)])
    const accepted: number[] = []
    for (let length = 0; length <= longer.length; length++) {
      if (isAccepted(longer.subarray(0, length))) accepted.push(length)
    }
    expect(accepted).toEqual([good.length])
    const path = folder.path('cut.obt')
    for (const length of [0, 1, 8, 9, 100, headerEnd - 1, headerEnd, headerEnd + 1, good.length - 1]) {
      writeFileSync(path, good.subarray(0, length))
      await expect(readObtHeader(path), `${length} bytes`).rejects.toMatchObject({ code: 'ERR_TRUNCATED' })
    }
    writeFileSync(path, Buffer.concat([good, Buffer.alloc(1)]))
    await expect(readObtHeader(path)).rejects.toMatchObject({ code: 'ERR_FILE_SIZE' })
  })
})

/** Mutants that know what a header is made of, with right checksums. */
describe('mutants of a header', () => {
  let state = 20240917
  function random(below: number): number {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
  const pick = <T>(from: readonly T[]): T => from[random(from.length)]!

  const NUMBERS = [
    0,
    1,
    -1,
    2,
    3,
    7,
    8,
    16,
    63,
    64,
    100,
    127,
    128,
    256,
    512,
    1024,
    65536,
    65537,
    2 ** 20,
    2 ** 31,
    2 ** 32,
  ]
  const ODD = [2 ** 53, 1e308, 0.5, 1e-5, 1e-40, null, true, false, '', '8', 'sign', 'f32', 'q8', 'half', [], {}, [8]]

  /** Every place in a JSON value that could be changed. */
  function places(value: unknown, path: (string | number)[] = []): (string | number)[][] {
    if (typeof value !== 'object' || value === null) return [path]
    return [path, ...Object.keys(value).flatMap((key) => places((value as never)[key], [...path, key]))]
  }

  function change(root: Record<string, unknown>): void {
    const path = pick(places(root).filter((place) => place.length > 0))
    let parent = root as Record<string | number, unknown>
    for (const key of path.slice(0, -1)) parent = parent[key] as never
    const key = path.at(-1)!
    const kind = random(10)
    if (kind === 0) delete parent[key]
    else if (kind === 1)
      parent[pick(['extra', '__proto__x', 'constructor', '0.wq', '1.w2', '7.wq', 'wq', 'w3', 'window'])] = parent[key]
    else if (kind < 4) parent[key] = structuredClone(pick(ODD))
    else if (kind < 6 && typeof parent[key] === 'number') parent[key] = (parent[key] as number) * pick([2, 0.5, -1, 3])
    else if (kind < 7) parent[key] = structuredClone(pick(Object.values(KINDS)))
    else parent[key] = pick(NUMBERS)
  }

  /** None half of the time, so that today's models stay the most tried. */
  const FEATURES: Partial<Features>[] = [
    ...Array.from({ length: 9 }, () => ({})),
    { norm: 'layer', norm_bias: true },
    { positions: 'learned', position_offset: 2 },
    { rope_dims: 8 },
    { qk_norm: true },
    { attention_inner_norm: true, ffn_inner_norm: true },
    { window: 3 },
    { output_gate: true },
    { feed_forward: 'plain', activation: 'relu' },
    { activation: 'gelu_tanh' },
    deltaFeatures([0]),
    { ...deltaFeatures([1]), delta_head_order: 'tiled' },
  ]

  function mutantConfig(): WrittenConfig {
    const kinds = Object.keys(KINDS) as KindName[]
    const options = { kind: pick(kinds), layers: 1 + random(2), tied: random(2) === 0, features: pick(FEATURES) }
    const config = structuredClone(tinyConfig(options))
    config.vocab_size = 8 + random(300)
    for (const role of rolesOf(withDefaults(config)))
      if (random(4) === 0) config.linears[role] = structuredClone(KINDS[pick(kinds)])
    for (let changes = random(3); changes > 0; changes--) change(config as never)
    return config
  }

  /** A header around the config, in a third of the cases with its entries changed too. */
  function mutant(): { header: Buffer; dataBytes: number } | undefined {
    const config = mutantConfig()
    if (config.n_layers > 32) return undefined // a long header has nothing that a short one has not
    try {
      return craftHeader({
        config,
        ...(random(3) === 0 && {
          entries: (entries) => {
            const entry = pick(entries)
            const kind = random(8)
            if (kind === 0) entries.splice(entries.indexOf(entry), 1)
            else if (kind === 1) entries.push(entry)
            else change(entry as never)
            return entries
          },
        }),
      })
    } catch {
      return undefined // the table cannot even be made: there is no header to give to the reader
    }
  }

  function checkInvariants(header: ReturnType<typeof parseHeader>): void {
    const { config, tensors, fileBytes, headerBytes } = header
    expect(Number.isSafeInteger(fileBytes)).toBe(true)
    expect(config.n_heads % config.n_kv_heads).toBe(0)
    let at = headerBytes
    for (const tensor of tensors) {
      expect(tensor.offset).toBe(at)
      expect(Number.isInteger(tensor.bytes) && tensor.bytes > 0).toBe(true)
      at += tensor.bytes
    }
    expect(at).toBe(fileBytes)
  }

  /** An accepted header must be a model: with zeros for weights it loads and takes one token. */
  async function loadAndStep(header: Buffer, fileBytes: number): Promise<void> {
    const path = folder.path('mutant.obt')
    writeFileSync(path, Buffer.concat([header, Buffer.alloc(fileBytes - header.length)]))
    const model = await Model.load(path)
    try {
      const session = model.createSession({ context: Math.min(4, model.config.context_length) })
      await session.logits([0])
      session.dispose()
    } finally {
      await model.dispose()
    }
  }

  test('give a typed error or a model that runs', { timeout: 2_400_000 }, async () => {
    const most = LONG ? 1_000_000 : 20_000
    const count = { made: 0, accepted: 0, ran: 0 }
    let slowest = 0
    while (count.made < most) {
      const made = mutant()
      if (made === undefined) continue
      count.made++
      let header: ReturnType<typeof parseHeader> | undefined
      const once = async () => {
        const started = performance.now()
        try {
          header = parseHeader(made.header.subarray(8), made.header.length + made.dataBytes)
        } catch (error) {
          if (!(error instanceof OnebitError)) throw error
        }
        return performance.now() - started
      }
      // The slowest of all takes some milliseconds, 78 on a machine with ten other busy programs.
      slowest = Math.max(slowest, await bestOf({ limit: 100, most: 5000 }, once))
      if (header === undefined) continue
      count.accepted++
      checkInvariants(header)
      if (header.fileBytes > 4e6 || count.accepted % 8 !== 0) continue
      await loadAndStep(made.header, header.fileBytes)
      count.ran++
    }
    console.log(
      `mutants: ${count.made}, accepted ${count.accepted}, ran ${count.ran}, slowest ${slowest.toFixed(1)} ms`,
    )
    expect(count.ran).toBeGreaterThan(50)
    expect(slowest).toBeLessThan(100)
  })
})
