// A run's directory of checkpoints: which there are, the newest whole one, which are marked best and final, and which
// may go. Also the way from any path that a person names to a model.
import { access, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { diskError, onDisk } from "../disk.ts";
import { ConfigError, messageOf } from "../errors.ts";
import { isAbsent, readJson } from "../json.ts";
import {
  type Checkpoint,
  checkpointName,
  checkpointStep,
  moveAway,
  readCheckpoint,
  unfinishedPrefix,
} from "./checkpoint.ts";
import { manifestName, syncDirectory, writeProven } from "./manifest.ts";
import { hyperparametersName, readRelease } from "./openai-release.ts";
import { type Pretrained, readPretrained } from "./pretrained.ts";

/** Steps of the checkpoints in a run's directory, newest first; an absent directory has none. */
export async function checkpointSteps(runDirectory: string): Promise<number[]> {
  const names = await readdir(runDirectory).catch((error) => {
    if (isAbsent(error)) return [];
    throw error;
  });
  return names
    .map(checkpointStep)
    .filter((step) => step !== undefined)
    .sort((a, b) => b - a);
}

interface ReadOptions {
  readonly optimizer: boolean;
  /** Only those of earlier steps than this. */
  readonly before?: number;
  /** Hears why a checkpoint was not taken. */
  readonly onSkip: (why: string) => void;
}

/**
 * The newest checkpoint that its manifest proves.
 * @returns undefined where the run has none at all
 * @throws ConfigError where there are some and none is whole
 */
export async function newestCheckpoint(runDirectory: string, options: ReadOptions): Promise<Checkpoint | undefined> {
  const { before = Number.POSITIVE_INFINITY } = options;
  const steps = (await checkpointSteps(runDirectory)).filter((step) => step < before);
  return await firstWhole(runDirectory, steps, options);
}

async function firstWhole(
  runDirectory: string,
  steps: readonly number[],
  { optimizer, onSkip }: ReadOptions,
): Promise<Checkpoint | undefined> {
  for (const step of steps)
    try {
      return await readCheckpoint(join(runDirectory, checkpointName(step)), { optimizer });
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      onSkip(error.message);
    }
  if (steps.length === 0) return undefined;
  throw new ConfigError(
    `${runDirectory}: none of its ${steps.length} checkpoints is whole; start anew with another directory`,
  );
}

export const markersSchema = z.strictObject({
  best: z.strictObject({ step: z.int().min(0), valLossNats: z.number() }).optional(),
  final: z.strictObject({ step: z.int().min(0) }).optional(),
});

/** Which checkpoints are more than the newest. */
export type Markers = z.infer<typeof markersSchema>;

export const markersName = "markers.json";

/** Damaged markers are made again from what the checkpoints say of themselves. @param onSkip hears of it */
export async function readMarkers(runDirectory: string, onSkip: (why: string) => void = () => {}): Promise<Markers> {
  const path = join(runDirectory, markersName);
  try {
    return markersSchema.parse(await readJson(path));
  } catch (error) {
    if (isAbsent(error)) return {};
    const why = error instanceof z.ZodError ? "not the markers of a run" : messageOf(error).replace(`${path}: `, "");
    onSkip(`${path} is damaged (${why}): the best and the final checkpoint are found anew`);
    return await markersOf(runDirectory);
  }
}

const markedSchema = z.object({ valLossNats: z.number().optional(), options: z.looseObject({ steps: z.number() }) });

async function markersOf(runDirectory: string): Promise<Markers> {
  const markers: Markers = {};
  for (const step of await checkpointSteps(runDirectory)) {
    const raw = await readJson(join(runDirectory, checkpointName(step), "state.json")).catch(() => undefined);
    const { data } = markedSchema.safeParse(raw);
    const { valLossNats, options } = data ?? {};
    if (valLossNats !== undefined && valLossNats <= (markers.best?.valLossNats ?? Number.POSITIVE_INFINITY))
      markers.best = { step, valLossNats };
    if (options?.steps === step) markers.final = { step };
  }
  return markers;
}

/** Add or move markers, or take away those that are undefined; the others stay. */
export async function mark(
  runDirectory: string,
  markers: { [K in keyof Markers]: Markers[K] | undefined },
  onSkip: (why: string) => void = () => {},
): Promise<void> {
  const all = { ...(await readMarkers(runDirectory, onSkip)), ...markers };
  const temporary = join(runDirectory, `${unfinishedPrefix}${markersName}`);
  const path = join(runDirectory, markersName);
  await onDisk(path, "written", async () => {
    await rm(temporary, { force: true });
    await writeProven(temporary, [Buffer.from(`${JSON.stringify(all)}\n`)]);
    await rename(temporary, path);
  });
  await syncDirectory(runDirectory);
}

/** Remove the checkpoints after a step, the newest first, and find the markers anew. @returns them */
export async function forgetAfter(runDirectory: string, last: number): Promise<Markers> {
  for (const step of await checkpointSteps(runDirectory))
    if (step > last) await moveAway(join(runDirectory, checkpointName(step)));
  const { best, final } = await markersOf(runDirectory);
  await mark(runDirectory, { best, final });
  return { best, final };
}

/**
 * Remove what interrupted writes left, and all checkpoints but the newest `keep` and the marked ones.
 * Not while one is being written.
 * @param inUse step of a checkpoint that somebody reads
 * @param onSkip hears of what cannot be removed: it takes room, no more
 */
export async function prune(
  runDirectory: string,
  keep: number,
  { inUse, onSkip = () => {} }: { inUse?: number | undefined; onSkip?: (why: string) => void } = {},
): Promise<void> {
  for (const name of await readdir(runDirectory))
    if (name.startsWith(unfinishedPrefix)) {
      const path = join(runDirectory, name);
      await rm(path, { recursive: true, force: true }).catch((error) => {
        onSkip(messageOf(diskError(error, path, "removed")));
      });
    }
  const { best, final } = await readMarkers(runDirectory);
  for (const step of (await checkpointSteps(runDirectory)).slice(keep))
    if (![best?.step, final?.step, inUse].includes(step)) await moveAway(join(runDirectory, checkpointName(step)));
}

export interface LoadedModel extends Pretrained {
  /** Where the files, the tokenizer's too, lie. */
  readonly directory: string;
  /** What was taken, for people: "checkpoint runs/a/step-000400 (best, validation loss 1.88)". */
  readonly what: string;
}

/**
 * Load the model that a path names: a checkpoint, a run's directory (its best checkpoint, else its final or newest
 * one), or a directory of Hugging Face's or OpenAI's GPT-2 release, which have no manifest to prove them.
 */
export async function loadModel(path: string, onSkip: (why: string) => void): Promise<LoadedModel> {
  const has = (name: string): Promise<boolean> =>
    access(join(path, name)).then(
      () => true,
      () => false,
    );
  if (await has(manifestName)) return describe(await readCheckpoint(path, { optimizer: false }), "");
  if (await has("config.json")) {
    const pretrained = await readPretrained(path);
    const without =
      pretrained.others.length > 0 ? ` without ${pretrained.others.join(", ")}, which are not its own` : "";
    return { ...pretrained, directory: path, what: `Hugging Face model ${path}${without}` };
  }
  if (await has(hyperparametersName))
    return { ...(await readRelease(path)), directory: path, what: `GPT-2 release ${path}` };
  if ((await stat(path).catch(() => undefined))?.isFile())
    throw new ConfigError(`${path}: a file; name the folder of a checkpoint, a run or a model`);
  if (!(await has("."))) throw new ConfigError(`${path}: no such directory; name a checkpoint, a run or a model`);
  const { best, final } = await readMarkers(path);
  const marked = [best, final].flatMap((marker) => (marker ? [marker.step] : []));
  const steps = new Set([...marked, ...(await checkpointSteps(path))]);
  const found = await firstWhole(path, [...steps], { optimizer: false, onSkip });
  if (!found)
    throw new ConfigError(
      `${path}: neither a checkpoint (manifest.json), a run (step-...) nor a model (config.json, hparams.json)`,
    );
  const { step } = found.state;
  return describe(found, step === best?.step ? "best" : step === final?.step ? "final" : "newest whole");
}

function describe(checkpoint: Checkpoint, why: string): LoadedModel {
  const loss = checkpoint.state.valLossNats;
  const notes = [why, loss === undefined ? "" : `validation loss ${loss.toFixed(4)}`].filter((note) => note !== "");
  return {
    ...checkpoint,
    what: `checkpoint ${checkpoint.directory}${notes.length > 0 ? ` (${notes.join(", ")})` : ""}`,
  };
}
