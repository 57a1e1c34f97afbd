/** SVID against a full singular value decomposition, and the signs against their definition. */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { expect, test } from 'vitest'
import { addon } from '../dist/native/addon.js'
import { bestOf } from './best-of.js'
import { SeededRandom } from './gguf-writer.js'

const random = new SeededRandom(1402)

interface Matrix {
  name: string
  rows: number
  cols: number
  w: Float32Array
}

function matrix(name: string, rows: number, cols: number, at: (row: number, col: number) => number): Matrix {
  return {
    name,
    rows,
    cols,
    w: Float32Array.from({ length: rows * cols }, (_, i) => at(Math.floor(i / cols), i % cols)),
  }
}

/** About normal: a sum of four uniform numbers. */
function normal(): number {
  return random.uniform(-1, 1) + random.uniform(-1, 1) + random.uniform(-1, 1) + random.uniform(-1, 1)
}

/** The largest eigenvalue of a symmetric matrix by Jacobi's rotations: slow, sure, and nothing like ours. */
function largestEigenvalue(a: Float64Array[], size: number): number {
  for (let sweep = 0; sweep < 30; sweep++) {
    let off = 0
    for (let p = 0; p < size; p++) {
      for (let q = p + 1; q < size; q++) {
        const apq = a[p]![q]!
        off += apq * apq
        if (apq === 0) continue
        const theta = (a[q]![q]! - a[p]![p]!) / (2 * apq)
        const t = (theta >= 0 ? 1 : -1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1))
        const c = 1 / Math.sqrt(t * t + 1)
        const s = t * c
        for (let k = 0; k < size; k++) {
          const [akp, akq] = [a[k]![p]!, a[k]![q]!]
          a[k]![p] = c * akp - s * akq
          a[k]![q] = s * akp + c * akq
        }
        for (let k = 0; k < size; k++) {
          const [apk, aqk] = [a[p]![k]!, a[q]![k]!]
          a[p]![k] = c * apk - s * aqk
          a[q]![k] = s * apk + c * aqk
        }
      }
    }
    if (off < 1e-28 * a.reduce((sum, row, i) => sum + row[i]! * row[i]!, 0)) break
  }
  return Math.max(...a.map((row, i) => row[i]!))
}

/** The relative error of the best rank-1 approximation of |W|, by the singular values of |W|. */
function bestError({ rows, cols, w }: Matrix): number {
  const small = Math.min(rows, cols)
  const gram = Array.from({ length: small }, () => new Float64Array(small))
  const at = (i: number, k: number) => Math.abs(rows <= cols ? w[i * cols + k]! : w[k * cols + i]!)
  let total = 0
  for (const value of w) total += value * value
  for (let i = 0; i < small; i++) {
    for (let j = 0; j < small; j++) for (let k = 0; k < Math.max(rows, cols); k++) gram[i]![j]! += at(i, k) * at(j, k)
  }
  return total === 0 ? 0 : Math.sqrt(Math.max(0, 1 - largestEigenvalue(gram, small) / total))
}

function errorOf({ rows, cols, w }: Matrix, g: Float32Array, h: Float32Array): number {
  let [gap, total] = [0, 0]
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const value = Math.abs(w[r * cols + c]!)
      gap += (value - h[r]! * g[c]!) ** 2
      total += value ** 2
    }
  }
  return total === 0 ? 0 : Math.sqrt(gap / total)
}

function hundredMatrices(): Matrix[] {
  const sizes = [8, 16, 24, 40]
  const size = () => sizes[random.integer(4)]!
  const all = [
    matrix('zeros', 8, 16, () => 0),
    matrix('constant', 16, 24, () => -0.37),
    matrix('one row', 1, 40, normal),
    matrix('one column of eight in use', 24, 8, (_, c) => (c === 3 ? normal() : 0)),
    matrix('one entry', 8, 8, (r, c) => (r === 5 && c === 2 ? -3 : 0)),
    matrix('zero rows', 24, 16, (r) => (r % 3 === 0 ? 0 : normal())),
    matrix('zero columns', 24, 16, (_, c) => (c % 3 === 0 ? 0 : normal())),
    matrix('tiny numbers', 16, 16, () => normal() * 1e-30),
    matrix('denormal numbers', 16, 16, () => normal() * 1e-41),
    matrix('huge numbers', 16, 16, () => normal() * 1e30),
    matrix('two equal singular values', 16, 16, (r, c) => (Math.floor(r / 8) === Math.floor(c / 8) ? 1 : 0)),
    matrix('rank one', 24, 40, (r, c) => (r + 1) * (c + 1) * (r % 2 === 0 ? 1 : -1)),
  ]
  while (all.length < 60) all.push(matrix(`normal ${all.length}`, 1 + random.integer(40), size(), normal))
  while (all.length < 100) {
    const [rowScale, colScale] = [24, 40].map((n) => Array.from({ length: n }, () => Math.exp(2 * normal())))
    all.push(matrix(`scaled ${all.length}`, 24, 40, (r, c) => normal() * rowScale![r]! * colScale![c]!))
  }
  return all
}

const MATRICES = hundredMatrices()

test('as good as a full SVD on 100 matrices, by either method and any split', async () => {
  expect(MATRICES).toHaveLength(100)
  for (const m of MATRICES) {
    const best = bestError(m)
    for (const options of [
      { method: 'svd' },
      { method: 'svd', split: 0 },
      { method: 'svd', split: 0.8 },
      { method: 'nmf' },
    ] as const) {
      const { g, h, relativeError } = await addon().svid(m.w, m.rows, m.cols, options)
      const name = `${m.name} ${JSON.stringify(options)}`
      // As f32, g and h of denormal size have few digits left.
      const slack = m.name === 'denormal numbers' ? 1e-3 : 1e-5
      expect(errorOf(m, g, h), name).toBeLessThanOrEqual(best + slack)
      expect(Math.abs(relativeError - errorOf(m, g, h)), name).toBeLessThan(1e-6)
      expect(
        [...g, ...h].every((value) => value >= 0 && Number.isFinite(value)),
        name,
      ).toBe(true)
    }
  }
})

/**
 * numpy 2.4.6, after scikit-learn's solver for one component: |numpy.random.RandomState(0).standard_normal(8)| times the root
 * of the mean, one round of updates of a matrix that has rank one already, so that the random start alone says how large g is.
 */
test('nmf starts from the random numbers that the official script starts from', async () => {
  const normal = [
    1.764052345967664, 0.4001572083672233, 0.9787379841057392, 2.240893199201458, 1.8675579901499675, 0.977277879876411,
    0.9500884175255894, 0.1513572082976979,
  ]
  const { g, h } = await addon().svid(onesExcept(), 8, 8, { method: 'nmf' })
  // h = sum(g) / |g|^2 everywhere, and g = 1 / h: of what was drawn only these two sums are left.
  const [sum, squares] = [0, 1].map((power) => normal.reduce((all, value) => all + value * value ** power, 0))
  for (const value of h) expect(Math.abs(value / (sum! / squares!) - 1)).toBeLessThan(1e-6)
  for (const value of g) expect(Math.abs(value / (squares! / sum!) - 1)).toBeLessThan(1e-6)
})

test('split says how much of the scale goes into h', async () => {
  const m = MATRICES[20]!
  const norm = (x: Float32Array) => Math.sqrt(x.reduce((sum, value) => sum + value * value, 0))
  const even = await addon().svid(m.w, m.rows, m.cols, { method: 'svd' })
  const sigma = norm(even.g) * norm(even.h)
  expect(norm(even.g) / norm(even.h)).toBeCloseTo(1, 5)
  for (const split of [0, 0.25, 1]) {
    const { g, h } = await addon().svid(m.w, m.rows, m.cols, { method: 'nmf', split })
    expect(norm(h) / sigma ** split).toBeCloseTo(1, 4)
    expect(norm(g) / sigma ** (1 - split)).toBeCloseTo(1, 4)
  }
})

test('signs: least significant bit first, 1 is negative, both zeros are positive', async () => {
  const w = Float32Array.from({ length: 3 * 16 }, () => [0, -0, 1, -1, 1e-45, -1e-45][random.integer(6)]!)
  const { sign } = await addon().svid(w, 3, 16, { method: 'svd' })
  expect(sign).toEqual(addon().packSigns(w, 3, 16))
  w.forEach((value, i) => {
    expect((sign[i >> 3]! >> (i & 7)) & 1, `element ${i} = ${value}`).toBe(value < 0 ? 1 : 0)
  })
})

test('the same bytes every time, also for a matrix that all threads share', async () => {
  const m = matrix('large', 600, 512, normal)
  const first = await addon().svid(m.w, m.rows, m.cols, { method: 'svd' })
  for (let run = 0; run < 5; run++) expect(await addon().svid(m.w, m.rows, m.cols, { method: 'svd' })).toEqual(first)
  expect(first.relativeError).toBeGreaterThan(0.3)
})

test('a worker thread that factorises can be ended in the middle of it, at once', async () => {
  // Two singular values that are nearly equal: some 200 rounds, 6 seconds on two cores, unless it is stopped.
  const code = `
    import { parentPort } from 'node:worker_threads'
    import { addon } from ${JSON.stringify(new URL('../dist/native/addon.js', import.meta.url).href)}
    const [size, half] = [8192, 4096]
    const w = new Float32Array(size * size)
    for (let row = 0; row < size; row++) {
      const from = row * size + (row < half ? 0 : half)
      w.fill(row < half ? 1 : 0.999, from, from + half)
    }
    setTimeout(() => parentPort.postMessage('in the middle'), 10)
    for (;;) await addon().svid(w, size, size, { method: 'svd' })
  `
  // Alone it takes 20 ms to end it: a row's worth of work, and the return of 500 MB.
  const best = await bestOf({ limit: 200, most: 3000, times: 3 }, async () => {
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`))
    await once(worker, 'message')
    const from = performance.now()
    expect(await worker.terminate()).toBe(1)
    return performance.now() - from
  })
  expect(best).toBeLessThan(200)
})

/** A matrix of 8 x 8 ones in which some entries are something else. */
function onesExcept(...others: [at: number, value: number][]): Float32Array {
  const w = new Float32Array(64).fill(1)
  for (const [at, value] of others) w[at] = value
  return w
}

test.each([
  ['a NaN', onesExcept([17, Number.NaN])],
  ['a NaN in the first place', onesExcept([0, Number.NaN])],
  ['a NaN in the last place', onesExcept([63, Number.NaN])],
  ['an infinity', onesExcept([17, Number.POSITIVE_INFINITY])],
  ['a negative infinity', onesExcept([17, Number.NEGATIVE_INFINITY])],
  ['two infinities that cancel', onesExcept([3, Number.POSITIVE_INFINITY], [4, Number.NEGATIVE_INFINITY])],
])('a matrix with %s is an error, by either method', async (_, w) => {
  for (const method of ['svd', 'nmf'] as const) {
    await expect(addon().svid(w, 8, 8, { method })).rejects.toMatchObject({ code: 'ERR_NOT_FINITE' })
  }
  // And the next one is none the worse for it.
  await expect(addon().svid(onesExcept(), 8, 8, { method: 'svd' })).resolves.toMatchObject({ sign: new Uint8Array(8) })
})

const SVD = { method: 'svd' }

test.each<[string, unknown[], RegExp]>([
  [
    'an array shorter than rows x cols',
    [new Float32Array(64), 8, 16, SVD],
    /w: must be a Float32Array of 128 elements/,
  ],
  ['an array longer than rows x cols', [new Float32Array(64), 4, 8, SVD], /w: must be a Float32Array of 32 elements/],
  ['an empty array', [new Float32Array(0), 8, 8, SVD], /w: must be a Float32Array of 64 elements/],
  ['float64', [new Float64Array(64), 8, 8, SVD], /w: must be a Float32Array/],
  ['bytes', [new Uint8Array(64), 8, 8, SVD], /w: must be a Float32Array/],
  ['a plain array', [Array(64).fill(0), 8, 8, SVD], /w: must be a Float32Array/],
  ['a DataView', [new DataView(new ArrayBuffer(256)), 8, 8, SVD], /w: must be a Float32Array/],
  ['no array', [undefined, 8, 8, SVD], /w: must be a Float32Array/],
  ['columns that are no multiple of 8', [new Float32Array(64), 16, 4, SVD], /cols: must be a multiple of 8/],
  ['more columns than whole bytes of signs', [new Float32Array(9), 1, 9, SVD], /cols: must be a multiple of 8/],
  ['no rows', [new Float32Array(0), 0, 8, SVD], /rows is 0, not within/],
  ['no columns', [new Float32Array(0), 8, 0, SVD], /cols is 0, not within/],
  ['a negative number of rows', [new Float32Array(64), -8, 8, SVD], /rows is -8, not within/],
  ['more rows than any matrix has', [new Float32Array(64), 2 ** 20 + 1, 8, SVD], /rows is 1048577, not within/],
  ['more columns than any matrix has', [new Float32Array(64), 8, 2 ** 32 + 8, SVD], /cols is 4294967304, not within/],
  ['half a row', [new Float32Array(64), 8.5, 8, SVD], /rows is 8\.5, not an integer/],
  ['NaN rows', [new Float32Array(64), Number.NaN, 8, SVD], /rows is nan, not within/i],
  ['rows as text', [new Float32Array(64), '8', 8, SVD], /rows must be a number/],
  ['columns as a bigint', [new Float32Array(64), 8, 8n, SVD], /cols must be a number/],
  ['no options', [new Float32Array(64), 8, 8], /options must be an object/],
  ['options that are null', [new Float32Array(64), 8, 8, null], /options must be an object/],
  ['no method', [new Float32Array(64), 8, 8, {}], /method must be a string/],
  ['an unknown method', [new Float32Array(64), 8, 8, { method: 'qr' }], /method: must be svd or nmf/],
  ['a method in other letters', [new Float32Array(64), 8, 8, { method: 'SVD' }], /method: must be svd or nmf/],
  [
    'a method of a thousand letters',
    [new Float32Array(64), 8, 8, { method: 's'.repeat(1000) }],
    /method is longer than/,
  ],
  ['a split above 1', [new Float32Array(64), 8, 8, { ...SVD, split: 2 }], /split is 2, not within 0 to 1/],
  ['a split below 0', [new Float32Array(64), 8, 8, { ...SVD, split: -0.1 }], /split is -0\.1, not within 0 to 1/],
  [
    'a split that is NaN',
    [new Float32Array(64), 8, 8, { ...SVD, split: Number.NaN }],
    /split is nan, not within 0 to 1/i,
  ],
  ['a split as text', [new Float32Array(64), 8, 8, { ...SVD, split: '0.5' }], /split must be a number/],
  ['a split that is null', [new Float32Array(64), 8, 8, { ...SVD, split: null }], /split must be a number/],
])('%s is refused before anything is computed', (_, call, message) => {
  const svid = addon().svid as (...values: unknown[]) => unknown
  expect(() => svid(...call)).toThrow(
    expect.objectContaining({ code: 'ERR_BAD_ARGUMENT', message: expect.stringMatching(message) }),
  )
})

test('an array whose memory was given away is refused', () => {
  const w = new Float32Array(64)
  structuredClone(w.buffer, { transfer: [w.buffer] })
  expect(() => addon().svid(w, 8, 8, { method: 'svd' })).toThrow(expect.objectContaining({ code: 'ERR_BAD_ARGUMENT' }))
})

test('what is computed is the matrix as it was when it was asked for', async () => {
  const w = MATRICES[20]!.w.slice()
  const { rows, cols } = MATRICES[20]!
  const expected = await addon().svid(w, rows, cols, { method: 'svd' })
  const asked = addon().svid(w, rows, cols, { method: 'svd' })
  w.fill(Number.NaN)
  expect(await asked).toEqual(expected)
})
