// `npm run package [-- FOLDER --all]`: the tarball that is published, onebit-run-VERSION.tgz, in FOLDER (or here); with --all, one that
// lacks an addon is an error. dist/ and prebuilds/ go
// in as they are. Its package.json has neither scripts nor what only a clone needs, so that npm has nothing to run.
import { spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const SCRIPT = fileURLToPath(import.meta.url)
const ROOT = join(dirname(SCRIPT), '..')
const ALWAYS = ['README.md', 'LICENSE']
const SOURCE_BYTES = 600_000 // at most

/** What of ROOT's package.json users of the package have. */
export function publishedManifest(manifest) {
  const { scripts: _scripts, devDependencies: _dev, ...published } = manifest
  return published
}

function must(command, argv, options) {
  const { status, error, stdout, stderr } = spawnSync(command, argv, { encoding: 'utf8', ...options })
  if (error) throw error
  if (status !== 0) throw new Error(`${command} ${argv.join(' ')}: ${stderr || `exit status ${status}`}`)
  return stdout
}

/** The sources that `onebit build` compiles, with the headers of Node that they need and everybody's licence. */
export function packSources(path) {
  const folder = `${path}.folder`
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(join(folder, 'include'), { recursive: true })
  for (const name of ['CMakeLists.txt', 'LICENSE', 'binding'])
    cpSync(join(ROOT, name), join(folder, name), { recursive: true })
  const require = createRequire(import.meta.url)
  for (const name of ['node-api-headers', 'node-addon-api']) {
    const home = dirname(require.resolve(`${name}/package.json`))
    const headers = name === 'node-addon-api' ? home : join(home, 'include')
    for (const file of readdirSync(headers).filter((one) => /^(napi|node_api|js_native_api).*\.h$/.test(one)))
      cpSync(join(headers, file), join(folder, 'include', file))
    const licence = readdirSync(home).find((one) => /^licen[cs]e/i.test(one))
    cpSync(join(home, licence), join(folder, 'include', `LICENSE.${name}`))
  }
  // The same bytes whenever and by whomever it is made.
  const plain = ['--sort=name', '--mtime=1985-10-26', '--owner=0', '--group=0', '--numeric-owner', '--mode=u+rw,go+r-w']
  must('tar', [...plain, '-I', 'gzip -9n', '-cf', path, '-C', folder, ...readdirSync(folder).sort()])
  rmSync(folder, { recursive: true })
  const { size } = statSync(path)
  if (size > SOURCE_BYTES) throw new Error(`${path}: ${size} bytes, more than ${SOURCE_BYTES}`)
  return size
}

/** Makes the tarball in `folder`. @returns npm's word on it: { filename, size, unpackedSize, files, … } */
export function pack(folder) {
  const stage = mkdtempSync(join(ROOT, 'build-package-'))
  try {
    return packFrom(stage, folder)
  } finally {
    rmSync(stage, { recursive: true })
  }
}

/** Takes the references to source maps away, which are for whoever has the sources, and more than all the code. */
function dropMaps(folder) {
  for (const name of readdirSync(folder, { recursive: true }).filter((one) => one.endsWith('.js'))) {
    const path = join(folder, name)
    writeFileSync(path, readFileSync(path, 'utf8').replace(/\n\/\/# sourceMappingURL=\S+\s*$/, '\n'))
  }
}

function packFrom(stage, folder) {
  const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  packSources(join(stage, 'source.tgz'))
  for (const name of [...manifest.files, ...ALWAYS])
    if (name !== 'source.tgz' && existsSync(join(ROOT, name)))
      cpSync(join(ROOT, name), join(stage, name), { recursive: true, filter: (path) => !path.endsWith('.js.map') })
  dropMaps(join(stage, 'dist'))
  writeFileSync(join(stage, 'package.json'), `${JSON.stringify(publishedManifest(manifest), null, 2)}\n`)
  const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm'
  const options = { cwd: stage, shell: process.platform === 'win32' }
  const [made] = JSON.parse(
    must(npm, ['pack', '--json', '--ignore-scripts', '--pack-destination', resolve(folder)], options),
  )
  return made
}

if (process.argv[1] === SCRIPT) {
  try {
    const words = process.argv.slice(2)
    const { filename, size, unpackedSize } = pack(words.find((word) => word !== '--all') ?? '.')
    const prebuilds = existsSync(join(ROOT, 'prebuilds'))
      ? readdirSync(join(ROOT, 'prebuilds'), { recursive: true })
      : []
    const addons = prebuilds.filter((name) => name.endsWith('.node'))
    const mega = (bytes) => (bytes / 1e6).toFixed(1)
    console.log(`${filename}: ${mega(size)} MB packed, ${mega(unpackedSize)} MB unpacked, ${addons.length} addons`)
    if (addons.length < 8) {
      console.error('not for publishing: `npm run prebuilds` makes all eight addons')
      if (words.includes('--all')) process.exitCode = 1
    }
  } catch (error) {
    console.error(error.message)
    process.exitCode = 1
  }
}
