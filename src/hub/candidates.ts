/** Which files of a repository make a model together. Names say what belongs together; what it is, headers say (look.ts). */
import { join } from 'node:path'
import { namesOfParts, parsePartName } from '../import/gguf-part-name.js'

export interface ListedFile {
  path: string
  bytes: number
}

/** A model of a repository, as far as names tell. */
export interface Candidate<File extends ListedFile = ListedFile> {
  /** what the user calls it: the first file, or the folder; '' is the repository itself */
  name: string
  kind: 'gguf' | 'obt' | 'folder'
  /** the first is where it is opened, but for folders */
  files: File[]
  bytes: number
}

/** Everything that importers look for beside the weights. */
const BESIDE = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer.model',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'chat_template.jinja',
  'chat_template.json',
]
/** The first that is there whole is the one that importers take. */
const WEIGHTS = [
  { single: 'model.safetensors', part: /^.*-(\d{5})-of-(\d{5})\.safetensors$/ },
  { single: 'pytorch_model.bin', part: /^.*-(\d{5})-of-(\d{5})\.bin$/ },
]

/** Models that are whole; parts of which some are missing make none. */
export function findCandidates<File extends ListedFile>(files: readonly File[]): Candidate<File>[] {
  return [...findFiles(files), ...findFolders(files)]
}

function candidate<File extends ListedFile>(name: string, kind: Candidate['kind'], files: File[]): Candidate<File> {
  return { name, kind, files, bytes: files.reduce((sum, { bytes }) => sum + bytes, 0) }
}

function findFiles<File extends ListedFile>(files: readonly File[]): Candidate<File>[] {
  const byPath = new Map(files.map((file) => [file.path, file]))
  return files.flatMap((file) => {
    const { path } = file
    if (/\.obt$/i.test(path)) return [candidate(path, 'obt', [file])]
    if (!/\.gguf$/i.test(path)) return []
    const names = partNames(path)
    if (parsePartName(path) && names[0] !== path) return []
    const parts = names.map((name) => byPath.get(name))
    return parts.every((part) => part !== undefined) ? [candidate(path, 'gguf', parts)] : []
  })
}

/** Names come from servers: they must not make lists of any length. */
const MOST_PARTS = 1000

/** The names of all files of the model that a file belongs to; of most that is only itself. */
export function partNames(name: string): string[] {
  const part = parsePartName(name)
  return part === undefined ? [name] : namesOfParts(part, MOST_PARTS)
}

/** Where a model in `folder` is opened. */
export function pathOf({ kind, name, files }: Candidate, folder: string): string {
  return join(folder, ...(kind === 'folder' ? name : files[0]!.path).split('/'))
}

function folderOf(path: string): string {
  return path.includes('/') ? path.slice(0, path.lastIndexOf('/')) : ''
}

function findFolders<File extends ListedFile>(files: readonly File[]): Candidate<File>[] {
  const configs = files.filter(({ path }) => path === 'config.json' || path.endsWith('/config.json'))
  return configs.flatMap(({ path: config }) => {
    const folder = folderOf(config)
    const inside = new Map(
      files
        .filter(({ path }) => folderOf(path) === folder)
        .map((file) => [file.path.slice(folder === '' ? 0 : folder.length + 1), file]),
    )
    const weights = WEIGHTS.map(({ single, part }) => weightFiles(inside, single, part)).find(
      (found) => found.length > 0,
    )
    if (weights === undefined) return []
    const beside = BESIDE.flatMap((name) => inside.get(name) ?? [])
    return [candidate(folder, 'folder', [...beside, ...weights])]
  })
}

/** One file, or an index with all the parts that their names speak of. */
function weightFiles<File>(inside: ReadonlyMap<string, File>, single: string, part: RegExp): File[] {
  const whole = inside.get(single)
  if (whole !== undefined) return [whole]
  const index = inside.get(`${single}.index.json`)
  const parts = [...inside].filter(([name]) => part.test(name))
  const count = Number(part.exec(parts[0]?.[0] ?? '')?.[2])
  return index !== undefined && parts.length === count ? [index, ...parts.map(([, file]) => file)] : []
}

const lower = (text: string) => text.toLowerCase()

/** Those that `wanted` names: a file, any part of one, or a folder. */
export function namedCandidates<C extends Candidate>(candidates: readonly C[], wanted: string): C[] {
  const isPart = parsePartName(wanted) !== undefined
  return candidates.filter(({ name, files }) => {
    const base = name.slice(name.lastIndexOf('/') + 1)
    return (
      [name, base].some((own) => own !== '' && lower(own) === lower(wanted)) ||
      (isPart && files.some(({ path }) => path === wanted))
    )
  })
}

/** Whether the name of a file has a type in it as a word: Q4_K_M, and not Q4_K in front of _M. */
export function mentionsType({ name }: Candidate, type: string): boolean {
  const escaped = lower(type).replace(/[^a-z0-9]/g, (sign) => `\\${sign}`)
  return new RegExp(`(?:^|[^a-z0-9])${escaped}(?:$|[^a-z0-9_])`).test(lower(name))
}
