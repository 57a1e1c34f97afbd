// What a process takes while a soak goes on: memory and open files, looked at once a second.
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'

const EVERY_MS = 1000

/** MB (1e6 bytes) of a process in memory, or undefined where this system does not tell. */
function residentMb(pid) {
  if (process.platform === 'linux') {
    const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
    return kib === undefined ? undefined : (Number(kib) * 1024) / 1e6
  }
  if (process.platform === 'win32') return undefined
  const { status, stdout } = spawnSync('ps', ['-o', 'rss=', '-p', String(pid)], { encoding: 'utf8' })
  return status === 0 ? (Number(stdout) * 1024) / 1e6 : undefined
}

/** Open files and sockets, or undefined. */
export function openFiles(pid) {
  return process.platform === 'linux' ? readdirSync(`/proc/${pid}/fd`).length : undefined
}

export class ProcessWatch {
  #samples = []
  #timer

  constructor(pid) {
    this.#timer = setInterval(() => {
      try {
        const mb = residentMb(pid)
        if (mb !== undefined) this.#samples.push(mb)
      } catch {
        // It has ended; whoever started it says so.
      }
    }, EVERY_MS)
  }

  get now() {
    return this.#samples.at(-1)
  }

  /**
   * Looks no more; the least of each quarter of the time, or undefined where there is not enough. The least is what stays: how much
   * lies above it at some moment, until it is collected, is chance.
   */
  end() {
    clearInterval(this.#timer)
    const quarter = Math.floor(this.#samples.length / 4)
    if (quarter < 10) return undefined
    return [0, 1, 2, 3].map((i) => Math.min(...this.#samples.slice(i * quarter, (i + 1) * quarter)))
  }
}
