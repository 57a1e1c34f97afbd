// Makes a program of one file, by Node's own way (single executable applications), in a folder that can be given away:
//
//   out/story[.exe]                  src/main.mjs and Node
//   out/node_modules/onebit-run/     beside it: native code, worker threads and the built-in model are files
//
// node build.mjs [FOLDER]. Of the eight addons only that of this system goes along. On a Mac the program has to be signed
// afterwards: codesign --sign - out/story
import { spawnSync } from 'node:child_process'
import { copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { inject } from 'postject'

const here = dirname(fileURLToPath(import.meta.url))
const out = process.argv[2] ?? join(here, 'out')
const target = process.env.TARGET ?? `${process.platform}-${process.arch}` // linux-x64-musl: see the README
const FUSE = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2' // the mark in Node that says where its own program begins

/** Copies a package and whatever it depends on. */
function copyPackage(name, from, done = new Set()) {
  const home = findPackage(name, from)
  if (home === undefined || done.has(name)) return
  done.add(name)
  cpSync(home, join(out, 'node_modules', name), { recursive: true, dereference: true, filter: isWanted })
  const { dependencies = {} } = JSON.parse(readFileSync(join(home, 'package.json'), 'utf8'))
  for (const dependency of Object.keys(dependencies)) copyPackage(dependency, home, done)
}

/** Where Node finds a package from a folder. */
function findPackage(name, from) {
  const found = join(from, 'node_modules', name)
  if (existsSync(found)) return realpathSync(found)
  return dirname(from) === from ? undefined : findPackage(name, dirname(from))
}

/** Everything but the addons of other systems. */
const addon = createRequire(import.meta.url).resolve(`onebit-run/addon/${target}`)
const isWanted = (path) => !path.endsWith('.node') || path === addon

rmSync(out, { recursive: true, force: true })
mkdirSync(out, { recursive: true })
const [code, config, blob] = ['main.cjs', 'sea.json', 'main.blob'].map((name) => join(out, name))
await build({
  entryPoints: [join(here, 'src', 'main.mjs')],
  outfile: code,
  bundle: true,
  platform: 'node',
  format: 'cjs', // what Node takes as the program of a single file
  target: 'node20',
})
writeFileSync(config, JSON.stringify({ main: code, output: blob, disableExperimentalSEAWarning: true }))
const made = spawnSync(process.execPath, ['--experimental-sea-config', config], {
  stdio: ['ignore', 'ignore', 'inherit'],
})
if (made.status !== 0) throw new Error(`node --experimental-sea-config ended with ${made.status}`)
const program = join(out, process.platform === 'win32' ? 'story.exe' : 'story')
copyFileSync(process.execPath, program)
await inject(program, 'NODE_SEA_BLOB', readFileSync(blob), {
  sentinelFuse: FUSE,
  ...(process.platform === 'darwin' ? { machoSegmentName: 'NODE_SEA' } : {}),
})
for (const path of [code, config, blob]) rmSync(path)
copyPackage('onebit-run', here)
console.log(`${basename(program)} in ${out}`)
