/** What the hub says of a repository: its commit, and its files with their hashes. */
import { OnebitError } from '../errors.js'
import { parseJson } from '../files/json.js'
import { shown } from '../shown-value.js'
import { type HubAddress, hubEndpoint, isSafePath } from './model-address.js'
import { type Answer, ask, discard, NetworkError, Patience, readBody } from './requests.js'
import { hubToken } from './token.js'

export interface HubFile {
  path: string
  bytes: number
  /** SHA-256 of large files, git's id of a blob (SHA-1) of small ones: also their names in the cache */
  hash: string
}

export interface Repository {
  repository: string
  commit: string
  files: HubFile[]
}

/** Real repositories have some hundreds. */
const MOST_FILES = 20_000
const MOST_PAGES = 100
const MOST_PAGE_BYTES = 16 << 20

export const COMMIT = /^[0-9a-f]{40}$/
const HASH = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/

function endpointUrl(path: string, query = ''): URL {
  const endpoint = hubEndpoint()
  return new URL(`${endpoint.origin}${endpoint.pathname.replace(/\/+$/, '')}/${path}${query}`)
}

const encoded = (path: string) => path.split('/').map(encodeURIComponent).join('/')

/** Where the bytes of a file are. */
export function fileUrl({ repository, commit }: Pick<Repository, 'repository' | 'commit'>, path: string): URL {
  return endpointUrl(`${encoded(repository)}/resolve/${commit}/${encoded(path)}`)
}

/** @throws OnebitError ERR_HUB_OFFLINE, ERR_HUB_NOT_FOUND, ERR_HUB_ACCESS, ERR_HUB_ANSWER, ERR_HUB_REDIRECT */
export async function readRepository(
  { repository, revision }: Pick<HubAddress, 'repository' | 'revision'>,
  signal?: AbortSignal,
): Promise<Repository> {
  const what = revision === 'main' ? repository : `${repository}@${revision}`
  const api = `api/models/${encoded(repository)}`
  const { value: info } = await askJson(endpointUrl(`${api}/revision/${encodeURIComponent(revision)}`), what, signal)
  const commit = (info as { sha?: unknown } | null)?.sha
  if (typeof commit !== 'string' || !COMMIT.test(commit)) throw noHub(`says of ${what} no commit`)
  const files: HubFile[] = []
  let next: URL | undefined = endpointUrl(`${api}/tree/${commit}`, '?recursive=true')
  for (let page = 0; next !== undefined && page < MOST_PAGES && files.length < MOST_FILES; page++) {
    const { value, link } = await askJson(next, what, signal)
    if (!Array.isArray(value)) throw noHub(`has no list of files of ${what}`)
    files.push(...value.flatMap(readEntry))
    next = nextPage(link, next)
  }
  return { repository, commit, files }
}

/** An entry of a list of files; what is none, or could not be a file here, is left out. */
function readEntry(entry: unknown): HubFile[] {
  const { type, path, size, oid, lfs } = (entry ?? {}) as Record<string, unknown>
  const { oid: sha256, size: realSize } = (lfs ?? {}) as Record<string, unknown>
  const [bytes, hash] = lfs ? [realSize ?? size, sha256] : [size, oid]
  const isFile = type === 'file' && typeof path === 'string' && isSafePath(path)
  if (!isFile || !Number.isSafeInteger(bytes) || (bytes as number) < 0) return []
  return typeof hash === 'string' && HASH.test(hash) ? [{ path, bytes: bytes as number, hash }] : []
}

/** The next page, which has to be on the same server. */
function nextPage(link: string | undefined, from: URL): URL | undefined {
  const target = /<([^>]+)>\s*;\s*rel="?next"?/.exec(link ?? '')?.[1]
  if (target === undefined || !URL.canParse(target, from.href)) return undefined
  const url = new URL(target, from)
  return url.origin === from.origin ? url : undefined
}

async function askJson(url: URL, what: string, signal: AbortSignal | undefined) {
  let answer: Answer
  try {
    answer = await ask(url, { signal }, new Patience(signal))
    if (answer.status !== 200) {
      discard(answer)
      throw statusError(answer, what)
    }
    const text = (await readBody(answer, MOST_PAGE_BYTES, signal)).toString('utf8')
    return { value: parsed(text, answer), link: answer.headers.link as string | undefined }
  } catch (error) {
    if (error instanceof NetworkError) throw offline(what, error)
    throw error
  }
}

function parsed(text: string, { headers }: Answer): unknown {
  try {
    return parseJson(text)
  } catch (cause) {
    const kind = /html/i.test(headers['content-type'] ?? '') ? 'a web page' : 'something'
    throw noHub(`answers with ${kind} that is no JSON`, cause)
  }
}

function noHub(problem: string, cause?: unknown): OnebitError {
  return new OnebitError('ERR_HUB_ANSWER', `${hubEndpoint().origin} ${problem}`, {
    hint: 'Is HF_ENDPOINT right? Some networks answer with a page of their own until somebody has logged in.',
    cause,
  })
}

export function offline(what: string, cause: NetworkError): OnebitError {
  return new OnebitError(
    'ERR_HUB_OFFLINE',
    `${what} is not on this machine, and the network fails (${cause.message})`,
    {
      hint: 'With a network it is downloaded once; after that none is needed. Proxies are taken from HTTPS_PROXY.',
      cause,
    },
  )
}

/** What an answer that is no success means. @param what the repository, or a file of it, in words */
export function statusError({ status, headers, firstHeaders, url }: Answer, what: string): OnebitError {
  const code = String(headers['x-error-code'] ?? firstHeaders['x-error-code'] ?? '')
  const page = `${hubEndpoint().origin}/${what.replace(/[@:].*$/s, '')}`
  const token = hubToken() === undefined
  if (code === 'GatedRepo' || (status === 403 && code !== 'RepoNotFound')) {
    return new OnebitError('ERR_HUB_ACCESS', `${what} is only for those who were given access (${status})`, {
      hint: token
        ? `Accept its terms at ${page}, make a token at ${hubEndpoint().origin}/settings/tokens, and set HF_TOKEN to it.`
        : `Accept its terms at ${page} with the account that the token belongs to.`,
    })
  }
  if (status === 401 && !token && code !== 'RepoNotFound') {
    return new OnebitError('ERR_HUB_ACCESS', `${hubEndpoint().host} does not take the token (${status})`, {
      hint: `Is HF_TOKEN right? Tokens are made at ${hubEndpoint().origin}/settings/tokens; without one public models can be had.`,
    })
  }
  // The hub says 401 of names that do not exist, so that nobody learns which private ones do.
  if ([401, 404, 410].includes(status)) {
    const part = code === 'RevisionNotFound' ? 'that revision of it' : code === 'EntryNotFound' ? 'that file' : 'it'
    return new OnebitError('ERR_HUB_NOT_FOUND', `${what}: ${hubEndpoint().host} does not have ${part} (${status})`, {
      hint: token ? 'Check the spelling; a private model needs a token in HF_TOKEN.' : 'Check the spelling.',
    })
  }
  if (status === 407) {
    return new OnebitError('ERR_HUB_PROXY', 'The proxy of the environment wants a name and a password (407)', {
      hint: 'They stand in its address: HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT',
    })
  }
  if (status === 429) {
    return new OnebitError('ERR_HUB_BUSY', `${url.host} takes no more requests for now (429)`, {
      hint: token ? 'Try again later; with a token in HF_TOKEN more are taken.' : 'Try again later.',
    })
  }
  return new OnebitError('ERR_HUB_ANSWER', `${shown(url.host)} answers ${status} for ${what}`, {
    hint: status >= 500 ? 'Try again later: it goes on where it stopped.' : undefined,
  })
}
