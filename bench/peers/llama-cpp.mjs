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

/** Installs the peer unless it is there. */
export function ensurePeer() {
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
 * The instruction sets that the peer's chosen build computes with, from a line such as `CPU : SSE3 = 1 | AVX2 = 1 |`.
 * It loads the build that fits the processor when it starts.
 */
function instructionSets(systemInfo) {
  const on = [...systemInfo.matchAll(/(\w+) = 1\b/g)].map(([, name]) => name)
  return on.filter((name) => /^(AVX|FMA|F16C|NEON|DOTPROD|MATMUL_INT8|SVE|SME|AMX)/.test(name))
}

/**
 * A model of the peer, on the CPU, with one sequence.
 * @param {{ path: string, threads?: number, context?: number, kv?: 'F16' | 'F32', flashAttention?: boolean }} options
 */
export async function openPeer({ path, threads = 1, context = 1024, kv = 'F16', flashAttention = false }) {
  ensurePeer()
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
    uses: instructionSets(llama.systemInfo),
    vocabSize: model.fileInfo.metadata.tokenizer.ggml.tokens.length,
    context: opened,
    sequence: opened.getSequence(),
    close: () => llama.dispose(),
  }
}
