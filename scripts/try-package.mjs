// The tarball as a user gets it: node scripts/try-package.mjs TARBALL [--write FILE | --expect FILE]. Installs it in an empty project,
// running no script of anybody's, and has it compute on every path of this machine; --write keeps the answer, --expect compares
// with the one that another machine has kept. Needs nothing of the clone but this folder.
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const SCRIPT = fileURLToPath(import.meta.url)
export const PROBE = 'package-probe.mjs'

/** A new project with the tarball installed and the probe beside it. @returns its folder */
export function makeConsumer(tarball) {
  const folder = mkdtempSync(join(tmpdir(), 'onebit é -')) // a blank and an accent, as names of users have them
  writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }\n')
  cpSync(tarball, join(folder, basename(tarball)))
  const argv = ['install', '--ignore-scripts', '--no-audit', '--no-fund', `./${basename(tarball)}`]
  const shell = process.platform === 'win32' // npm is a batch file there
  const { status, stderr, error } = spawnSync('npm', argv, { cwd: folder, encoding: 'utf8', shell })
  if (status !== 0) throw new Error(`npm ${argv.join(' ')}: ${error?.message ?? stderr}`)
  cpSync(join(dirname(SCRIPT), PROBE), join(folder, PROBE))
  return folder
}

/** What a probe that has ended says: { logits, text, compiler }, or { failure }. */
export function readAnswer({ status, signal, stdout, stderr, error }) {
  const line = `${stdout ?? ''}`.trim().split('\n').at(-1)
  if (status === 0 && line.startsWith('{')) return JSON.parse(line)
  return { failure: error?.message ?? `${signal ?? `status ${status}`}: ${`${stderr ?? ''}`.trim().slice(-600)}` }
}

/** How an answer differs from the one that is right, or undefined. All paths of both have to have the same logits. */
export function difference(expected, found) {
  if (found.failure) return found.failure
  const paths = Object.keys(found.logits)
  const hashes = new Set([...Object.values(found.logits), ...Object.values(expected.logits)])
  if (paths.length === 0 || hashes.size !== 1) return `other logits: ${JSON.stringify(found.logits)}`
  if (found.text !== expected.text) return `another text: ${JSON.stringify(found.text)}`
  return undefined
}

function main([tarball, option, file]) {
  if (!tarball || (option && !(['--write', '--expect'].includes(option) && file))) {
    console.error('usage: node scripts/try-package.mjs TARBALL [--write FILE | --expect FILE]')
    return 2
  }
  const folder = makeConsumer(resolve(tarball))
  const found = readAnswer(spawnSync(process.execPath, [PROBE], { cwd: folder, encoding: 'utf8' }))
  rmSync(folder, { recursive: true, maxRetries: 3 })
  const expected = option === '--expect' ? JSON.parse(readFileSync(file, 'utf8')) : found
  const problem = difference(expected, found)
  if (problem !== undefined) {
    console.error(problem)
    return 1
  }
  if (option === '--write') writeFileSync(file, `${JSON.stringify(found)}\n`)
  console.log(
    `${process.platform}-${process.arch}, node ${process.version}, ${Object.keys(found.logits).join(', ')}: ${found.text}`,
  )
  return 0
}

if (process.argv[1] === SCRIPT) process.exitCode = main(process.argv.slice(2))
