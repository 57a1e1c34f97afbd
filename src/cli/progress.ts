/** A progress bar on stderr: only on a terminal, and only once something has taken half a second. With the time left when that is long. */
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
  // What was there before the first update is not this run's work.
  let first: number | undefined
  return {
    update(done, total) {
      const now = performance.now()
      first ??= done
      if (!process.stderr.isTTY || now - started < PATIENCE_MS || now - drawn < REDRAW_MS) return
      drawn = now
      const share = total > 0 ? Math.min(1, done / total) : 0
      const filled = Math.round(share * WIDTH)
      const bar = '█'.repeat(filled) + '░'.repeat(WIDTH - filled)
      process.stderr.write(
        `\r\x1b[K${label} ${bar} ${(share * 100).toFixed(0).padStart(3)} %${timeLeft(now - started, done - first, total - done)}`,
      )
    },
    done() {
      if (drawn > 0) process.stderr.write('\r\x1b[K')
    },
  }
}

const WORTH_TELLING_MS = 10_000

function timeLeft(tookMs: number, done: number, left: number): string {
  const ms = done > 0 ? (tookMs / done) * left : 0
  if (ms < WORTH_TELLING_MS) return ''
  return ms < 90_000 ? `, ${Math.round(ms / 1000)} s left` : `, ${Math.round(ms / 60_000)} min left`
}
