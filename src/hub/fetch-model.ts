/** From a model's name to a file or folder on this machine, downloading what is not there. */
import { OnebitError } from '../errors.js'
import { someAtATime } from '../flow/some-at-a-time.js'
import { isOffline } from './cache-folder.js'
import { type Candidate, findCandidates, mentionsType, namedCandidates, pathOf } from './candidates.js'
import { type Choose, chooseModel, type LookAtAll } from './choose.js'
import { type CachedFile, CachedRepository, type Snapshot } from './hub-cache.js'
import { isOfType, type Look, lookAt, lookFromAfar } from './look.js'
import { type HubAddress, parseModelAddress } from './model-address.js'
import { fileUrl, type HubFile, type Repository, readRepository } from './repository.js'
import { fetchUrl } from './url-file.js'

export interface FetchOptions {
  signal?: AbortSignal | undefined
  /** called while files come; what an earlier try has left counts as done */
  onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined
  /** what is being done, one sentence each */
  onNote?: ((line: string) => void) | undefined
  /** when several models fit; without it that is an error */
  choose?: Choose | undefined
  /** ask the hub for what is newest even if the model is here */
  refresh?: boolean | undefined
}

/** Headers that are fetched at the same time. */
const LOOKS_AT_A_TIME = 4

/**
 * A model that is here needs no network. Otherwise the hub is asked what its repository has, which of that runs here is found by
 * the headers, and it is downloaded into the cache that Hugging Face's tools use.
 * @param name hf:OWNER/NAME[@REVISION][:FILE-OR-TYPE], or the address of a file
 * @returns the path of a file or a folder, for Model.load
 * @throws OnebitError ERR_HUB_NAME, ERR_HUB_NOT_FOUND, ERR_HUB_ACCESS, ERR_HUB_OFFLINE, ERR_HUB_BUSY, ERR_HUB_ANSWER,
 *   ERR_HUB_REDIRECT, ERR_HUB_PROXY, ERR_HUB_CHANGED, ERR_HUB_CHECKSUM, ERR_HUB_NOTHING_RUNS, ERR_HUB_SEVERAL, ERR_DISK_FULL,
 *   ERR_ACCESS, ERR_READ_ONLY, ERR_IO, and why a file that was named does not run here; the signal's reason
 */
export async function fetchModel(name: string, options: FetchOptions = {}): Promise<string> {
  options.signal?.throwIfAborted()
  const address = parseModelAddress(name)
  return address.kind === 'file' ? fetchUrl(address.url, options) : fetchFromHub(address, options)
}

async function fetchFromHub(address: HubAddress, options: FetchOptions): Promise<string> {
  const cache = new CachedRepository(address.repository)
  const here = options.refresh ? undefined : await findHere(cache, address)
  if (here !== undefined) return here
  let repository: Repository
  try {
    if (isOffline()) throw notHere(address)
    repository = await readRepository(address, options.signal)
  } catch (error) {
    const isAway = error instanceof OnebitError && error.code === 'ERR_HUB_OFFLINE'
    const older = isAway && !options.refresh ? await findOffline(cache, address, options) : undefined
    if (older !== undefined) return older
    throw error
  }
  return fetchChosen(cache, repository, address, options)
}

function notHere({ repository, wanted }: HubAddress): OnebitError {
  const what = wanted === undefined ? repository : `${repository}:${wanted}`
  return new OnebitError('ERR_HUB_OFFLINE', `${what} is not on this machine, and HF_HUB_OFFLINE is set`, {
    hint: '`onebit list` shows what is here.',
  })
}

/** What is meant, if that can be told without looking into files: starting again should take no time. */
async function findHere(cache: CachedRepository, { revision, wanted }: HubAddress): Promise<string | undefined> {
  const commit = await cache.commitOf(revision)
  const snapshot = commit === undefined ? undefined : await cache.snapshot(commit)
  if (snapshot === undefined) return undefined
  const candidates = findCandidates(snapshot.files)
  const named = wanted === undefined ? candidates : namedCandidates(candidates, wanted)
  const [only, ...more] =
    wanted !== undefined && named.length === 0 ? await ofType(candidates, wanted, snapshot) : named
  return only !== undefined && (more.length === 0 || (wanted !== undefined && named.length > 0))
    ? pathOf(only, snapshot.folder)
    : undefined
}

async function ofType(candidates: Candidate<CachedFile>[], type: string, { folder }: Snapshot) {
  const mentioning = candidates.filter((candidate) => mentionsType(candidate, type))
  // It was looked at before it was downloaded.
  if (mentioning.length === 1) return mentioning
  const looks = await someAtATime(candidates, 1, (candidate) => lookAt(candidate, pathOf(candidate, folder)))
  return looks.filter((look) => isOfType(look, type)).map(({ candidate }) => candidate)
}

/** Without a network any commit that is here will do, and a person may choose among what it has. */
async function findOffline(
  cache: CachedRepository,
  { repository, revision, wanted }: HubAddress,
  { choose, onNote }: FetchOptions,
): Promise<string | undefined> {
  const current = await cache.commitOf(revision)
  const snapshots = await cache.snapshots()
  const usable = revision === 'main' ? snapshots : snapshots.filter(({ commit }) => commit === current)
  for (const { folder, files, commit } of usable.sort(
    (a, b) => Number(b.commit === current) - Number(a.commit === current),
  )) {
    const candidates = findCandidates(files)
    if (candidates.length === 0) continue
    const look: LookAtAll<Candidate<CachedFile>> = (some) =>
      someAtATime(some, 1, (candidate) => lookAt(candidate, pathOf(candidate, folder)))
    try {
      const chosen = await chooseModel(candidates, files, look, { repository, wanted, choose })
      onNote?.(`the network fails: ${repository} as it was at ${commit.slice(0, 12)}`)
      return pathOf(chosen, folder)
    } catch (error) {
      if (!(error instanceof OnebitError) || error.code === 'ERR_HUB_SEVERAL') throw error
    }
  }
  return undefined
}

async function fetchChosen(
  cache: CachedRepository,
  repository: Repository,
  { revision, wanted }: HubAddress,
  options: FetchOptions,
): Promise<string> {
  const { signal, onProgress, onNote, choose } = options
  const name = repository.repository
  const candidates = findCandidates(repository.files)
  const folder = cache.snapshotFolder(repository.commit)
  const remote = {
    url: (file: HubFile) => fileUrl(repository, file.path),
    nameOf: (file: HubFile) => `${name}:${file.path}`,
    fetch: (file: HubFile) => cache.fetch(repository, file, { signal }),
    signal,
  }
  const look: LookAtAll<Candidate<HubFile>> = (some) => {
    if (some.length > 1) onNote?.(`looking at ${some.length} models of ${name}`)
    return someAtATime(some, LOOKS_AT_A_TIME, async (candidate): Promise<Look<Candidate<HubFile>>> => {
      const isHere = await cache.has(repository, candidate.files)
      return isHere ? lookAt(candidate, pathOf(candidate, folder)) : lookFromAfar(candidate, remote)
    })
  }
  const chosen = await chooseModel(candidates, repository.files, look, { repository: name, wanted, choose })
  if (!(await cache.has(repository, chosen.files))) {
    onNote?.(`downloading ${name}${chosen.name === '' ? '' : `:${chosen.name}`}`)
  }
  let done = 0
  for (const file of chosen.files) {
    const before = done
    const onBytes = (bytes: number) => onProgress?.(before + bytes, chosen.bytes)
    await cache.fetch(repository, file, { signal, onBytes })
    done += file.bytes
  }
  await cache.writeRef(revision, repository.commit)
  return pathOf(chosen, folder)
}
