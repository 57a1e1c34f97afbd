// Bundles src/main.mjs with esbuild into a folder that runs by itself: node build.mjs [FOLDER]
//
// onebit-run stays a package of its own, because it starts processes and worker threads from its files and reads the built-in
// model beside them. Of the eight addons only that of one system goes along: TARGET=win32-x64 node build.mjs
import { copyFileSync, mkdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const here = dirname(fileURLToPath(import.meta.url))
const out = process.argv[2] ?? join(here, 'out')
const target = process.env.TARGET ?? `${process.platform}-${process.arch}` // linux-x64-musl and the like: see the README

await build({
  entryPoints: [join(here, 'src', 'main.mjs')],
  outfile: join(out, 'main.mjs'),
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  external: ['onebit-run'],
})
// `onebit-run/addon/SYSTEM` is the addon's file itself: for copying it to where the program looks for it.
mkdirSync(out, { recursive: true })
copyFileSync(createRequire(import.meta.url).resolve(`onebit-run/addon/${target}`), join(out, 'onebit.node'))
