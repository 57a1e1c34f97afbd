// The programs in which threads meet, under ThreadSanitizer: pool, worker, generations that are aborted at any moment, loading
// of tensors piece by piece, and the engine against its plain reference with up to 16 threads.
import { spawnSync } from 'node:child_process'
import {
  crossBuildTestPrograms,
  missingBuildTool,
  onAllProcessors,
  present,
  report,
  runTestProgram,
} from './native-tests.mjs'
import { Tally } from './tally.mjs'

const FOLDER = 'build-tsan'
const PROGRAMS = ['forward_fuzz_test', 'generation_test', 'load_test', 'pool_test', 'worker_test']
const tally = new Tally()
const env = {
  ONEBIT_FUZZ: '60',
  ONEBIT_VARIANTS: 'few',
  ...process.env,
  TSAN_OPTIONS: 'halt_on_error=1',
}

/** Why there can be no such build here, or undefined. */
function missing() {
  if (process.platform !== 'linux') return 'only tried on Linux'
  const compiler = process.env.CXX ?? 'c++'
  const library = spawnSync(compiler, ['-print-file-name=libtsan.so'], { encoding: 'utf8' }).stdout?.trim()
  return library?.includes('/') ? undefined : `${compiler} has no ThreadSanitizer`
}

const tool = missingBuildTool()
const why = missing()
if (tool) tally.fail(tool)
else if (why) tally.skip(`ThreadSanitizer: ${why}`)
else {
  // Its shadow memory has a fixed place, which a kernel that scatters addresses widely may have taken.
  const prefix = present('setarch', [process.arch === 'x64' ? 'x86_64' : process.arch, '-R', 'true'])
    ? ['setarch', process.arch === 'x64' ? 'x86_64' : process.arch, '-R']
    : []
  try {
    // The scalar kernels touch the memory that all others touch, and are built in a tenth of the time.
    crossBuildTestPrograms(FOLDER, ['-DONEBIT_TSAN=ON', '-DONEBIT_SETS=scalar'], PROGRAMS)
    await onAllProcessors(PROGRAMS, async (name) => {
      const run = await runTestProgram(FOLDER, name, { env, prefix })
      report(tally, `${name} under ThreadSanitizer`, run)
    })
  } catch (error) {
    tally.fail(error.message)
  }
}
tally.finish()
