// The NEON paths on an x86-64 machine: cross-compiles the native test programs for aarch64 and runs them under
// qemu-user, as a CPU with everything and some of them as one without dot products (there neondot must be skipped).
// The logits of whole small models must have the same hash as those of this machine's own run.
import {
  buildTestPrograms,
  crossBuildTestPrograms,
  onAllProcessors,
  present,
  report,
  runTestProgram,
  testPrograms,
} from './native-tests.mjs'
import { Tally } from './tally.mjs'

const COMPILER = 'aarch64-linux-gnu-g++'
/**
 * A processor with everything runs every program, with each set that it has, neon too. What one without dot products adds is that
 * neondot is seen to be missing and that nothing else needs it: whole models and most of the kernels show that.
 */
const CPUS = {
  max: () => true,
  'cortex-a57': (name) => /^(forward|random_model|probes|kernels|kernels_floats|kernels_ternary)_test$/.test(name),
}
const FOLDER = 'build-aarch64'

const tally = new Tally()
const { ONEBIT_ISA: _forced, ...inherited } = process.env
// The emulator is some twenty times slower than a CPU, so that a twentieth of the random cases has to do by default.
const env = { ONEBIT_CASES: '500', ONEBIT_MUTANTS: '20000', ONEBIT_VARIANTS: 'few', ONEBIT_FUZZ: '20', ...inherited }

/** { name of a model: hash } from the lines `logits-hash NAME HEX`. */
function logitsHashes(output) {
  return new Map([...output.matchAll(/^logits-hash (\S+) ([0-9a-f]+)\s*$/gm)].map((match) => [match[1], match[2]]))
}

function compareHashes(cpu, expected, found) {
  for (const [name, hash] of expected) {
    if (found.get(name) === hash) tally.passed++
    else tally.fail(`logits of ${name}: ${found.get(name) ?? 'none'} on aarch64 ${cpu}, ${hash} here`)
  }
}

function build() {
  buildTestPrograms('build')
  crossBuildTestPrograms(FOLDER, [
    '-DCMAKE_SYSTEM_NAME=Linux',
    '-DCMAKE_SYSTEM_PROCESSOR=aarch64',
    `-DCMAKE_CXX_COMPILER=${COMPILER}`,
    // Static, so that the emulator needs no aarch64 system libraries.
    '-DCMAKE_EXE_LINKER_FLAGS=-static',
  ])
}

async function runEverywhere(qemu) {
  const names = testPrograms()
  const here = new Map()
  await onAllProcessors(names, async (name) => {
    here.set(name, logitsHashes((await runTestProgram('build', name, { env })).output))
  })
  if ([...here.values()].every((hashes) => hashes.size === 0))
    tally.fail('no test program printed the hash of any logits')
  const runs = Object.entries(CPUS).flatMap(([cpu, runsHere]) => names.filter(runsHere).map((name) => ({ name, cpu })))
  await onAllProcessors(runs, async ({ name, cpu }) => {
    const run = await runTestProgram(FOLDER, name, { prefix: [qemu, '-cpu', cpu], env })
    report(tally, `${name} on aarch64 ${cpu}`, run)
    compareHashes(cpu, here.get(name), logitsHashes(run.output))
  })
}

const qemu = ['qemu-aarch64', 'qemu-aarch64-static'].find((command) => present(command))
if (process.arch === 'arm64') tally.skip('aarch64 under qemu: this machine is one; npm test runs its programs')
else if (!present(COMPILER)) tally.skip(`aarch64 under qemu: ${COMPILER} is not installed`)
else if (!qemu) tally.skip('aarch64 under qemu: qemu-aarch64 is not installed')
else {
  try {
    build()
    await runEverywhere(qemu)
  } catch (error) {
    tally.fail(error.message)
  }
}
tally.finish()
