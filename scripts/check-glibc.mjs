// The newest glibc that the addon needs: a binary built here must still load on the distributions people have.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './native-tests.mjs'
import { Tally } from './tally.mjs'

// Ubuntu 22.04 has 2.35. A build on an older distribution needs less; nothing of ours asks for more than this.
const FLOOR = '2.35'
const ADDON = join(ROOT, 'build', 'Release', 'onebit.node')

const tally = new Tally()
const number = (version) => version.split('.').reduce((sum, part) => sum * 1000 + Number(part), 0)

function neededVersions() {
  const { status, stdout } = spawnSync('objdump', ['-T', ADDON], { encoding: 'utf8' })
  if (status !== 0) return undefined
  return [...stdout.matchAll(/GLIBC_(\d+\.\d+)[^\s]*\)?\s+(\S+)/g)].map(([, version, symbol]) => ({ version, symbol }))
}

if (process.platform !== 'linux') tally.skip('glibc versions: not Linux')
else if (!existsSync(ADDON)) tally.fail(`${ADDON} is not built`)
else {
  const needed = neededVersions()
  if (needed === undefined) tally.skip('glibc versions: objdump is not installed')
  else if (needed.length === 0) tally.skip('glibc versions: this system has another C library')
  else {
    const tooNew = needed.filter(({ version }) => number(version) > number(FLOOR))
    const newest = needed.reduce((most, { version }) => (number(version) > number(most) ? version : most), '0.0')
    console.log(`the addon needs glibc ${newest}; the floor is ${FLOOR}`)
    if (tooNew.length === 0) tally.passed++
    else
      tally.fail(`newer than glibc ${FLOOR}: ${tooNew.map(({ symbol, version }) => `${symbol} ${version}`).join(', ')}`)
  }
}
tally.finish()
