// The ids of a text while it is being encoded.

/** Ids that grow in number. */
export class IdBuffer {
  #ids = new Int32Array(1024);
  #length = 0;

  push(id: number): void {
    if (this.#length === this.#ids.length) this.#reserve(1);
    this.#ids[this.#length++] = id;
  }

  append(ids: Int32Array): void {
    if (this.#length + ids.length > this.#ids.length) this.#reserve(ids.length);
    this.#ids.set(ids, this.#length);
    this.#length += ids.length;
  }

  get ids(): Int32Array {
    return this.#ids.slice(0, this.#length);
  }

  #reserve(more: number): void {
    const larger = new Int32Array(Math.max(2 * this.#ids.length, this.#length + more));
    larger.set(this.#ids);
    this.#ids = larger;
  }
}
