// `npm run docs`: the API reference, made by TypeDoc of the docstrings of what the package exports, as pages in docs/api/out that
// open from disk. TypeDoc and the TypeScript that it reads with (ours has no API for it) are a package of their own in docs/api,
// installed when it is first needed; with --install alone, only that. A thing without a docstring, a type that the reference names
// and nobody can import, a link that leads nowhere: what TypeDoc warns of is an error.
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { installPackage, isInstalled } from './inner-package.mjs'

const SCRIPT = fileURLToPath(import.meta.url)
const FOLDER = join(dirname(SCRIPT), '..', 'docs', 'api')

/** The reason why no reference can be made now, or undefined. */
export function missingTool() {
  return isInstalled(FOLDER) ? undefined : 'TypeDoc is not installed: node scripts/docs.mjs --install'
}

/** What the reference is made by. */
export const OPTIONS = join(FOLDER, 'typedoc.json')

/**
 * Runs TypeDoc by a file of options and by these of its command line. It empties the folder that it writes to.
 * @returns { status, output }
 */
export function runTypeDoc(file, options = [], stdio = 'pipe') {
  const argv = [join(FOLDER, 'node_modules', 'typedoc', 'bin', 'typedoc'), '--options', file, '--logLevel', 'Warn']
  const ended = spawnSync(process.execPath, [...argv, ...options], { cwd: FOLDER, encoding: 'utf8', stdio })
  return { status: ended.status, output: `${ended.stdout ?? ''}${ended.stderr ?? ''}${ended.error?.message ?? ''}` }
}

function main(words) {
  if (words.length > 1 || (words.length === 1 && words[0] !== '--install')) {
    console.error('usage: node scripts/docs.mjs [--install]')
    return 2
  }
  const reason = installPackage(FOLDER, 'TypeDoc')
  if (reason !== undefined) {
    console.error(reason)
    return 1
  }
  if (words.length === 1) return 0
  const { status, output } = runTypeDoc(OPTIONS, [], 'inherit')
  if (status === 0) console.log(pathToFileURL(join(FOLDER, 'out', 'index.html')).href)
  else if (output) console.error(output)
  return status ?? 1
}

if (process.argv[1] === SCRIPT) process.exitCode = main(process.argv.slice(2))
