// Random numbers without hidden state: word = f(key, counter), so that any process can draw any element of any
// stream by itself. Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

import { cosTurns, logOf } from "./functions.ts";

const M0 = 0xd2511f53;
const M1 = 0xcd9e8d57;
const W0 = 0x9e3779b9;
const W1 = 0xbb67ae85;

/** High 32 bits of the product of two unsigned 32-bit integers. */
function mulHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const low = aLow * bLow;
  const middle = aHigh * bLow + (low >>> 16);
  const cross = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + Math.floor(middle / 65536) + (cross >>> 16)) >>> 0;
}

/**
 * Ten rounds over one counter.
 * @param out four words, overwritten with unsigned 32-bit numbers
 */
export function philox(
  out: Uint32Array,
  c0: number,
  c1: number,
  c2: number,
  c3: number,
  key0: number,
  key1: number,
): void {
  let k0 = key0 >>> 0;
  let k1 = key1 >>> 0;
  let x0 = c0 >>> 0;
  let x1 = c1 >>> 0;
  let x2 = c2 >>> 0;
  let x3 = c3 >>> 0;
  for (let round = 0; round < 10; round++) {
    const high0 = mulHigh(M0, x0);
    const high1 = mulHigh(M1, x2);
    const low0 = Math.imul(M0, x0) >>> 0;
    const low1 = Math.imul(M1, x2) >>> 0;
    x0 = (high1 ^ x1 ^ k0) >>> 0;
    x1 = low1;
    x2 = (high0 ^ x3 ^ k1) >>> 0;
    x3 = low0;
    k0 = (k0 + W0) >>> 0;
    k1 = (k1 + W1) >>> 0;
  }
  out[0] = x0;
  out[1] = x1;
  out[2] = x2;
  out[3] = x3;
}

/** Streams that share a seed and must not overlap: the last word of the counter's purpose. */
export const stream = { init: 1, sampler: 2, dropout: 3, decode: 4, codec: 5, opinion: 6 } as const;

/** The key of a stream: the seed's two halves, the purpose mixed into the high one. */
export function keyOf(seed: number, purpose: number): [number, number] {
  return [seed >>> 0, (Math.floor(seed / 2 ** 32) ^ Math.imul(purpose, 0x9e3779b1)) >>> 0];
}

/**
 * A sequence of numbers drawn from one counter line: words 4 k to 4 k + 3 come from (k low, a, b, k high).
 * For code that wants "the next one"; the state is only the position.
 */
export class PhiloxStream {
  readonly #key: [number, number];
  readonly #words = new Uint32Array(4);
  readonly #a: number;
  readonly #b: number;
  #position: number;

  /** @param first position of the first word; an element of a large tensor is drawn by itself so */
  constructor(seed: number, purpose: number, a = 0, b = 0, first = 0) {
    this.#key = keyOf(seed, purpose);
    this.#a = a;
    this.#b = b;
    this.#position = first;
  }

  /** The next unsigned 32-bit integer. */
  word(): number {
    const lane = this.#position % 4;
    if (lane === 0) {
      const counter = this.#position / 4; // philox takes it modulo 2^32
      philox(this.#words, counter, this.#a, this.#b, Math.floor(counter / 2 ** 32), this.#key[0], this.#key[1]);
    }
    this.#position++;
    return this.#words[lane]!;
  }

  /** Uniform in [0, 1) with 53 bits. */
  uniform(): number {
    const high = this.word() >>> 5;
    const low = this.word() >>> 6;
    return (high * 67108864 + low) / 9007199254740992;
  }

  /** Uniform integer in [0, n), without bias, by rejection. */
  below(n: number): number {
    const limit = Math.floor(9007199254740992 / n) * n;
    for (;;) {
      const draw = (this.word() >>> 5) * 67108864 + (this.word() >>> 6);
      if (draw < limit) return draw % n;
    }
  }

  /** Standard normal (Box & Muller 1958; one of the pair is used). */
  normal(): number {
    const u = 1 - this.uniform();
    const v = this.uniform();
    return Math.sqrt(-2 * logOf(u)) * cosTurns(v);
  }
}

/**
 * Dropout of one site in training: out[i] = 0 with probability p, else 1 / (1 - p).
 *
 * Element i is word i % 4 of the counter (k low, site + 65,536 times k high, shard, step), k = floor(i / 4), under the key of the stream `dropout`; it is
 * kept when the word is at least floor(p * 2^32). Engines must draw these very numbers, so that a gradient does not
 * depend on who computed it. Sites: 0 is the embedding sum (N, C); layer l has 1 + 3l for the attention probabilities
 * (B, H, T, T), 2 + 3l for the attention branch's output (N, C), 3 + 3l for the MLP branch's output (N, C).
 */
export function dropoutMask(
  out: Float32Array,
  p: number,
  at: { seed: number; step: number; shard: number; site: number },
): void {
  const [key0, key1] = keyOf(at.seed, stream.dropout);
  const threshold = Math.floor(p * 2 ** 32);
  const scale = 1 / (1 - p);
  const words = new Uint32Array(4);
  for (let i = 0; i < out.length; i += 4) {
    philox(words, i / 4, at.site + 65_536 * Math.floor(i / 2 ** 34), at.shard, at.step, key0, key1);
    const end = Math.min(4, out.length - i);
    for (let lane = 0; lane < end; lane++) out[i + lane] = words[lane]! >= threshold ? scale : 0;
  }
}
