// Peers that come as Python packages: the engines that run BitNet and Bonsai 2 on a CPU. They are installed on demand into
// an environment below scratch/ (not kept by git) and are never a dependency of this package.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { SCRATCH } from './llama-cpp.mjs'

const HERE = dirname(fileURLToPath(import.meta.url))
const FOLDER = join(SCRATCH, 'peers', 'python')
export const PYTHON = join(FOLDER, ...(process.platform === 'win32' ? ['Scripts', 'python.exe'] : ['bin', 'python']))

export const PYTHON_PEERS = { 'ik-llama-cpp-python': '0.1.5', 'llama-cpp-py-sync': '0.11739' }

function run(command, ...argv) {
  const { status } = spawnSync(command, argv, { stdio: ['ignore', 2, 2] })
  if (status !== 0) throw new Error(`${command} ${argv.join(' ')} failed: this peer needs Python 3.10 to 3.13 with pip`)
}

function printed(...argv) {
  return spawnSync(PYTHON, argv, { encoding: 'utf8' }).stdout?.trim()
}

/** Installs the peer unless it is there. */
export function ensurePythonPeer(name) {
  const version = PYTHON_PEERS[name]
  if (!existsSync(PYTHON)) {
    mkdirSync(dirname(FOLDER), { recursive: true })
    run('python3', '-m', 'venv', FOLDER)
  }
  const ask = 'import importlib.metadata as m, sys; print(m.version(sys.argv[1]))'
  if (printed('-c', ask, name) === version) return
  run(PYTHON, '-m', 'pip', 'install', '--quiet', '--only-binary', ':all:', `${name}==${version}`)
  if (name !== 'llama-cpp-py-sync' || process.platform !== 'linux' || process.arch !== 'x64') return
  const site = printed('-c', 'import sysconfig; print(sysconfig.get_path("purelib"))')
  run(PYTHON, join(HERE, 'older-glibc.py'), join(site, 'llama_cpp_py_sync'))
}
