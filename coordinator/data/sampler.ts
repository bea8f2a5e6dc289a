// Which windows of the training text make up a step: a pure function of (seed, step), so that a step can be redone by
// anyone at any time, after a crash or in an audit.
import { readFile } from "node:fs/promises";
import { PhiloxStream, stream } from "../../shared/arithmetic/philox.ts";
import { ConfigError } from "../../shared/errors.ts";

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
