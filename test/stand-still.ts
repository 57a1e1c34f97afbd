/** Holds this process up, as a system that stops it for a while does: neither timers nor messages are looked at meanwhile. */
export function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}
