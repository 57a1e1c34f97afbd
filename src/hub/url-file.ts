/** A model from any other server: kept below the cache by its address, with what the server said of it. */
import { createHash } from 'node:crypto'
import { readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { OnebitError } from '../errors.js'
import { writeAtomically } from '../files/atomic-file.js'
import { cacheError } from './cache-errors.js'
import { isOffline, makeFolder, urlCacheFolder } from './cache-folder.js'
import { type Candidate, findCandidates, type ListedFile, partNames } from './candidates.js'
import { type DownloadSettings, download } from './download.js'
import { lookFromAfar } from './look.js'
import { decoded } from './model-address.js'
import { offline, statusError } from './repository.js'
import { type Answer, ask, discard, NetworkError, Patience } from './requests.js'

interface UrlFile extends ListedFile {
  url: URL
  etag: string | undefined
  hash: string | undefined
}

export interface UrlSettings {
  signal?: AbortSignal | undefined
  onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined
  onNote?: ((line: string) => void) | undefined
  refresh?: boolean | undefined
}

function folderOf(url: URL): string {
  const { origin, pathname, search } = url
  const key = createHash('sha256').update(`${origin}${pathname}${search}`).digest('hex').slice(0, 20)
  return join(urlCacheFolder(), key)
}

const fileName = (url: URL) => decoded(url.pathname.split('/').at(-1)!)

/** The addresses of all files of a model, of which one is given. */
function allParts(url: URL): URL[] {
  const name = fileName(url)
  return partNames(name).map((part) => {
    const other = new URL(url)
    other.pathname = url.pathname.slice(0, url.pathname.lastIndexOf('/') + 1) + encodeURIComponent(part)
    return other
  })
}

/** @returns where the file is now, @throws OnebitError ERR_HUB_*, and why it does not run here; the signal's reason */
export async function fetchUrl(url: URL, settings: UrlSettings): Promise<string> {
  const urls = allParts(url)
  const folder = folderOf(urls[0]!)
  const paths = urls.map((one) => join(folder, fileName(one)))
  const here = await Promise.all(
    paths.map((path) =>
      stat(path).then(
        (found) => found.isFile(),
        () => false,
      ),
    ),
  )
  if (!settings.refresh && here.every(Boolean)) return paths[0]!
  if (isOffline()) {
    throw new OnebitError('ERR_HUB_OFFLINE', `${url.href} is not on this machine, and HF_HUB_OFFLINE is set`)
  }
  const files: UrlFile[] = []
  for (const one of urls) files.push(await askAbout(one, settings.signal))
  const candidate = findCandidates(files)[0] as Candidate<UrlFile>
  const look = await lookFromAfar(candidate, {
    url: (file) => file.url,
    nameOf: (file) => file.url.href,
    fetch: () => Promise.reject(new Error('has no small files')),
    signal: settings.signal,
  })
  if (look.error) {
    const message = `${fileName(url)} does not run here: ${look.error.message}`
    throw new OnebitError(look.error.code, message, { hint: look.error.hint, cause: look.error })
  }
  settings.onNote?.(`downloading ${fileName(url)} from ${url.host}`)
  let done = 0
  for (const [i, file] of files.entries()) {
    const before = done
    const onBytes = (bytes: number) => settings.onProgress?.(before + bytes, candidate.bytes)
    await fetchOne(file, folder, paths[i]!, { signal: settings.signal, onBytes })
    done += file.bytes
  }
  return paths[0]!
}

/** Size and version of a file, of which one byte is asked for: servers that know no HEAD know that. */
async function askAbout(url: URL, signal: AbortSignal | undefined): Promise<UrlFile> {
  let answer: Answer
  try {
    answer = await ask(url, { headers: { Range: 'bytes=0-0' }, signal }, new Patience(signal))
  } catch (error) {
    throw error instanceof NetworkError ? offline(url.href, error) : error
  }
  discard(answer)
  const { status, headers, firstHeaders } = answer
  if (status !== 200 && status !== 206) throw statusError(answer, url.href)
  const total = status === 206 ? /\/(\d+)$/.exec(headers['content-range'] ?? '')?.[1] : headers['content-length']
  if (total === undefined) {
    throw new OnebitError('ERR_HUB_ANSWER', `${url.host} does not say how long ${url.href} is`, {
      hint: 'Download it by other means, and give its path.',
    })
  }
  const linked = String(firstHeaders['x-linked-etag'] ?? '').replace(/^"|"$/g, '')
  const etag = headers.etag?.startsWith('W/') ? undefined : headers.etag
  const hash = /^[0-9a-f]{64}$/.test(linked) ? linked : undefined
  return { path: fileName(url), url, bytes: Number(total), etag, hash }
}

/** What is kept of an earlier try belongs to one version of the file: of another it is thrown away. */
async function fetchOne(file: UrlFile, folder: string, target: string, settings: DownloadSettings): Promise<void> {
  const about = `${target}.json`
  await makeFolder(folder)
  const text = `${JSON.stringify({ url: file.url.href, bytes: file.bytes, etag: file.etag ?? null })}\n`
  const before = await readFile(about, 'utf8').catch(() => undefined)
  if (before !== text) {
    await rm(target, { force: true })
    await rm(`${target}.incomplete`, { force: true })
    await writeAtomically(about, async (handle) => void (await handle.writeFile(text)))
  }
  const { url, bytes, hash, etag } = file
  const name = fileName(url)
  await download({ url, name, bytes, hash, target, lock: `${target}.lock`, ifRange: etag }, settings)
}

/** @returns bytes that are free now, @throws OnebitError ERR_HUB_NOT_FOUND, those of writing files */
export async function removeUrl(url: URL): Promise<number> {
  const folder = folderOf(allParts(url)[0]!)
  const names = await readdir(folder).catch(() => undefined)
  if (names === undefined) throw new OnebitError('ERR_HUB_NOT_FOUND', `${url.href} is not on this machine`)
  const sizes = await Promise.all(
    names.map((name) =>
      stat(join(folder, name)).then(
        ({ size }) => size,
        () => 0,
      ),
    ),
  )
  await rm(folder, { recursive: true, force: true }).catch((cause) => {
    throw cacheError(cause, folder)
  })
  return sizes.reduce((sum, size) => sum + size, 0)
}

/** Those that are here whole, by their address. */
export async function cachedUrls(): Promise<{ url: string; path: string; bytes: number }[]> {
  const root = urlCacheFolder()
  const found: { url: string; path: string; bytes: number }[] = []
  for (const key of await readdir(root).catch(() => [])) {
    const names = await readdir(join(root, key)).catch(() => [])
    for (const name of names.filter((one) => one.endsWith('.json'))) {
      const path = join(root, key, name.replace(/\.json$/, ''))
      const file = await stat(path).catch(() => undefined)
      const about = (await readFile(join(root, key, name), 'utf8')
        .then(JSON.parse)
        .catch(() => undefined)) as unknown
      const url = (about as { url?: unknown } | undefined)?.url
      if (file?.isFile() && typeof url === 'string') found.push({ url, path, bytes: file.size })
    }
  }
  return found
}
