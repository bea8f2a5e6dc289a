// history.json: the curves of a run, beside its checkpoints. A resumed run goes on with its own, and the page compares
// a run with those whose folders lie beside it. Only what the page shows depends on it, so a file that cannot be read
// is said and passed over.
import { readdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { z } from "zod";
import { writeProven } from "../shared/checkpoint/manifest.ts";
import { ConfigError } from "../shared/errors.ts";
import { isAbsent, readJson } from "../shared/json.ts";
import { type Curves, curvesSchema } from "./history.ts";

export const pastName = "history.json";

/** Files of versions that did not count them: of a run that never changed its batch. */
const withTokens = <C extends { step: number[]; tokens: number[] }>(columns: C, tokensPerStep: number): C =>
  columns.tokens.length > 0 ? columns : { ...columns, tokens: columns.step.map((step) => step * tokensPerStep) };

const fileSchema = curvesSchema.extend({
  /** The run that wrote it, for people. */
  model: z.string(),
  steps: z.int().min(1),
  tokensPerStep: z.int().min(1),
  /** The options that are not at their defaults. */
  options: z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.array(z.string())])),
});
const pastSchema = fileSchema.transform((past) => ({
  ...past,
  train: withTokens(past.train, past.tokensPerStep),
  validation: withTokens(past.validation, past.tokensPerStep),
}));
/** A run's curves, and what they are the curves of. */
export type Past = z.infer<typeof pastSchema>;

/** Runs of one folder that are looked into. */
const mostRuns = 200;

/** Replace the run's history.json. */
export async function writePast(runDirectory: string, past: Past): Promise<void> {
  const temporary = join(runDirectory, `.unfinished-${pastName}`);
  await rm(temporary, { force: true });
  await writeProven(temporary, [Buffer.from(`${JSON.stringify(past)}\n`)]);
  await rename(temporary, join(runDirectory, pastName));
}

/** @returns undefined where there is none; onSkip hears of one that cannot be read */
export async function readPast(runDirectory: string, onSkip: (why: string) => void): Promise<Past | undefined> {
  const path = join(runDirectory, pastName);
  const raw = await readJson(path).catch((error) => {
    if (!(error instanceof ConfigError)) throw error;
    if (!isAbsent(error)) onSkip(error.message);
    return undefined;
  });
  const parsed = pastSchema.safeParse(raw);
  if (raw !== undefined && !parsed.success) onSkip(`${path}: not the history of a run; it is not shown`);
  return parsed.data;
}

export interface EarlierRun {
  /** Name of its folder. */
  readonly name: string;
  readonly model: string;
  readonly step: number;
  readonly steps: number;
  /** Lowest of its evaluations; null before the first. */
  readonly bestValLossNats: number | null;
  readonly options: Past["options"];
}

/** The runs whose folders lie beside this one's. No name from outside becomes a path: those found here are all. */
export class EarlierRuns {
  readonly #folder: string;
  readonly #own: string;

  constructor(runDirectory: string) {
    this.#folder = dirname(resolve(runDirectory));
    this.#own = basename(resolve(runDirectory));
  }

  async list(): Promise<EarlierRun[]> {
    const runs: EarlierRun[] = [];
    for (const name of await this.#names()) {
      const past = await readPast(join(this.#folder, name), () => {});
      if (past) runs.push(summaryOf(name, past));
    }
    return runs;
  }

  async curves(name: string): Promise<Curves | undefined> {
    if (!(await this.#names()).includes(name)) return undefined;
    return await readPast(join(this.#folder, name), () => {});
  }

  async #names(): Promise<string[]> {
    const entries = await readdir(this.#folder, { withFileTypes: true }).catch(() => []);
    const names = entries.filter((entry) => entry.isDirectory() && entry.name !== this.#own).map(({ name }) => name);
    return names.sort().slice(0, mostRuns);
  }
}

function summaryOf(name: string, { model, steps, options, train, validation }: Past): EarlierRun {
  const losses = validation.valLossNats;
  return {
    name,
    model,
    step: train.step.at(-1) ?? 0,
    steps,
    bestValLossNats: losses.length === 0 ? null : Math.min(...losses),
    options,
  };
}
