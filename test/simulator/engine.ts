// A model that is quick to compute and whose weights depend on every shard of every step: a table of token pairs that is
// pulled towards 1 where a pair occurs. Its engine takes virtual time, and misbehaves when it is told to.

import { EngineError } from "../../shared/errors.ts";
import { layoutOf } from "../../shared/family/layout.ts";
import type { ModelConfig } from "../../shared/model.ts";
import type { Engine } from "../../worker/engine/contract.ts";
import { shardByShard } from "../../worker/engine/shards.ts";
import type { Process } from "./time.ts";

export const vocabSize = 12;
export const blockSize = 4;

export const toyModel: ModelConfig = {
  family: "bigram",
  ...{ vocabSize, blockSize, nLayer: 0, nHead: 0, nEmbd: 0, bias: false, dropout: 0 },
  ...{ activation: "gelu", tiedHead: false, layerNormEps: 1e-5 },
};

/** What an engine does beside computing. */
export interface Health {
  /** Milliseconds for a shard, or a group of windows. */
  unitMs: number;
  /** Calls begin and never end. */
  mute: boolean;
  /** What every element of a gradient, or every loss, is. */
  value: number | undefined;
  loss: number | undefined;
  /** Calls throw an EngineError. */
  broken: boolean;
  /** Gradients of shards that it has computed. */
  gradients: number;
}

export function toyGradient(
  weights: Float32Array,
  tokens: Int32Array,
  targets: Int32Array,
  shard: number,
  out: Float32Array,
): number {
  out.fill(0);
  let loss = 0;
  for (let n = 0; n < tokens.length; n++) {
    const at = tokens[n]! * vocabSize + targets[n]!;
    const error = Math.fround(weights[at]! - 1 - shard / 16);
    loss += (error * error) / tokens.length;
    out[at]! += Math.fround(error / tokens.length);
  }
  return loss;
}

export function toyLoss(weights: Float32Array, tokens: Int32Array, targets: Int32Array): number {
  return toyGradient(weights, tokens, targets, 0, new Float32Array(weights.length));
}

/** @param arithmetic what it says of itself */
export function toyEngine(process: Process, health: Health, maxRows: number, arithmetic: string): Engine {
  let weights: Float32Array = new Float32Array(layoutOf(toyModel).size);
  const takes = (units: number) =>
    new Promise<void>((resolve) => {
      if (!health.mute) process.clock.after(units * health.unitMs, resolve);
    });
  const check = () => {
    if (health.broken) throw new EngineError("the device is gone");
  };
  const never = () => Promise.reject(new EngineError("not in this world"));
  return {
    name: "native",
    arithmetic,
    device: "a toy",
    model: toyModel,
    plannedBytes: 0,
    setWeights: async (given: Float32Array) => {
      weights = given;
    },
    gradient: shardByShard({ model: toyModel, maxRows, threads: 1 }, async (tokens, targets, _rows, { shard }, out) => {
      await takes(1);
      check();
      health.gradients++;
      const loss = toyGradient(weights, tokens, targets, shard, out);
      if (health.value !== undefined) out.fill(health.value);
      return health.loss ?? loss;
    }),
    losses: async (tokens: Int32Array, targets: Int32Array, rows: number) => {
      await takes(1);
      check();
      return Float32Array.from({ length: rows }, (_, row) => {
        const at = (ids: Int32Array) => ids.subarray(row * blockSize, (row + 1) * blockSize);
        return health.loss ?? toyLoss(weights, at(tokens), at(targets));
      });
    },
    logits: never,
    hidden: never,
    // After a token comes the next.
    generation: async (rows: number) => {
      const ids = Array.from({ length: rows }, (): number[] => []);
      return {
        rows,
        get lengths() {
          return ids.map((row) => row.length);
        },
        feed: async (tokens: readonly Int32Array[]) => {
          await takes(1);
          check();
          const logits = new Float32Array(rows * toyModel.vocabSize);
          tokens.forEach((more, row) => {
            ids[row]!.push(...more);
            logits[row * toyModel.vocabSize + (((ids[row]!.at(-1) ?? 0) + 1) % toyModel.vocabSize)] = 100;
          });
          return logits;
        },
        reorder: async () => {},
        clear: (row: number) => void ids[row]!.splice(0),
        dispose: () => {},
      };
    },
    dispose: async () => {},
  } as unknown as Engine;
}
