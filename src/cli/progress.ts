/** A progress bar on stderr: only on a terminal, and only once something has taken half a second. */
export interface ProgressBar {
  update(done: number, total: number): void
  done(): void
}

const WIDTH = 30
const PATIENCE_MS = 500
const REDRAW_MS = 100

export function progressBar(label: string): ProgressBar {
  const started = performance.now()
  let drawn = 0
  return {
    update(done, total) {
      const now = performance.now()
      if (!process.stderr.isTTY || now - started < PATIENCE_MS || now - drawn < REDRAW_MS) return
      drawn = now
      const share = total > 0 ? Math.min(1, done / total) : 0
      const filled = Math.round(share * WIDTH)
      const bar = '█'.repeat(filled) + '░'.repeat(WIDTH - filled)
      process.stderr.write(`\r\x1b[K${label} ${bar} ${(share * 100).toFixed(0).padStart(3)} %`)
    },
    done() {
      if (drawn > 0) process.stderr.write('\r\x1b[K')
    },
  }
}
