// Sequences that grow token by token: keys and values of every block are kept per row, so that a token costs one pass
// over the weights and one look at its row's past, whatever the length of the other rows.
import * as tf from "@tensorflow/tfjs-core";
import { EngineError } from "../../../shared/errors.ts";
import { checkIds } from "../check.ts";
import type { Generation } from "../contract.ts";
import { embedAt, headLogits, hiddenOf } from "../model/model.ts";
import type { Net } from "../model/net.ts";
import type { Tensor as ModelTensor } from "../model/ops.ts";
import type { Backend } from "./backend.ts";
import { causalBias, free, mergeHeads, scope, splitHeads, type Tensor } from "./ops.ts";

/** Keys and values (H, S, D) of one row in one block. */
interface Past {
  readonly k: Tensor;
  readonly v: Tensor;
}

/** What a row holds: its length and, once fed, its past in every block. */
interface Row {
  length: number;
  past: Past[];
}

export class TfjsGeneration implements Generation {
  readonly rows: number;
  readonly #net: Net;
  readonly #backend: Backend;
  readonly #logits: Float32Array;
  #held: Row[];
  #ended = false;

  constructor(net: Net, backend: Backend, rows: number) {
    this.rows = rows;
    this.#net = net;
    this.#backend = backend;
    this.#logits = new Float32Array(rows * net.model.vocabSize);
    this.#held = Array.from({ length: rows }, () => ({ length: 0, past: [] }));
  }

  get lengths(): readonly number[] {
    return this.#held.map((row) => row.length);
  }

  async feed(tokens: readonly Int32Array[]): Promise<Float32Array> {
    this.#check(tokens);
    const fed = [...tokens.keys()].filter((row) => tokens[row]!.length > 0);
    if (fed.length === 0) return this.#logits;
    const ids = Int32Array.from(fed.flatMap((row) => [...tokens[row]!]));
    let end = 0;
    const last = Int32Array.from(fed, (row) => {
      end += tokens[row]!.length;
      return end - 1;
    });
    const fresh = new Float32Array(fed.length * this.#net.model.vocabSize);
    let taken: Promise<void> | undefined;
    scope(() => {
      taken = this.#backend.take(this.#after(tokens, fed, ids, last), fresh);
    });
    await taken;
    const V = this.#net.model.vocabSize;
    fed.forEach((row, i) => {
      this.#logits.set(fresh.subarray(i * V, (i + 1) * V), row * V);
      this.#held[row]!.length += tokens[row]!.length;
    });
    return this.#logits;
  }

  async reorder(from: readonly number[]): Promise<void> {
    this.#checkAlive();
    if (from.length !== this.rows || from.some((row) => !Number.isInteger(row) || row < 0 || row >= this.rows))
      throw new EngineError(`generation: cannot reorder ${this.rows} rows by [${from}]`);
    const old = this.#held;
    const logits = this.#logits.slice();
    const V = this.#net.model.vocabSize;
    this.#held = from.map((row) => ({
      length: old[row]!.length,
      // A clone shares the numbers.
      past: old[row]!.past.map(({ k, v }) => ({ k: k.clone(), v: v.clone() })),
    }));
    from.forEach((row, i) => {
      this.#logits.set(logits.subarray(row * V, (row + 1) * V), i * V);
    });
    for (const row of old) free(row.past);
  }

  clear(row: number): void {
    const held = this.#held[row];
    if (!held) throw new EngineError(`generation: row ${row} of ${this.rows}`);
    free(held.past);
    this.#held[row] = { length: 0, past: [] };
    const V = this.#net.model.vocabSize;
    this.#logits.fill(0, row * V, (row + 1) * V);
  }

  dispose(): void {
    this.#ended = true;
    for (const row of this.#held) free(row.past);
  }

  /** Logits (fed, V) after the last token of each fed row. ids: all fed tokens; last: where each row's end. */
  #after(tokens: readonly Int32Array[], fed: readonly number[], ids: Int32Array, last: Int32Array): Tensor {
    const { model } = this.#net;
    const { ops } = this.#backend;
    const table = this.#net.weights["table.weight"];
    if (table)
      return ops.gather(
        table as Tensor,
        ids.filter((_, i) => last.includes(i)),
      );
    const positions = Int32Array.from(
      fed.flatMap((row) => Array.from(tokens[row]!, (_, i) => this.#held[row]!.length + i)),
    );
    const pass = {
      heads: { B: 1, T: ids.length, H: model.nHead, D: model.nEmbd / model.nHead },
      mask: () => undefined,
      emit: () => {},
      cached: (l: number, qkv: ModelTensor) => this.#attend(tokens, fed, l, qkv as Tensor),
    };
    const hidden = hiddenOf(this.#net, pass, embedAt(this.#net, ids, positions));
    return headLogits(this.#net, ops.gather(hidden as Tensor, last)) as Tensor;
  }

  /** Attention of the fed tokens (N, 3C) over their rows' past and themselves, which join the past. */
  #attend(tokens: readonly Int32Array[], fed: readonly number[], l: number, qkv: Tensor): Tensor {
    const { model } = this.#net;
    const { ops } = this.#backend;
    const H = model.nHead;
    const D = model.nEmbd / H;
    let from = 0;
    const parts = fed.map((row) => {
      const T = tokens[row]!.length;
      const heads = { B: 1, T, H, D };
      const split = splitHeads(tf.slice(qkv, [from, 0], [T, 3 * H * D]), 3, heads);
      from += T;
      const [q, newK, newV] = tf.split(split, 3) as [Tensor, Tensor, Tensor];
      const past = this.#held[row]!.past[l];
      const k = tf.keep(past ? tf.concat([past.k, newK], 1) : newK);
      const v = tf.keep(past ? tf.concat([past.v, newV], 1) : newV);
      free(past);
      this.#held[row]!.past[l] = { k, v };
      const scores = tf.mul(ops.matMul(q, k, false, true), 1 / Math.sqrt(D));
      const seen = T === 1 ? scores : tf.add(scores, causalBias(T, k.shape[1]!));
      return mergeHeads(ops.matMul(tf.softmax(seen), v, false, false), 1, heads);
    });
    return parts.length === 1 ? parts[0]! : tf.concat(parts, 0);
  }

  #checkAlive(): void {
    if (this.#ended) throw new EngineError("generation: it ended with the weights that it began with; begin a new one");
  }

  #check(tokens: readonly Int32Array[]): void {
    this.#checkAlive();
    if (tokens.length !== this.rows)
      throw new EngineError(`generation: tokens for ${tokens.length} rows, expected ${this.rows}`);
    tokens.forEach((added, row) => {
      checkIds(this.#net.model, `row ${row}`, added);
      const total = this.#held[row]!.length + added.length;
      if (total > this.#net.model.blockSize)
        throw new EngineError(
          `generation: row ${row} holds ${this.#held[row]!.length} tokens and ${added.length} more exceed the ` +
            `blockSize of ${this.#net.model.blockSize}; clear the row and feed the end of its text`,
        );
    });
  }
}
