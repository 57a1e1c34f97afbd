/** The chat page: a few files that come with the package, and two libraries that it uses. */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export interface PageFile {
  type: string
  bytes: Uint8Array
}

const FOLDER = fileURLToPath(new URL('../../page/', import.meta.url))
const SCRIPT = 'text/javascript; charset=utf-8'

/** Paths of the server and where each lies; nothing else is ever read. */
const FILES: Readonly<Record<string, { type: string; path: () => string }>> = {
  '/': { type: 'text/html; charset=utf-8', path: () => join(FOLDER, 'index.html') },
  '/page/page.css': { type: 'text/css; charset=utf-8', path: () => join(FOLDER, 'page.css') },
  '/page/icon.svg': { type: 'image/svg+xml', path: () => join(FOLDER, 'icon.svg') },
  ...Object.fromEntries(
    ['main', 'api', 'markdown', 'store', 'view'].map((name) => [
      `/page/${name}.js`,
      { type: SCRIPT, path: () => join(FOLDER, `${name}.js`) },
    ]),
  ),
  '/page/vendor/marked.js': { type: SCRIPT, path: () => besideMain('marked', 'marked.esm.js') },
  '/page/vendor/dompurify.js': { type: SCRIPT, path: () => besideMain('dompurify', 'purify.es.mjs') },
}

/** The browser's module of a package lies beside the one that Node is given. */
function besideMain(name: string, file: string): string {
  return join(dirname(createRequire(import.meta.url).resolve(name)), file)
}

const read = new Map<string, PageFile>()

export function pageFile(path: string): PageFile | undefined {
  if (!Object.hasOwn(FILES, path)) return undefined
  const known = read.get(path)
  if (known) return known
  const { type, path: where } = FILES[path]!
  const file = { type, bytes: readFileSync(where()) }
  read.set(path, file)
  return file
}

/** What the page may load and reach: nothing beyond this server, and no script that stands in a text. */
const POLICY =
  "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; img-src 'self' data:"

export function pageHeaders({ type, bytes }: PageFile): Record<string, string | number> {
  return {
    'content-type': type,
    'content-length': bytes.length,
    'content-security-policy': POLICY,
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
    'cache-control': 'no-cache',
  }
}
