// A model without weights, for tests of decoding: its logits are random but fixed numbers that depend on every token
// it sees and on their order. It refuses what the contract of Generation forbids.

import { PhiloxStream } from "../shared/arithmetic/philox.ts";
import type { Decodable, GrowingRows } from "../shared/decoding/decode.ts";

export class ToyModel implements Decodable {
  readonly model: { blockSize: number; vocabSize: number };
  /** Tokens fed in all, to see what is computed twice. */
  fed = 0;
  open = 0;
  /** Waited for before each token, by a model that takes its time. */
  pace: () => Promise<unknown> = async () => {};

  constructor(blockSize: number, vocabSize: number) {
    this.model = { blockSize, vocabSize };
  }

  /** (V) logits after these tokens. */
  logitsAfter(tokens: readonly number[]): Float32Array {
    let hash = 17;
    for (const token of tokens) hash = (Math.imul(hash, 31) + token + 1) >>> 0;
    const random = new PhiloxStream(hash, 99);
    return Float32Array.from({ length: this.model.vocabSize }, () => 3 * random.normal());
  }

  async generation(rows: number): Promise<GrowingRows> {
    const { blockSize, vocabSize } = this.model;
    let held: number[][] = Array.from({ length: rows }, () => []);
    this.open++;
    return {
      get lengths() {
        return held.map((tokens) => tokens.length);
      },
      feed: async (added) => {
        await this.pace();
        const logits = new Float32Array(rows * vocabSize);
        for (const [row, tokens] of added.entries()) {
          held[row]!.push(...tokens);
          this.fed += tokens.length;
          if (held[row]!.length > blockSize) throw new Error(`row ${row} holds ${held[row]!.length} of ${blockSize}`);
          if (held[row]!.length > 0) logits.set(this.logitsAfter(held[row]!), row * vocabSize);
        }
        return logits;
      },
      reorder: async (from) => {
        if (from.length !== rows) throw new Error(`${from.length} rows named, there are ${rows}`);
        held = from.map((row) => [...held[row]!]);
      },
      clear: (row) => {
        held[row] = [];
      },
      dispose: () => {
        this.open--;
      },
    };
  }
}
