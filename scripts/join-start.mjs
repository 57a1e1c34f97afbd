// The last step of `npm run build:ts`: what a start of `onebit run` loads before its first token becomes one file, dist/start.js.
// Node takes a millisecond for each file that it finds, reads and compiles, and these are 90 small ones (docs/limits.md has the
// figures). Each of their own files stays, and gives on what start.js has under its names: whoever imports it gets the same
// objects, classes too, whichever way they came. The rest of dist/ stays as tsc made it. What a start needs of a package that takes
// 10 ms to load is in the file too, with the licence beside it.
import { copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const DIST = join(dirname(fileURLToPath(import.meta.url)), '..', 'dist')
/** What is loaded by name when it is needed, and a start always needs. */
const ROOTS = ['cli/main.js', 'cli/run.js', 'text/tokenizer.js']
const START = 'start.js'
const INSIDE = '@huggingface/tokenizers'

const posix = (path) => path.split(sep).join('/')
/** As an import from `folder` of DIST names it. */
function specifier(folder, module) {
  const path = posix(relative(folder, module))
  return path.startsWith('.') ? path : `./${path}`
}

/** dist/errors.js and OnebitError: the name that it has among those of all modules. */
function alias(module, name) {
  return `${module.replace(/\.js$/, '').replaceAll(/\W/g, '_')}__${name}`
}

/** What the modules of ROOTS import, and these in turn, with what each exports: { "errors.js": ["OnebitError", …] }. */
async function modulesOfStart() {
  const entryPoints = ROOTS.map((name) => join(DIST, name))
  const files = new Set()
  const listing = {
    name: 'listing',
    setup(builder) {
      builder.onResolve({ filter: /./ }, ({ kind, path }) => {
        if (kind === 'entry-point') return undefined
        return { external: kind === 'dynamic-import' || !path.startsWith('.') }
      })
      builder.onLoad({ filter: /\.js$/ }, ({ path }) => {
        files.add(path)
        return undefined
      })
    },
  }
  await build({ ...COMMON, entryPoints, outdir: DIST, plugins: [listing] })
  const apart = await build({
    ...COMMON,
    bundle: false,
    entryPoints: [...files],
    outdir: DIST,
    outbase: DIST,
    metafile: true,
  })
  return Object.fromEntries(
    Object.values(apart.metafile.outputs).map(({ entryPoint, exports }) => [
      posix(relative(DIST, resolve(entryPoint))),
      exports,
    ]),
  )
}

const COMMON = { bundle: true, format: 'esm', platform: 'node', target: 'node20', write: false, logLevel: 'warning' }

/** Paths stay those of the module that they stood in: start.js lies in another folder. */
const asBefore = {
  name: 'as before',
  setup(builder) {
    builder.onResolve({ filter: /./ }, ({ kind, path, resolveDir }) => {
      if (path === INSIDE || resolveDir.includes(INSIDE)) return undefined
      if (!path.startsWith('.')) return { path, external: true }
      if (kind !== 'dynamic-import') return undefined
      return { path: specifier(DIST, join(resolveDir, path)), external: true }
    })
    builder.onLoad({ filter: /\.js$/ }, ({ path }) => {
      if (!path.startsWith(DIST)) return undefined
      const code = readFileSync(path, 'utf8')
      if (!code.includes('import.meta.url')) return undefined
      const own = `new URL(${JSON.stringify(specifier(DIST, path))}, import.meta.url).href`
      return { contents: code.replaceAll('import.meta.url', own) }
    })
  },
}

async function joinStart() {
  const modules = await modulesOfStart()
  const names = Object.entries(modules).flatMap(([module, exports]) => exports.map((name) => alias(module, name)))
  if (new Set(names).size < names.length) throw new Error('two exports would have the same name in start.js')
  const contents = Object.entries(modules).map(([module, exports]) => {
    const given = exports.map((name) => `${name} as ${alias(module, name)}`)
    return given.length > 0 ? `export { ${given.join(', ')} } from './${module}'` : `import './${module}'`
  })
  const made = await build({
    ...COMMON,
    stdin: { contents: contents.join('\n'), resolveDir: DIST, sourcefile: START },
    outfile: join(DIST, START),
    sourcemap: true,
    plugins: [asBefore],
  })
  for (const { path, contents } of made.outputFiles) writeFileSync(path, contents)
  for (const [module, exports] of Object.entries(modules)) {
    const start = specifier(dirname(join(DIST, module)), join(DIST, START))
    const given = exports.map((name) => `${alias(module, name)} as ${name}`)
    writeFileSync(
      join(DIST, module),
      given.length > 0 ? `export { ${given.join(', ')} } from '${start}'\n` : `import '${start}'\n`,
    )
    rmSync(join(DIST, `${module}.map`), { force: true })
  }
  copyFileSync(join(DIST, '..', 'node_modules', INSIDE, 'LICENSE'), join(DIST, `${START}.LICENSE.txt`))
  return Object.keys(modules).length
}

if (readFileSync(join(DIST, ROOTS[0]), 'utf8').includes(START))
  throw new Error('dist/ is joined already: `npm run build:ts`')
console.error(`${await joinStart()} modules joined in dist/${START}`)
