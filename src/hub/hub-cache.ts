/**
 * The folder that Hugging Face's tools share: models--OWNER--NAME with the files' bytes by their hash (blobs), the names of each
 * commit as links to them (snapshots), and the commit that each branch was at (refs). What they have downloaded is found here,
 * and what is downloaded here they find.
 */
import {
  copyFile,
  lstat,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  rmdir,
  stat,
  symlink,
} from 'node:fs/promises'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { writeAtomically } from '../files/atomic-file.js'
import { cacheError } from './cache-errors.js'
import { hubCacheFolder, isSwitchedOn, makeFolder } from './cache-folder.js'
import { type DownloadSettings, download } from './download.js'
import { isSafePath } from './model-address.js'
import { COMMIT, fileUrl, type HubFile, type Repository } from './repository.js'

const PREFIX = 'models--'

export interface CachedFile {
  /** as the repository has it */
  path: string
  bytes: number
}

export interface Snapshot {
  commit: string
  folder: string
  files: CachedFile[]
}

/** What of one repository is on this machine. */
export class CachedRepository {
  readonly repository: string
  readonly folder: string
  readonly #locks: string

  constructor(repository: string, cache = hubCacheFolder()) {
    const name = PREFIX + repository.replace('/', '--')
    this.repository = repository
    this.folder = join(cache, name)
    this.#locks = join(cache, '.locks', name)
  }

  #blob(hash: string): string {
    return join(this.folder, 'blobs', hash)
  }

  /** Theirs, held by the system and not by being there, is HASH.lock. */
  #lock(hash: string): string {
    return join(this.#locks, `${hash}.onebit`)
  }

  /** Where the files of a commit are, whether there are any or not. */
  snapshotFolder(commit: string): string {
    return join(this.folder, 'snapshots', commit)
  }

  /** The commit that a revision was when it was last asked for. */
  async commitOf(revision: string): Promise<string | undefined> {
    if (COMMIT.test(revision)) return revision
    const text = await readFile(join(this.folder, 'refs', ...revision.split('/')), 'utf8').catch(() => '')
    return COMMIT.test(text.trim()) ? text.trim() : undefined
  }

  async writeRef(revision: string, commit: string): Promise<void> {
    if (COMMIT.test(revision) || (await this.commitOf(revision)) === commit) return
    const path = join(this.folder, 'refs', ...revision.split('/'))
    await makeFolder(dirname(path))
    await writeAtomically(path, async (file) => void (await file.writeFile(commit)))
  }

  /** Its files that are there whole; undefined when nothing is known of the commit. */
  async snapshot(commit: string): Promise<Snapshot | undefined> {
    const folder = this.snapshotFolder(commit)
    const names = await readdir(folder, { recursive: true }).catch(() => undefined)
    if (names === undefined) return undefined
    const files: CachedFile[] = []
    for (const name of names.sort()) {
      const found = await stat(join(folder, name)).catch(() => undefined) // a link may lead nowhere
      const path = name.split(sep).join('/')
      if (found?.isFile() && isSafePath(path)) files.push({ path, bytes: found.size })
    }
    return { commit, folder, files }
  }

  /** The newest first. */
  async snapshots(): Promise<Snapshot[]> {
    const commits = await readdir(join(this.folder, 'snapshots')).catch(() => [])
    const dated = await Promise.all(
      commits
        .filter((commit) => COMMIT.test(commit))
        .map(async (commit) => {
          const found = await stat(this.snapshotFolder(commit)).catch(() => undefined)
          return { commit, ms: found?.mtimeMs ?? 0 }
        }),
    )
    const found = dated.sort((a, b) => b.ms - a.ms).map(({ commit }) => this.snapshot(commit))
    return (await Promise.all(found)).filter((snapshot) => snapshot !== undefined)
  }

  /** Whether files are there whole. */
  async has({ commit }: Pick<Repository, 'commit'>, files: readonly CachedFile[]): Promise<boolean> {
    const sizes = await Promise.all(
      files.map(({ path }) =>
        stat(join(this.snapshotFolder(commit), path)).then(
          (found) => found.size,
          () => -1,
        ),
      ),
    )
    return files.every(({ bytes }, i) => sizes[i] === bytes)
  }

  /** Gets a file, unless it is there. @returns where it is, @throws OnebitError as download() */
  async fetch({ commit }: Pick<Repository, 'commit'>, file: HubFile, settings: DownloadSettings): Promise<string> {
    const link = join(this.snapshotFolder(commit), ...file.path.split('/'))
    const there = await stat(link).catch(() => undefined)
    if (there?.isFile() && there.size === file.bytes) {
      settings.onBytes?.(file.bytes)
      return link
    }
    const target = this.#blob(file.hash)
    const isNew = (await stat(target).catch(() => undefined)) === undefined
    await download(
      {
        url: fileUrl({ repository: this.repository, commit }, file.path),
        name: `${this.repository}:${file.path}`,
        bytes: file.bytes,
        hash: file.hash,
        target,
        lock: this.#lock(file.hash),
      },
      settings,
    )
    await makeFolder(dirname(link))
    await linkOrCopy(target, link, isNew)
    return link
  }

  /** Takes files of a snapshot away, and the bytes that nothing else leads to. @returns bytes that are free now */
  async remove(files: readonly { commit: string; path: string }[]): Promise<number> {
    const before = await this.bytes()
    for (const { commit, path } of files) {
      const folder = this.snapshotFolder(commit)
      await removeFile(join(folder, ...path.split('/')))
      await removeEmptyFolders(dirname(join(folder, ...path.split('/'))), join(this.folder, 'snapshots'))
    }
    const used = await this.#usedBlobs()
    for (const name of await readdir(join(this.folder, 'blobs')).catch(() => [])) {
      const hash = name.replace(/\.incomplete$/, '')
      const isComing = await stat(this.#lock(hash)).then(
        () => true,
        () => false,
      )
      if (!used.has(hash) && !isComing) await removeFile(join(this.folder, 'blobs', name))
    }
    return before - (await this.bytes())
  }

  /** @returns bytes that are free now */
  async removeAll(): Promise<number> {
    const bytes = await this.bytes()
    for (const folder of [this.folder, this.#locks]) {
      await rm(folder, { recursive: true, force: true }).catch((cause) => {
        throw cacheError(cause, folder)
      })
    }
    return bytes
  }

  /** Of everything that takes room: what is linked to counts once. */
  async bytes(): Promise<number> {
    const names = await readdir(this.folder, { recursive: true }).catch(() => [])
    const sizes = names.map(async (name) => {
      const found = await lstat(join(this.folder, name)).catch(() => undefined)
      return found?.isFile() ? found.size : 0
    })
    return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0)
  }

  async #usedBlobs(): Promise<Set<string>> {
    const root = join(this.folder, 'snapshots')
    const names = await readdir(root, { recursive: true }).catch(() => [])
    const targets = names.map(async (name) => {
      const link = join(root, name)
      const target = await readlink(link).catch(() => undefined)
      return target === undefined ? '' : resolve(dirname(link), target).split(sep).at(-1)!
    })
    return new Set(await Promise.all(targets))
  }
}

/** Every repository of models in the cache, by its name. */
export async function cachedRepositories(cache = hubCacheFolder()): Promise<CachedRepository[]> {
  const names = await readdir(cache).catch(() => [])
  return names
    .filter((name) => name.startsWith(PREFIX))
    .sort()
    .map((name) => new CachedRepository(name.slice(PREFIX.length).replace('--', '/'), cache))
}

async function removeFile(path: string): Promise<void> {
  await rm(path, { force: true }).catch((cause) => {
    throw cacheError(cause, path)
  })
}

/** Up to a folder that stays. */
async function removeEmptyFolders(folder: string, last: string): Promise<void> {
  for (let at = folder; at !== last && at.startsWith(last); at = dirname(at)) {
    if (
      !(await rmdir(at).then(
        () => true,
        () => false,
      ))
    )
      return
  }
}

/**
 * A link as Hugging Face's tools make it. Where the system allows none, as Windows does by default, they move a new file there
 * and copy one that is older; so do we.
 */
async function linkOrCopy(blob: string, link: string, isNew: boolean): Promise<void> {
  await removeFile(link)
  if (!isSwitchedOn('HF_HUB_DISABLE_SYMLINKS')) {
    const from = await realpath(dirname(link))
    const made = await symlink(relative(from, await realpath(blob)), link).then(
      () => undefined,
      (cause: NodeJS.ErrnoException) => cause,
    )
    if (made === undefined || made.code === 'EEXIST') return // another process was as fast
  }
  const temporary = `${link}.${process.pid}.incomplete`
  try {
    if (isNew) return await rename(blob, link)
    await copyFile(blob, temporary)
    await rename(temporary, link)
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => {})
    throw cacheError(cause, link)
  }
}
