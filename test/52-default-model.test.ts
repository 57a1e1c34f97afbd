/** The model that comes with the package: it is there, tells stories, and loses next to nothing to int8 activations. */
import { spawnSync } from 'node:child_process'
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { perplexity } from '../dist/eval/perplexity.js'
import { defaultModelPath, Model } from '../dist/index.js'
import { dataFile, missing, PROJECT } from './data.js'

const VALIDATION = 'text/tinystories-val-0.8MB.txt'

function onebitRun(args: string[], input = '') {
  const argv = [join(PROJECT, 'dist', 'cli', 'onebit-run.js'), ...args]
  return spawnSync(process.execPath, argv, { encoding: 'utf8', input })
}

describe('onebit-run without a model', () => {
  it('tells a story that begins as asked, the same with the same seed', () => {
    const args = ['-p', 'Once upon a time, there was a little', '-n', '40', '--seed', '7']
    const first = onebitRun(args)
    expect(first.status).toBe(0)
    expect(first.stdout.trim().split(/\s+/).length).toBeGreaterThan(15)
    expect(first.stdout).toMatch(/^[\s\w.,!?'"“”’-]+$/)
    expect(first.stderr).toContain('No model was given')
    expect(onebitRun(args).stdout).toBe(first.stdout)
  })

  it('takes its prompt from standard input and says nothing else with -q', () => {
    const { status, stdout, stderr } = onebitRun(['-n', '8', '-q'], 'Lily and Tom went to the park.')
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(stdout).not.toBe('')
  })
})

describe('the model itself', () => {
  let exact: Model
  let rounded: Model
  beforeAll(async () => {
    exact = await Model.load(defaultModelPath(), { activations: 'f32', kv: 'f32' })
    rounded = await Model.load(defaultModelPath())
  })
  afterAll(async () => {
    await exact.dispose()
    await rounded.dispose()
  })

  it('has one bit per linear weight, says where it came from, and takes a few megabytes', () => {
    expect(statSync(defaultModelPath()).size).toBeLessThan(8e6)
    expect(Object.values(rounded.config.linears).every((linear) => linear.kind === 'sign' && linear.rank === 0)).toBe(
      true,
    )
    expect(rounded.provenance.trained).not.toBe(false)
  })

  const loss = async (ids: Int32Array) => {
    const options = { ctx: 512, chunks: 20 }
    const floats = await perplexity(exact, ids, options)
    const integers = await perplexity(rounded, ids, options)
    console.log(`perplexity ${floats.perplexity.toFixed(4)} in floats, ${integers.perplexity.toFixed(4)} in int8`)
    return { floats: floats.perplexity, ratio: integers.perplexity / floats.perplexity }
  }

  it('loses at most 0.5 % of perplexity to int8 activations on stories that it tells', async () => {
    const ids: number[] = []
    for (const seed of [1, 2, 3, 4, 5, 6]) {
      const prompt = await exact.encode('')
      const told = await exact.createSession().complete(prompt, { maxTokens: 400, temperature: 1, seed })
      ids.push(...prompt, ...told.ids)
    }
    expect(ids.length).toBeGreaterThan(512)
    const { floats, ratio } = await loss(Int32Array.from(ids))
    expect(floats).toBeLessThan(6)
    expect(ratio).toBeLessThan(1.005)
  })

  it.skipIf(missing(VALIDATION))('loses at most 0.5 % on stories of the validation text', async () => {
    const ids = await rounded.encode(readFileSync(dataFile(VALIDATION), 'utf8').slice(0, 60_000))
    const { floats, ratio } = await loss(ids)
    expect(floats).toBeLessThan(14)
    expect(ratio).toBeLessThan(1.005)
  })
})
