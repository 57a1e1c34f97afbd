import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // The addon holds threads and memory: a process a file, so that no test lives in another's remains.
    pool: 'forks',
    maxWorkers: 2,
    // Only for what hangs: a test may convert a 135M model or run it under a sanitizer, on a machine that does much else.
    testTimeout: 300_000,
    hookTimeout: 300_000,
    teardownTimeout: 10_000,
  },
})
