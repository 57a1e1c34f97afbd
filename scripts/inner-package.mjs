// Packages of their own inside this one (test/clients, docs/api), so that nobody who only runs models installs what they need:
// each is installed when it is first needed, and again when its lock file is another one.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const hashOf = (file) => createHash('sha256').update(readFileSync(file)).digest('hex')
const isStamped = (stamp, file) => existsSync(stamp) && readFileSync(stamp, 'utf8') === hashOf(file)
const stampOf = (folder) => join(folder, 'node_modules', '.installed')
const lockOf = (folder) => join(folder, 'package-lock.json')

/** Runs `install` unless it has ended well for the same file before. @returns the reason why it could not */
export function installOnce(stamp, file, install) {
  if (isStamped(stamp, file)) return undefined
  const reason = install()
  if (reason === undefined) writeFileSync(stamp, hashOf(file))
  return reason
}

/** Whether `installPackage` has nothing to do. */
export function isInstalled(folder) {
  return isStamped(stampOf(folder), lockOf(folder))
}

/** @returns the reason why the package in this folder could not be installed; `what`: its name in sentences */
export function installPackage(folder, what) {
  return installOnce(stampOf(folder), lockOf(folder), () => {
    console.log(`installing ${what} into ${join(folder, 'node_modules')} ...`)
    const npm = process.env.npm_execpath
    const [command, first] = npm ? [process.execPath, [npm]] : [process.platform === 'win32' ? 'npm.cmd' : 'npm', []]
    const argv = [...first, 'ci', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error']
    const shell = !npm && process.platform === 'win32'
    const ended = spawnSync(command, argv, { cwd: folder, encoding: 'utf8', shell })
    return ended.status === 0 ? undefined : `${what} could not be installed (${firstError(ended)})`
  })
}

/** What a program that failed says first of its errors. */
export function firstError({ stderr, error }) {
  const lines = `${stderr}`.trim().split('\n')
  return error?.message ?? lines.find((line) => /error/i.test(line)) ?? lines.at(-1)
}
