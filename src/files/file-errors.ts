/** What the operating system says about files, in our codes and in sentences that tell what to do. */
import { OnebitError } from '../errors.js'

interface Explanation {
  code: string
  problem: string
  hint?: string
}

const READING: Record<string, Explanation> = {
  ENOENT: { code: 'ERR_FILE_NOT_FOUND', problem: 'does not exist', hint: 'Check the path.' },
  ENOTDIR: {
    code: 'ERR_FILE_NOT_FOUND',
    problem: 'does not exist: part of its path is a file',
    hint: 'Check the path.',
  },
  EISDIR: { code: 'ERR_IS_DIRECTORY', problem: 'is a folder, not a file' },
  EACCES: { code: 'ERR_ACCESS', problem: 'may not be read by this user' },
  EPERM: { code: 'ERR_ACCESS', problem: 'may not be read by this user' },
}

const WRITING: Record<string, Explanation> = {
  ENOENT: {
    code: 'ERR_NO_FOLDER',
    problem: 'cannot be written: its folder does not exist',
    hint: 'Make the folder first.',
  },
  ENOTDIR: { code: 'ERR_NO_FOLDER', problem: 'cannot be written: part of its path is a file', hint: 'Check the path.' },
  EISDIR: { code: 'ERR_IS_DIRECTORY', problem: 'is a folder', hint: 'Give the name of a file.' },
  EACCES: { code: 'ERR_ACCESS', problem: 'cannot be written: no permission for its folder' },
  EPERM: { code: 'ERR_ACCESS', problem: 'cannot be written: no permission' },
  EROFS: { code: 'ERR_READ_ONLY', problem: 'cannot be written: the file system is read-only' },
  ENOSPC: {
    code: 'ERR_DISK_FULL',
    problem: 'cannot be written: the disk is full',
    hint: 'Free some space; nothing was left behind.',
  },
  EDQUOT: {
    code: 'ERR_DISK_FULL',
    problem: 'cannot be written: the disk quota is used up',
    hint: 'Free some space; nothing was left behind.',
  },
}

/** An OnebitError for a failed system call on `path`; errors that are none are returned as they are. */
export function fileError(cause: unknown, path: string, doing: 'reading' | 'writing'): unknown {
  if (cause instanceof OnebitError || !(cause instanceof Error)) return cause
  const system = (cause as NodeJS.ErrnoException).code
  if (system === undefined || (cause as NodeJS.ErrnoException).syscall === undefined) return cause
  const known = (doing === 'reading' ? READING : WRITING)[system]
  if (known === undefined) {
    return new OnebitError('ERR_IO', `${path}: ${doing} failed (${system})`, { cause })
  }
  return new OnebitError(known.code, `${path} ${known.problem}`, { ...(known.hint && { hint: known.hint }), cause })
}
