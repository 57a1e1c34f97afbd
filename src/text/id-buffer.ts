/** A growing list of token ids; arrays of numbers would take twice the memory and cannot cross threads for free. */
export class IdBuffer {
  #ids = new Int32Array(256)
  #length = 0

  get length(): number {
    return this.#length
  }

  push(id: number): void {
    this.#reserve(1)
    this.#ids[this.#length++] = id
  }

  append(ids: Int32Array): void {
    this.#reserve(ids.length)
    this.#ids.set(ids, this.#length)
    this.#length += ids.length
  }

  first(): number | undefined {
    return this.#length > 0 ? this.#ids[0] : undefined
  }

  take(): Int32Array {
    return this.#ids.slice(0, this.#length)
  }

  #reserve(extra: number): void {
    if (this.#length + extra <= this.#ids.length) return
    const grown = new Int32Array(Math.max(this.#length + extra, this.#ids.length * 2))
    grown.set(this.#ids.subarray(0, this.#length))
    this.#ids = grown
  }
}
