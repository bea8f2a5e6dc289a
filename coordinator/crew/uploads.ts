// Room for vectors on their way in: a few at once however many workers send, so that the coordinator's memory does not
// grow with their number. Who finds no room waits at its own end of the wire, which loses nothing: the coordinator's link
// is the limit then, not its memory.
import type { VectorPool } from "../../shared/arithmetic/tree.ts";

/** Memory for vectors on their way in; two always fit, so that one sender's pause is another's turn. */
const uploadBytes = 2 ** 31;
/** A sender that takes so many times as long as the others do has had its turn. */
const patience = 4;

/** One vector on its way in. */
export interface Upload {
  readonly vector: Float32Array;
  readonly since: number;
}

export class Uploads {
  readonly #pool: VectorPool;
  readonly #most: number;
  readonly #now: () => number;
  readonly #open = new Map<Upload, () => void>();
  /** Each says whether anybody is still there. */
  readonly #waiting: (() => boolean)[] = [];
  /** Milliseconds that one takes, smoothed. */
  #usualMs: number | undefined;

  /** @param pool of vectors (P) */
  constructor(pool: VectorPool, now: () => number) {
    this.#pool = pool;
    this.#most = Math.max(2, Math.floor(uploadBytes / (4 * pool.length)));
    this.#now = now;
  }

  /** How many are on their way in. */
  get size(): number {
    return this.#open.size;
  }

  /**
   * Room for one vector, or undefined: then `again` is called once when it is worth asking again; it
   * returns false when nobody asks any more.
   * @param evict called when it takes so long that others need the room
   */
  begin(evict: () => void, again: () => boolean): Upload | undefined {
    if (this.#open.size >= this.#most) {
      this.#waiting.push(again);
      return undefined;
    }
    const upload = { vector: this.#pool.take(), since: this.#now() };
    this.#open.set(upload, evict);
    return upload;
  }

  /** It is whole; its vector is the caller's. */
  finish(upload: Upload): Float32Array {
    const took = this.#now() - upload.since;
    this.#usualMs = this.#usualMs === undefined ? took : this.#usualMs + 0.3 * (took - this.#usualMs);
    this.#end(upload);
    return upload.vector;
  }

  /** It will not become whole. */
  drop(upload: Upload): void {
    if (!this.#end(upload)) return;
    this.#pool.give(upload.vector);
  }

  /** Where others wait for room, end what takes far longer than usual. @param graceMs that it may take beyond that */
  evictSlow(graceMs: number): void {
    if (this.#waiting.length === 0 || this.#usualMs === undefined) return;
    for (const [{ since }, evict] of [...this.#open])
      if (this.#now() - since > patience * this.#usualMs + graceMs) evict();
  }

  #end(upload: Upload): boolean {
    if (!this.#open.delete(upload)) return false;
    while (this.#waiting.length > 0 && !this.#waiting.shift()!());
    return true;
  }
}
