/** What of the cache are models: for `onebit list`, and for taking them away again. */
import { OnebitError } from '../errors.js'
import { type Candidate, findCandidates, mentionsType, namedCandidates, pathOf } from './candidates.js'
import { type CachedFile, CachedRepository, cachedRepositories } from './hub-cache.js'
import { type Look, lookAt, mainType } from './look.js'
import { parseModelAddress } from './model-address.js'
import { cachedUrls, removeUrl } from './url-file.js'

export interface ListedModel {
  /** what it is started by */
  name: string
  path: string
  bytes: number
  type: string | undefined
  /** in words, if it runs here */
  words: string | undefined
  /** why it does not run here */
  problem: string | undefined
}

interface Found {
  commit: string
  path: string
  look: Look<Candidate<CachedFile>>
}

/** Of every commit that is here, the newest first, each model once. */
async function findModels(cache: CachedRepository): Promise<Found[]> {
  const found = new Map<string, Found>()
  for (const { commit, folder, files } of await cache.snapshots()) {
    for (const candidate of findCandidates(files)) {
      if (found.has(candidate.name)) continue
      const path = pathOf(candidate, folder)
      found.set(candidate.name, { commit, path, look: await lookAt(candidate, path) })
    }
  }
  return [...found.values()]
}

/** Everything that was downloaded; repositories without a model are of other programs and left out. */
export async function listModels(): Promise<ListedModel[]> {
  const models: ListedModel[] = []
  for (const cache of await cachedRepositories()) {
    for (const { path, look } of await findModels(cache)) {
      const { candidate, words, error } = look
      models.push({
        name: `hf:${cache.repository}${candidate.name === '' ? '' : `:${candidate.name}`}`,
        path,
        bytes: candidate.bytes,
        type: mainType(look),
        words,
        problem: error?.message,
      })
    }
  }
  for (const { url, path, bytes } of await cachedUrls()) {
    const look = await lookAt({ name: url, kind: 'gguf', files: [{ path, bytes }], bytes }, path)
    models.push({ name: url, path, bytes, type: mainType(look), words: look.words, problem: look.error?.message })
  }
  return models
}

/**
 * Takes a model away, or with no file and no type all that is here of its repository.
 * @returns bytes that are free now
 * @throws OnebitError ERR_HUB_NAME, ERR_HUB_NOT_FOUND, those of writing files
 */
export async function removeModel(name: string): Promise<number> {
  const address = parseModelAddress(name)
  if (address.kind === 'file') return removeUrl(address.url)
  const { repository, wanted } = address
  const cache = new CachedRepository(repository)
  if ((await cache.bytes()) === 0) throw notHere(name)
  if (wanted === undefined) return cache.removeAll()
  const files = (await cache.snapshots()).flatMap(({ commit, files }) => {
    const candidates = findCandidates(files)
    const named = namedCandidates(candidates, wanted)
    const meant = named.length > 0 ? named : candidates.filter((candidate) => mentionsType(candidate, wanted))
    return meant.flatMap((candidate) => candidate.files.map(({ path }) => ({ commit, path })))
  })
  if (files.length === 0) throw notHere(name)
  return cache.remove(files)
}

function notHere(name: string): OnebitError {
  return new OnebitError('ERR_HUB_NOT_FOUND', `${name} is not on this machine`, {
    hint: '`onebit list` shows what is.',
  })
}
