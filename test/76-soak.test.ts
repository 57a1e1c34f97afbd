/** The runners that need time, for seconds: that they work and can fail, not how fast anything is. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { PROJECT } from './data.js'

function node(script: string, ...args: string[]) {
  return spawnSync(process.execPath, [join(PROJECT, script), ...args], { encoding: 'utf8', timeout: 250_000 })
}

describe('scripts/soak.mjs', () => {
  it('lets clients loose on a server and counts what holds', () => {
    const { status, stdout, stderr } = node('scripts/soak.mjs', '--minutes', '0.05', '--numbers', '8', '--verbose')
    expect(stderr).not.toContain('FAILED')
    expect(status).toBe(0)
    const [, passed, failed] = /^(\d+) passed, (\d+) failed, \d+ skipped\n$/m.exec(stdout)!
    expect(Number(passed)).toBeGreaterThanOrEqual(7)
    expect(failed).toBe('0')
    expect(Number(/complete: (\d+)/.exec(stdout)![1])).toBeGreaterThan(0)
  })
})

describe('npm run bench:serve', () => {
  it('measures one client, several, and a long prompt among them', () => {
    const sizes = [
      '--streams',
      '2',
      '--beside',
      '2',
      '--prompt',
      '8',
      '--tokens',
      '24',
      '--long',
      '100',
      '--rounds',
      '1',
    ]
    const { status, stdout, stderr } = node('bench/serve.mjs', ...sizes, '--json')
    expect(stderr).toBe('')
    expect(status).toBe(0)
    const report = JSON.parse(stdout)
    for (const name of ['one_tokens_per_s', 'all_tokens_per_s', 'gain']) expect(report[name]).toBeGreaterThan(0)
    expect(report.all.p99_by_p50).toBeGreaterThanOrEqual(1)
    expect(report.api.whole_ms).toBeGreaterThan(report.api.between_tokens_ms)
    expect(report.long.longest_gap_ms).toBeGreaterThanOrEqual(0)
    expect(report.long.prompt).toBe(100)
    const table = node('bench/serve.mjs', ...sizes)
    expect(table.stdout).toMatch(/^\| 2 \| [\d.]+ \| [\d.]+ \| [\d.]+ \| [\d.]+ \| [\d.]+ \|$/m)
    expect(table.stdout).toMatch(/longest gap: [\d.]+ ms/)
  })
})
