/** Names of models that are not on this machine yet: `hf:OWNER/NAME[@REVISION][:FILE-OR-TYPE]`, or the address of a file. */
import { OnebitError } from '../errors.js'
import { shown } from '../shown-value.js'

/** A model of a repository on the hub. */
export interface HubAddress {
  kind: 'hub'
  /** OWNER/NAME, or NAME alone, as the oldest repositories have it */
  repository: string
  /** a branch, a tag or a commit */
  revision: string
  /** a file of it, or a type of numbers such as Q4_0 */
  wanted: string | undefined
}

/** A file anywhere else. */
export interface FileAddress {
  kind: 'file'
  url: URL
}

export type ModelAddress = HubAddress | FileAddress

/** Whether it is such a name and not a path. Files that are called so are reached as ./hf:NAME. */
export function isModelAddress(name: string): boolean {
  return /^(?:hf:|https?:\/\/)/i.test(name)
}

const REPOSITORY = /^(?:[\w][\w.-]{0,95}\/)?[\w][\w.-]{0,95}$/
const REVISION = /^[\w][\w./-]{0,199}$/

/** Where models are: HF_ENDPOINT, or the hub itself. @throws OnebitError ERR_HUB_NAME */
export function hubEndpoint(): URL {
  const given = process.env.HF_ENDPOINT
  const text = given === undefined || given === '' ? 'https://huggingface.co' : given
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url !== undefined && (url.protocol === 'https:' || url.protocol === 'http:')) return url
  throw new OnebitError('ERR_HUB_NAME', `HF_ENDPOINT is ${shown(text)}, which is no address of a server`, {
    hint: 'Give one that begins with https://, or take the variable away.',
  })
}

/** @throws OnebitError ERR_HUB_NAME */
export function parseModelAddress(name: string): ModelAddress {
  return /^hf:/i.test(name) ? parseHubName(name) : parseFileAddress(name)
}

function parseHubName(name: string): HubAddress {
  const [, repository = '', revision = 'main', wanted] = /^hf:([^@:]*)(?:@([^:]*))?(?::(.*))?$/is.exec(name) ?? []
  const problem = !isRepository(repository)
    ? `${shown(repository)} is no name of a repository`
    : !isRevision(revision)
      ? `${shown(revision)} is no name of a revision`
      : wanted !== undefined && wanted !== '' && !isSafePath(wanted)
        ? `${shown(wanted)} is no name of a file or a type`
        : undefined
  if (problem === undefined) return { kind: 'hub', repository, revision, wanted: wanted || undefined }
  throw new OnebitError('ERR_HUB_NAME', `${shown(name)}: ${problem}`, {
    hint: 'A model is named hf:OWNER/NAME, hf:OWNER/NAME:Q4_0 or hf:OWNER/NAME:FILE.gguf.',
  })
}

function isRepository(text: string): boolean {
  return REPOSITORY.test(text) && !text.includes('..') && !text.includes('--')
}

function isRevision(text: string): boolean {
  return REVISION.test(text) && !text.includes('..')
}

/** The address of a file on the hub becomes the name of that file there. */
function parseFileAddress(name: string): ModelAddress {
  if (!URL.canParse(name)) throw badUrl(name, 'is no address')
  const url = new URL(name)
  if (url.username !== '' || url.password !== '') throw badUrl(name, 'has a name or a password in it')
  const endpoint = hubEndpoint()
  const base = endpoint.pathname.replace(/\/+$/, '')
  if (url.origin === endpoint.origin && url.pathname.startsWith(`${base}/`)) {
    const path = decoded(url.pathname.slice(base.length + 1))
    const [, repository, revision, wanted] = /^([^/]+\/[^/]+)\/(?:resolve|blob)\/([^/]+)\/(.+)$/.exec(path) ?? []
    if (repository && revision && wanted && isRepository(repository) && isRevision(revision) && isSafePath(wanted)) {
      return { kind: 'hub', repository, revision, wanted }
    }
    if (isRepository(path)) return { kind: 'hub', repository: path, revision: 'main', wanted: undefined }
  }
  const file = decoded(url.pathname.split('/').at(-1)!)
  if (!/\.(?:gguf|obt)$/i.test(file) || !isSafePath(file))
    throw badUrl(name, 'is not the address of a .gguf or .obt file')
  return { kind: 'file', url }
}

function badUrl(name: string, problem: string): OnebitError {
  return new OnebitError('ERR_HUB_NAME', `${shown(name)} ${problem}`, {
    hint: 'Give https://…/FILE.gguf, or a model of the hub as hf:OWNER/NAME.',
  })
}

/** Of an address, which may have been written badly. */
export function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** What Windows takes for devices, whatever the ending. */
const DEVICE = /^(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)/i

/**
 * Whether a name from elsewhere may become a file below a folder of ours: relative, nothing that climbs, and nothing that means
 * something else on one of the systems.
 */
export function isSafePath(path: string): boolean {
  if (path === '' || path.length > 500) return false
  return path.split('/').every((part) => {
    return (
      part !== '' &&
      !/[\\:*?"<>|\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(part) &&
      !/^\.\.?$|[. ]$/.test(part) &&
      !DEVICE.test(part)
    )
  })
}
