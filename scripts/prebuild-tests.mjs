// The addons as users get them: node scripts/prebuild-tests.mjs [--build | --prepare] [SYSTEM[=SET,...] ...]. Packs the package,
// installs the tarball in an empty project without running any script, and compares in every runtime at hand the logits of the
// built-in model on every path of this machine, and a text, with those of this clone's own build. --build compiles the systems
// named first, and, where this machine can run them, the test programs that print hashes of whole models' logits, to compare
// compilers with each other; SYSTEM=avx2 leaves out all sets but scalar and those named, which saves minutes and is not for
// publishing. --prepare only fetches and makes what the others will need of the network, and of one processor for minutes.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { checkAddon } from './check-addon.mjs'
import { buildTestPrograms, present, ROOT, runTestProgram } from './native-tests.mjs'
import { pack } from './package.mjs'
import {
  buildFolder,
  compile,
  configure,
  findZig,
  prebuild,
  prebuiltPath,
  TARGETS,
  writeLicences,
} from './prebuilds.mjs'
import { QEMU, RUNTIMES, wineEnvironment } from './runtimes.mjs'
import { Tally } from './tally.mjs'
import { difference, makeConsumer, PROBE, readAnswer } from './try-package.mjs'

const tally = new Tally()
const HASHING = ['forward_test', 'random_model_test'] // those that print `logits-hash NAME HEX`

/** The package, packed and installed. @returns the folder of a project that has it */
function packAndInstall() {
  const folder = mkdtempSync(join(tmpdir(), 'onebit-package-'))
  try {
    const { filename, size, unpackedSize } = pack(folder)
    console.log(`${filename}: ${(size / 1e6).toFixed(1)} MB packed, ${(unpackedSize / 1e6).toFixed(1)} MB unpacked`)
    if (size <= 10e6 && unpackedSize <= 25e6) tally.passed++
    else tally.fail('the package is larger than 10 MB packed or 25 MB unpacked')
    return makeConsumer(join(folder, filename))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** What this clone's own build computes. */
function reference(folder) {
  const env = { ...process.env, ONEBIT_ADDON: join(ROOT, 'build', 'Release', 'onebit.node') }
  const said = readAnswer(spawnSync(process.execPath, [PROBE], { cwd: folder, env, encoding: 'utf8' }))
  if (said.failure) throw new Error(`this clone's own build: ${said.failure}`)
  return said
}

function compare(what, expected, found) {
  const problem = difference(expected, found)
  if (problem !== undefined) return tally.fail(`${what}: ${problem}`)
  tally.passed++
  console.log(
    `${what}: the same logits on ${Object.keys(found.logits).join(', ')}, and the same text (${found.compiler})`,
  )
}

/** The addon's file by what it says of itself; and that the check would see another system's, or a damaged signature. */
function checkFile(target) {
  const path = prebuiltPath(target)
  const problems = checkAddon(path, target)
  if (problems.length === 0) tally.passed++
  for (const problem of problems) tally.fail(`${target}: ${problem}`)
  const blind = Object.keys(TARGETS).filter((other) => other !== target && checkAddon(path, other).length === 0)
  if (blind.length === 0) tally.passed++
  else tally.fail(`${target}: passes for ${blind.join(', ')} too`)
  if (target !== 'darwin-arm64') return
  const folder = mkdtempSync(join(tmpdir(), 'onebit-signature-'))
  const bytes = readFileSync(path)
  bytes[bytes.length >> 1] ^= 1
  writeFileSync(join(folder, 'damaged.node'), bytes)
  if (checkAddon(join(folder, 'damaged.node'), target).join().includes('signature')) tally.passed++
  else tally.fail(`${target}: a changed byte leaves the signature right`)
  rmSync(folder, { recursive: true })
}

function tryEverywhere(folder, targets) {
  const expected = reference(folder)
  for (const target of targets) {
    checkFile(target)
    if (!(target in RUNTIMES)) tally.skip(`${target}: nothing here can run it; only its file was checked`)
    for (const { name, open } of RUNTIMES[target] ?? []) {
      let run
      try {
        run = open()
      } catch (error) {
        tally.skip(`${target} in ${name}: ${error.message}`)
        continue
      }
      compare(`${target} in ${name}`, expected, readAnswer(run(folder, [PROBE])))
    }
  }
}

/** Kernel objects of another compiler, by scripts/check-objects.mjs. */
function checkObjects(target) {
  // What Apple's processors all have is no set of its own there; and binutils does not read Mach-O everywhere.
  if (target.startsWith('darwin') || target === 'win32-arm64') return
  const cross = target.includes('-arm64') ? 'aarch64-linux-gnu-' : ''
  const [nm, objdump] = [`${cross}nm`, `${cross}objdump`]
  if (!present(objdump)) return tally.skip(`objects of ${target}: ${objdump} is not installed`)
  const argv = ['scripts/check-objects.mjs', buildFolder(target)]
  const env = { ...process.env, NM: nm, OBJDUMP: objdump }
  const { status, stderr } = spawnSync(process.execPath, argv, { cwd: ROOT, encoding: 'utf8', env })
  if (status === 0) tally.passed++
  else tally.fail(`objects of ${target}: ${stderr}`)
}

/**
 * How programs made for a system run here: { prefix, env, suffix }, or undefined for a system that nothing here can run.
 * @throws Error when what it takes is not installed
 */
function launcher(target) {
  const env = process.env
  if (target.startsWith('linux-x64')) return { prefix: [], env, suffix: '' }
  if (target.startsWith('linux-arm64')) {
    if (!present(QEMU[0])) throw new Error(`${QEMU[0]} is not installed`)
    return { prefix: QEMU, env, suffix: '' }
  }
  if (target === 'win32-x64') return { prefix: ['wine'], env: wineEnvironment(), suffix: '.exe' }
  return undefined
}

/** { "PROGRAM NAME": hash } from the lines `logits-hash NAME HEX`. */
async function logitsHashes(folder, { prefix, env: inherited, suffix }) {
  const found = new Map()
  const env = { ...inherited, ONEBIT_VARIANTS: 'few', ONEBIT_CASES: '200' }
  for (const program of HASHING) {
    const file = `${program}${suffix}`
    const { output, status } = await runTestProgram(folder, file, { prefix, env })
    if (status !== 0) tally.fail(`${folder}/${file}: status ${status}: ${output.slice(-500)}`)
    for (const [, name, hash] of output.matchAll(/^logits-hash (\S+) ([0-9a-f]+)\s*$/gm))
      found.set(`${program} ${name}`, hash)
  }
  return found
}

/**
 * The logits of whole small models by GCC here, and by Zig's clang for whatever this machine can run. Of two systems with the same
 * processor and the same rules of calling only one is asked: another C library does no arithmetic.
 */
async function compareCompilers(zig, targets, sets) {
  for (const program of HASHING) buildTestPrograms('build', [], program)
  const expected = await logitsHashes('build', launcher('linux-x64-glibc'))
  if (expected.size < 8) tally.fail(`only ${expected.size} hashes of logits were printed`)
  for (const target of targets) {
    if (target.endsWith('-musl') && targets.includes(target.replace('musl', 'glibc'))) continue
    let way
    try {
      way = launcher(target)
    } catch (error) {
      tally.skip(`logits of whole models on ${target}: ${error.message}`)
      continue
    }
    if (way === undefined) continue // said by tryEverywhere
    compile(zig, target, HASHING, sets.get(target))
    const found = await logitsHashes(buildFolder(target), way)
    for (const [name, hash] of expected)
      if (found.get(name) === hash) tally.passed++
      else tally.fail(`logits of ${name}: ${found.get(name) ?? 'none'} on ${target}, ${hash} here`)
    console.log(`${target}: ${found.size} hashes of logits compared with ${expected.size}`)
  }
}

/** Zig with its libraries for each system, and what the addons will be tried in. */
function prepare(targets) {
  const zig = findZig()
  for (const target of targets) {
    configure(zig, target)
    for (const { name, open } of RUNTIMES[target] ?? []) {
      try {
        open()
      } catch (error) {
        console.error(`${name}: ${error.message}`) // said again, and counted, where it is to be used
      }
    }
  }
}

/** "win32-x64=avx2,avx512" as ['win32-x64', ['avx2', 'avx512']]. */
function namedSets(word) {
  const [target, sets] = word.split('=')
  return [target, sets?.split(',')]
}

async function main(words) {
  const builds = words.includes('--build')
  const sets = new Map(words.filter((word) => !word.startsWith('--')).map(namedSets))
  const named = [...sets.keys()]
  const all = Object.keys(TARGETS)
  const unknown = named.filter((name) => !all.includes(name))
  if (unknown.length > 0) return tally.fail(`there is no ${unknown.join(', ')}; there are ${all.join(', ')}`)
  if (words.includes('--prepare')) return prepare(named.length > 0 ? named : all)
  if (builds) {
    let zig
    try {
      zig = findZig()
    } catch (error) {
      return tally.skip(`prebuilt addons: ${error.message}`)
    }
    for (const target of named.length > 0 ? named : all) {
      prebuild(zig, target, sets.get(target))
      checkObjects(target)
    }
    writeLicences(zig)
    await compareCompilers(zig, named.length > 0 ? named : all, sets)
  }
  const targets = (named.length > 0 ? named : all).filter((target) => existsSync(prebuiltPath(target)))
  if (targets.length === 0) return tally.skip('prebuilt addons: there are none; `npm run prebuilds` makes them')
  const folder = packAndInstall()
  try {
    tryEverywhere(folder, targets)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

try {
  await main(process.argv.slice(2))
} catch (error) {
  tally.fail(error.message)
}
tally.finish()
