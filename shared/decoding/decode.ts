// Text from a model, token by token: greedy, or drawn with temperature, top-k (Fan et al. 2018), top-p (Holtzman et al.
// 2020, arXiv:1904.09751) and a repetition penalty (Keskar et al. 2019, arXiv:1909.05858). Beams are in beam.ts.

import { firstNonFinite } from "../arithmetic/finite.ts";
import { PhiloxStream, stream } from "../arithmetic/philox.ts";
import { ConfigError } from "../errors.ts";

/** What decoding needs of an engine (worker/engine/contract.ts): sequences that grow, with logits after their last tokens. */
export interface Decodable {
  readonly model: { readonly blockSize: number; readonly vocabSize: number };
  generation(rows: number): Promise<GrowingRows>;
}

export interface GrowingRows {
  readonly lengths: readonly number[];
  feed(tokens: readonly Int32Array[]): Promise<Float32Array>;
  reorder(from: readonly number[]): Promise<void>;
  clear(row: number): void;
  dispose(): void;
}

export interface SampleOptions {
  /** Most tokens that a sample gets. */
  readonly tokens: number;
  /** Logits are divided by this; 0 always takes the likeliest token. */
  readonly temperature: number;
  /** Draw from the k likeliest tokens; 0 from all. */
  readonly topK: number;
  /** Draw from the fewest likeliest tokens whose probability reaches this; 1 from all. */
  readonly topP: number;
  /** Logits of tokens that the text already has are divided by this, or multiplied where they are negative; 1 leaves them. */
  readonly repetitionPenalty: number;
  /** Continuations drawn side by side. */
  readonly samples: number;
  readonly seed: number;
  /** Is this continuation (prompt excluded) complete, whatever its length? */
  readonly finished: (continuation: readonly number[]) => boolean;
  /** Is there a token of this id? Others are never drawn: models pad their vocabulary. Default: all. */
  readonly has?: ((id: number) => boolean) | undefined;
}

/** The next token of one sample. */
export interface Drawn {
  readonly sample: number;
  readonly token: number;
}

/**
 * Continue a prompt. Sample i of a seed is the same whatever the other samples do, and the same on every engine of
 * equal arithmetic.
 * @throws ConfigError on an empty prompt
 */
export async function* sample(
  engine: Decodable,
  prompt: Int32Array,
  options: SampleOptions,
): AsyncGenerator<Drawn, void> {
  const { samples, tokens, seed, finished } = options;
  const random = Array.from({ length: samples }, (_, i) => new PhiloxStream(seed, stream.decode, i));
  const scratch = new Float32Array(engine.model.vocabSize);
  const open = new Set(random.keys());
  const rows = await Continuations.start(engine, prompt, samples, options.has);
  try {
    for (let count = 0; count < tokens && open.size > 0; count++) {
      if (count > 0) await rows.compute(open);
      for (const i of open) {
        const logits = rows.logits(i);
        penalise(logits, rows.sequence(i), options.repetitionPenalty);
        const token = draw(logits, options, random[i]!, scratch);
        rows.append(i, token);
        yield { sample: i, token };
        if (finished(rows.continuation(i))) open.delete(i);
      }
    }
  } finally {
    rows.dispose();
  }
}

/**
 * Sequences that go on from one prompt. When one outgrows the block, the model sees its last blockSize tokens at
 * positions 0.., as nanoGPT crops: keys and values are computed anew then, because every position has changed.
 */
export class Continuations {
  readonly #rows: GrowingRows;
  readonly #blockSize: number;
  readonly #vocabSize: number;
  readonly #promptLength: number;
  /** Ids without a token. */
  readonly #absent: readonly number[];
  #sequences: number[][];
  #logits: Float32Array;

  private constructor(
    rows: GrowingRows,
    engine: Decodable,
    prompt: Int32Array,
    sequences: number[][],
    absent: readonly number[],
  ) {
    this.#rows = rows;
    this.#absent = absent;
    this.#blockSize = engine.model.blockSize;
    this.#vocabSize = engine.model.vocabSize;
    this.#promptLength = prompt.length;
    this.#sequences = sequences;
    this.#logits = new Float32Array(sequences.length * this.#vocabSize);
  }

  /** Feeds the prompt once, whatever the number of rows, and computes their logits. */
  static async start(
    engine: Decodable,
    prompt: Int32Array,
    count: number,
    has: (id: number) => boolean = () => true,
  ): Promise<Continuations> {
    const { vocabSize } = engine.model;
    const absent = Array.from({ length: vocabSize }, (_, id) => id).filter((id) => !has(id));
    if (absent.length === vocabSize) throw new ConfigError("the tokenizer has no token for any id of the model");
    if (prompt.length === 0) throw new ConfigError("the prompt is empty: a model continues at least one token");
    const sequences = Array.from({ length: count }, () => [...prompt]);
    const all = new Continuations(await engine.generation(count), engine, prompt, sequences, absent);
    try {
      await all.compute([0]);
      if (count > 1) await all.#rows.reorder(sequences.map(() => 0));
      for (let i = 1; i < count; i++) all.logits(i).set(all.logits(0));
      return all;
    } catch (error) {
      all.dispose();
      throw error;
    }
  }

  /** All tokens of row i, the prompt first. */
  sequence(i: number): readonly number[] {
    return this.#sequences[i]!;
  }

  continuation(i: number): readonly number[] {
    return this.#sequences[i]!.slice(this.#promptLength);
  }

  append(i: number, token: number): void {
    this.#sequences[i]!.push(token);
  }

  /** (V) after the last token of row i, -infinity for ids without a token; the caller may change them. */
  logits(i: number): Float32Array {
    return this.#logits.subarray(i * this.#vocabSize, (i + 1) * this.#vocabSize);
  }

  /** Compute the logits of these rows with all that was appended. @throws ConfigError where one is not finite */
  async compute(which: Iterable<number>): Promise<void> {
    const feed = this.#sequences.map(() => new Int32Array(0));
    const chosen = [...which];
    for (const i of chosen) {
      const sequence = this.#sequences[i]!;
      const held = this.#rows.lengths[i]!;
      const slides = sequence.length > this.#blockSize;
      if (slides) this.#rows.clear(i);
      feed[i] = Int32Array.from(slides ? sequence.slice(-this.#blockSize) : sequence.slice(held));
    }
    const logits = await this.#rows.feed(feed);
    for (const i of chosen) {
      const own = this.logits(i);
      own.set(logits.subarray(i * this.#vocabSize, (i + 1) * this.#vocabSize));
      const bad = firstNonFinite(own);
      if (bad >= 0)
        throw new ConfigError(
          `the model's logit of id ${bad} after ${this.#sequences[i]!.length} tokens is ${own[bad]}: its weights are too large for float32; take another checkpoint`,
        );
      for (const id of this.#absent) own[id] = Number.NEGATIVE_INFINITY;
    }
  }

  /** Row i goes on from what row from[i] held. */
  async reorder(from: readonly number[]): Promise<void> {
    await this.#rows.reorder(from);
    this.#sequences = from.map((row) => [...this.#sequences[row]!]);
  }

  dispose(): void {
    this.#rows.dispose();
  }
}

/** Make tokens that the sequence already has less likely, in place. */
export function penalise(logits: Float32Array, sequence: readonly number[], penalty: number): void {
  if (penalty === 1) return;
  for (const token of new Set(sequence)) {
    const logit = logits[token]!;
    logits[token] = logit > 0 ? logit / penalty : logit * penalty;
  }
}

/**
 * One token.
 * @param logits (V)
 * @param scratch (V) overwritten
 */
export function draw(
  logits: Float32Array,
  { temperature, topK, topP }: Pick<SampleOptions, "temperature" | "topK" | "topP">,
  random: PhiloxStream,
  scratch: Float32Array,
): number {
  const best = argmax(logits);
  if (temperature === 0) return best;
  const highest = logits[best]!;
  const weight = (logit: number): number => Math.exp((logit - highest) / temperature);
  const least = threshold(logits, topK, topP, weight, scratch);
  let total = 0;
  for (const logit of logits) if (logit >= least) total += weight(logit);
  // The token in whose stretch of the cumulative sum the draw falls; rounding may leave it past the last one.
  let left = random.uniform() * total;
  let last = best;
  for (let token = 0; token < logits.length; token++) {
    if (logits[token]! < least || logits[token] === Number.NEGATIVE_INFINITY) continue;
    last = token;
    left -= weight(logits[token]!);
    if (left < 0) break;
  }
  return last;
}

/** The lowest logit that top-k, then top-p among those, leave in the draw; equal ones stay together. */
function threshold(
  logits: Float32Array,
  topK: number,
  topP: number,
  weight: (logit: number) => number,
  scratch: Float32Array,
): number {
  if ((topK === 0 || topK >= logits.length) && topP >= 1) return Number.NEGATIVE_INFINITY;
  scratch.set(logits);
  const kept = largest(scratch, topK === 0 ? logits.length : Math.min(topK, logits.length));
  if (topP >= 1) return kept[kept.length - 1]!;
  let total = 0;
  for (const logit of kept) total += weight(logit);
  let reached = 0;
  for (const logit of kept) {
    reached += weight(logit);
    if (reached >= topP * total) return logit;
  }
  return kept[kept.length - 1]!;
}

/**
 * The k largest, in descending order, by Hoare's quickselect (1961): sorting 50,257 logits at every token takes 7 ms,
 * this 1.5 ms.
 * @param x overwritten; the result is a view of it
 */
export function largest(x: Float32Array, k: number): Float32Array {
  let low = 0;
  let high = x.length - 1;
  while (low < high && k < x.length) {
    const pivot = x[(low + high) >>> 1]!;
    let i = low;
    let j = high;
    while (i <= j) {
      while (x[i]! > pivot) i++;
      while (x[j]! < pivot) j--;
      if (i > j) break;
      const swapped = x[i]!;
      x[i++] = x[j]!;
      x[j--] = swapped;
    }
    if (k <= j + 1) high = j;
    else if (k > i) low = i;
    else break;
  }
  return x.subarray(0, k).sort().reverse();
}

/** The first of the highest. */
export function argmax(x: Float32Array): number {
  let best = 0;
  for (let i = 1; i < x.length; i++) if (x[i]! > x[best]!) best = i;
  return best;
}
