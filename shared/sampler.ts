// Which windows of the training text make up a step: a pure function of (seed, step), so that a step can be redone by
// anyone at any time, after a crash or in an audit, and drawn where the data lie: at the coordinator or at a worker.
import { readFile } from "node:fs/promises";
import { PhiloxStream, stream } from "./arithmetic/philox.ts";
import type { TreeNode } from "./arithmetic/tree.ts";
import { ConfigError } from "./errors.ts";
import type { ModelConfig } from "./model.ts";
import { tokenArray } from "./token-array.ts";

/** Window starts of a step: (batchSize) positions in [0, positions). */
export type Sampler = (step: number) => number[];

/** Uniform with replacement; row r of step t comes from the counter line (t, r). */
export function randomSampler(seed: number, batchSize: number, positions: number): Sampler {
  return (step) =>
    Array.from({ length: batchSize }, (_, row) => new PhiloxStream(seed, stream.sampler, step, row).below(positions));
}

/**
 * Starts from a file of uint32 little-endian, steps x batchSize: to repeat another trainer's run.
 * @throws ConfigError if the file is too short for `steps`; the sampler if a start lies outside the text
 */
export async function fileSampler(path: string, batchSize: number, steps: number, positions: number): Promise<Sampler> {
  const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    throw new ConfigError(`config: --windows-file ${path} cannot be read (${error.code})`, { cause: error });
  });
  const needed = 4 * steps * batchSize;
  if (bytes.length < needed)
    throw new ConfigError(
      `config: --windows-file ${path} has ${bytes.length} bytes, ${steps} steps of ${batchSize} windows need ${needed}`,
    );
  return (step) =>
    Array.from({ length: batchSize }, (_, row) => {
      const start = bytes.readUInt32LE(4 * (step * batchSize + row));
      if (start >= positions)
        throw new ConfigError(
          `config: --windows-file ${path}: window ${row} of step ${step} starts at ${start}, the last possible is ${positions - 1}`,
        );
      return start;
    });
}

/** What units of training are of a step's windows. */
export interface UnitShape {
  /** Windows of a shard. */
  readonly rows: number;
  /** Shards of a step that a unit computes, and steps that it computes them of. */
  readonly shards: number;
  readonly steps: number;
}

/** Where the windows of some units start: unit after unit, of each step after step. @param batches starts of each step */
export function startsOf(
  { first, count }: TreeNode,
  { rows, shards }: UnitShape,
  batches: readonly (readonly number[])[],
): number[] {
  const each = shards * rows;
  return Array.from({ length: count }, (_, i) => first + i).flatMap((unit) =>
    batches.flatMap((batch) => batch.slice(unit * each, (unit + 1) * each)),
  );
}

/** Starts of each of the steps from `step` on. */
export const batchesOf = (sampler: Sampler, step: number, steps: number): number[][] =>
  Array.from({ length: steps }, (_, h) => sampler(step + h));

/** (starts.length, T + 1) ids in the narrowest type that holds them. @param read fills a row from a start on */
export async function readWindows(
  { vocabSize, blockSize }: Pick<ModelConfig, "vocabSize" | "blockSize">,
  starts: readonly number[],
  read: (start: number, row: Int32Array) => Promise<void>,
): Promise<Uint16Array | Uint32Array> {
  const row = new Int32Array(blockSize + 1);
  const ids = tokenArray(vocabSize, starts.length * row.length);
  for (const [index, start] of starts.entries()) {
    await read(start, row);
    ids.set(row, index * row.length);
  }
  return ids;
}
