// The peer: llama.cpp through node-llama-cpp, the way most Node programs run a local model. It is installed on demand
// below scratch/ (not kept by git) and is never a dependency of this package.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
export const SCRATCH = process.env.ONEBIT_SCRATCH ?? join(ROOT, 'scratch')
export const PEER_VERSION = '3.22.1'

const FOLDER = join(SCRATCH, 'peers')
const PACKAGE = join(FOLDER, 'node_modules', 'node-llama-cpp')

function install() {
  const manifest = join(PACKAGE, 'package.json')
  if (existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).version === PEER_VERSION) return
  mkdirSync(FOLDER, { recursive: true })
  writeFileSync(join(FOLDER, 'package.json'), '{ "private": true }\n')
  // Its binaries are npm packages; its install script would only look for something to download or compile.
  const argv = ['install', '--ignore-scripts', '--no-audit', '--no-fund', `node-llama-cpp@${PEER_VERSION}`]
  const npm = process.env.npm_execpath
  const { status } = npm
    ? spawnSync(process.execPath, [npm, ...argv], { cwd: FOLDER, stdio: ['ignore', 2, 2] })
    : spawnSync('npm', argv, { cwd: FOLDER, stdio: ['ignore', 2, 2], shell: process.platform === 'win32' })
  if (status !== 0) throw new Error(`npm could not install node-llama-cpp@${PEER_VERSION} in ${FOLDER}`)
}

/**
 * A model of the peer, on the CPU, with one sequence.
 * @param {{ path: string, threads?: number, context?: number, kv?: 'F16' | 'F32', flashAttention?: boolean }} options
 */
export async function openPeer({ path, threads = 1, context = 1024, kv = 'F16', flashAttention = false }) {
  install()
  const { getLlama } = await import(pathToFileURL(join(PACKAGE, 'dist', 'index.js')).href)
  const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error', maxThreads: threads })
  const model = await llama.loadModel({ modelPath: path })
  const { tag } = JSON.parse(readFileSync(join(PACKAGE, 'llama', 'llama.cpp.info.json'), 'utf8'))
  const opened = await model.createContext({
    contextSize: context,
    batchSize: 512,
    threads,
    flashAttention,
    experimentalKvCacheKeyType: kv,
    experimentalKvCacheValueType: kv,
  })
  return {
    version: `node-llama-cpp ${PEER_VERSION} (llama.cpp ${tag})`,
    vocabSize: model.fileInfo.metadata.tokenizer.ggml.tokens.length,
    context: opened,
    sequence: opened.getSequence(),
    close: () => llama.dispose(),
  }
}
