/** Which measurements a command line asks for: lists and ranges as llama-bench reads them, and their combinations. */
import { badOption, OptionError } from '../errors.js'
import type { KvType } from '../run/session.js'

/** One line of the table: what is computed and timed. Keys that llama-bench has carry its names. */
export interface BenchTest {
  /** tokens of each prompt; 0: none */
  n_prompt: number
  /** tokens decoded one by one after it; 0: none */
  n_gen: number
  /** tokens in the cache before the clock starts */
  n_depth: number
  /** tokens given to one call */
  n_batch: number
  /** tokens computed in one pass over the weights; 0: as many as take about 100 ms */
  n_ubatch: number
  /** sessions that go through each step together */
  n_parallel: number
  kv: KvType
}

/** The native step takes at most so many tokens at once (binding/run/step.h). */
export const MOST_UBATCH = 256

/**
 * "512", "512,1024", "1-4", "64-256+64", "1-8*2", or any of these joined by commas, as in llama-bench.
 * @throws OnebitError ERR_BAD_OPTION
 */
export function parseIntegers(option: string, text: string, min: number, max: number): number[] {
  const values = text.split(',').flatMap((part) => {
    const match = /^(\d+)(?:-(\d+)(?:([+*])(\d+))?)?$/.exec(part.trim())
    if (!match) throw badList(option, part)
    const [, first, last = first, operator = '+', by = '1'] = match
    return range(option, part, Number(first), Number(last), operator, Number(by))
  })
  const wrong = values.find((value) => !(value >= min && value <= max))
  if (wrong !== undefined) throw badOption(option, `${wrong} is not from ${min} to ${max}.`)
  return values
}

function badList(option: string, part: string): OptionError {
  return new OptionError(option, `${JSON.stringify(part)} is not a whole number or a range.`, {
    hint: 'Write 512, or 512,1024, or 1-4, or 64-256+64, or 1-8*2.',
  })
}

function range(option: string, part: string, first: number, last: number, operator: string, by: number): number[] {
  const grows = operator === '+' ? by > 0 : by > 1 && first > 0
  if (!grows || last < first || (last - first) / (operator === '+' ? by : 1) > 10_000) throw badList(option, part)
  const values: number[] = []
  for (let value = first; value <= last; value = operator === '+' ? value + by : value * by) values.push(value)
  return values
}

/** "512,128" -> [512, 128]; ERR_BAD_OPTION */
export function parsePair(option: string, text: string): [number, number] {
  const match = /^(\d{1,7}),(\d{1,7})$/.exec(text.trim())
  if (match) return [Number(match[1]), Number(match[2])]
  throw badOption(option, `${JSON.stringify(text)} is not a pair such as 512,128.`)
}

export interface MatrixAxes {
  prompts: number[]
  gens: number[]
  pairs: [number, number][]
  depths: number[]
  batches: number[]
  ubatches: number[]
  parallels: number[]
  kvs: KvType[]
}

/** All combinations, prompts first, then generations, then both in a row; those that compute nothing are left out. */
export function testMatrix(axes: MatrixAxes): BenchTest[] {
  const work: [number, number][] = [
    ...axes.prompts.map((n): [number, number] => [n, 0]),
    ...axes.gens.map((n): [number, number] => [0, n]),
    ...axes.pairs,
  ]
  const tests: BenchTest[] = []
  for (const n_batch of axes.batches)
    for (const n_ubatch of axes.ubatches)
      for (const kv of axes.kvs)
        for (const n_parallel of axes.parallels)
          for (const n_depth of axes.depths)
            for (const [n_prompt, n_gen] of work)
              if (n_prompt + n_gen > 0) tests.push({ n_prompt, n_gen, n_depth, n_batch, n_ubatch, n_parallel, kv })
  return tests
}

/** "pp512", "tg128", "pp512+tg128", with " @ d1024" and " x8" (sessions) where they apply. */
export function testName(test: Pick<BenchTest, 'n_prompt' | 'n_gen' | 'n_depth' | 'n_parallel'>): string {
  const parts = [...(test.n_prompt > 0 ? [`pp${test.n_prompt}`] : []), ...(test.n_gen > 0 ? [`tg${test.n_gen}`] : [])]
  const depth = test.n_depth > 0 ? ` @ d${test.n_depth}` : ''
  const sessions = test.n_parallel > 1 ? ` x${test.n_parallel}` : ''
  return parts.join('+') + sessions + depth
}

/** The same with what is seldom varied: "pp512, 64 a pass, int8 cache". */
export function fullTestName(test: Omit<BenchTest, 'n_batch'>): string {
  const pass = test.n_ubatch > 0 ? `, ${test.n_ubatch} a pass` : ''
  return testName(test) + pass + (test.kv === 'f16' ? '' : `, ${test.kv} cache`)
}
