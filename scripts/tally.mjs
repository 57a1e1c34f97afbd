// How every runner here counts, and the line by which one runner reads another: `N passed, N failed, N skipped`.

const LINE = /^(\d+) passed, (\d+) failed, (\d+) skipped\s*$/gm

export class Tally {
  passed = 0
  failed = 0
  skipped = 0

  add({ passed, failed, skipped }) {
    this.passed += passed
    this.failed += failed
    this.skipped += skipped
  }

  /** One check that did not hold, with what is wrong. */
  fail(what) {
    this.failed++
    console.error(`FAILED: ${what}`)
  }

  /** One check that this machine cannot make, with the reason. */
  skip(what) {
    this.skipped++
    console.error(`skipped: ${what}`)
  }

  /**
   * The last count in a program's output. A program that ends badly without having counted a failure, or that counts
   * nothing at all, is itself a failure: a crash must not read as "0 failed".
   */
  addRun(name, { status, signal, output }) {
    const last = [...output.matchAll(LINE)].at(-1)
    if (!last) return this.fail(`${name} ended without a count (${signal ?? `exit status ${status}`})`)
    const [passed, failed, skipped] = last.slice(1).map(Number)
    this.add({ passed, failed, skipped })
    if (status !== 0 && failed === 0) this.fail(`${name} ended with ${signal ?? `exit status ${status}`}`)
  }

  /** Prints the sum as the last line and sets the exit status. */
  finish() {
    console.log(`${this.passed} passed, ${this.failed} failed, ${this.skipped} skipped`)
    process.exitCode = this.failed === 0 ? 0 : 1
  }
}
