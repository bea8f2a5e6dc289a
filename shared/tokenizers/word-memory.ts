// Words whose tokens are known. A word is looked up by its letters where it stands in a text, so that none is cut out of
// it: text is mostly words that came before, and finding them is most of an encoder's time.
import type { IdBuffer } from "./id-buffer.ts";

/** Numbers in all entries; the memory is emptied when it is full. 8 MiB, about 150,000 words. */
const capacity = 2 ** 21;
/** Longer words are not kept. */
const longest = 100;
/** Places looked at for a word. A text made to collide costs no more than that; its words are merged each time. */
const mostProbes = 16;

export class WordMemory {
  /** Open addressing: hash and entry of each word, entry 0 where a place is free. A power of two of them, half free. */
  #places = new Int32Array(2 * 1024);
  /** One after another: letters and tokens in number, then both. */
  #entries = new Int32Array(8 * 1024);
  #end = 1;
  #count = 0;

  /** Append the tokens of the word text[from, to). @returns false where it is not known */
  recall(text: string, from: number, to: number, out: IdBuffer): boolean {
    const [places, entries] = [this.#places, this.#entries];
    const hash = hashOf(text, from, to);
    const last = places.length - 2;
    for (let place = (hash << 1) & last, probes = 0; probes < mostProbes; place = (place + 2) & last, probes++) {
      const entry = places[place + 1]!;
      if (entry === 0) return false;
      if (places[place] !== hash || entries[entry] !== to - from) continue;
      let at = entry + 2;
      let i = from;
      while (i < to && text.charCodeAt(i) === entries[at]) {
        i++;
        at++;
      }
      if (i < to) continue;
      for (const end = at + entries[entry + 1]!; at < end; at++) out.push(entries[at]!);
      return true;
    }
    return false;
  }

  keep(text: string, from: number, to: number, tokens: Int32Array): void {
    const length = to - from;
    if (length > longest) return;
    const size = 2 + length + tokens.length;
    if (this.#end + size > capacity) this.#empty();
    if (this.#end + size > this.#entries.length) this.#entries = resized(this.#entries);
    if (4 * this.#count >= this.#places.length) this.#spread();
    const entry = this.#end;
    if (!this.#place(hashOf(text, from, to), entry)) return;
    const entries = this.#entries;
    entries[entry] = length;
    entries[entry + 1] = tokens.length;
    for (let i = 0; i < length; i++) entries[entry + 2 + i] = text.charCodeAt(from + i);
    entries.set(tokens, entry + 2 + length);
    this.#end += size;
    this.#count++;
  }

  #place(hash: number, entry: number): boolean {
    const places = this.#places;
    const last = places.length - 2;
    for (let place = (hash << 1) & last, probes = 0; probes < mostProbes; place = (place + 2) & last, probes++)
      if (places[place + 1] === 0) {
        places[place] = hash;
        places[place + 1] = entry;
        return true;
      }
    return false;
  }

  #spread(): void {
    const old = this.#places;
    this.#places = new Int32Array(2 * old.length);
    for (let place = 0; place < old.length; place += 2)
      if (old[place + 1] !== 0) this.#place(old[place]!, old[place + 1]!);
  }

  #empty(): void {
    this.#places.fill(0);
    this.#end = 1;
    this.#count = 0;
  }
}

function resized(entries: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(2 * entries.length);
  larger.set(entries);
  return larger;
}

/** FNV-1a over UTF-16 units, mixed at the end (Fowler, Noll, Vo). */
function hashOf(text: string, from: number, to: number): number {
  let hash = 0x811c9dc5;
  for (let i = from; i < to; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash ^ (hash >>> 15);
}
