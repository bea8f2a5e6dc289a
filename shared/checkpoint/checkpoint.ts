// One checkpoint: a directory step-000400 that Hugging Face's transformers opens as it is, with what training needs to
// go on to the same bits. It exists once it is whole: written under another name, synced, its manifest last, renamed.
import { lstat, mkdtemp, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import { checked } from "../check.ts";
import { diskError, makeFolder, onDisk } from "../disk.ts";
import { ConfigError } from "../errors.ts";
import { type Layout, layoutOf } from "../family/layout.ts";
import { isAbsent, readJson } from "../json.ts";
import type { ModelConfig } from "../model.ts";
import { configOf, tensorsOf } from "./huggingface.ts";
import type { Manifest } from "./manifest.ts";
import { manifestName, proveFile, proveSize, readManifest, syncDirectory, writeProven } from "./manifest.ts";
import { type Pretrained, readPretrained } from "./pretrained.ts";
import { encode, readFloats, readHeader } from "./safetensors.ts";

/** state.json: where the run stands. */
export const stateSchema = z.strictObject({
  /** Updates applied to the weights. */
  step: z.int().min(0),
  seed: z.int().min(0),
  /** The resolved options of the run, checked by their own table. */
  options: z.record(z.string(), z.unknown()),
  /** The engine's `arithmetic`: only equal ones give equal bits. */
  arithmetic: z.string(),
  /** digestOf(weights) */
  weightsDigest: z.string(),
  /** Lines of ledger.jsonl that lead here, and the chained digest of the last one. */
  ledger: z.strictObject({ lines: z.int().min(0), head: z.string() }),
  /** Fingerprint of the tokens trained on. */
  dataset: z.strictObject({ name: z.string(), fingerprint: z.string() }),
  tokensSeen: z.int().min(0),
  lossNats: z.number().optional(),
  valLossNats: z.number().optional(),
  /** With --verify: who gave losses of an evaluation that nobody confirmed, and after which step first. */
  evaluatedBy: z.array(z.strictObject({ worker: z.string(), step: z.int().min(0) })).optional(),
});

export type RunState = z.infer<typeof stateSchema>;

/** What an optimizer remembers: (P) vectors in the layout's order, by names of its own ([A-Za-z0-9]+). */
export type OptimizerState = Readonly<Record<string, Float32Array>>;

/** What a checkpoint is made from. Nothing in it may change until writeCheckpoint settles: give it copies. */
export interface Snapshot {
  readonly model: ModelConfig;
  readonly weights: Float32Array;
  readonly optimizer: OptimizerState;
  readonly state: RunState;
  /** The tokenizer's files by name: Tokenizer.toFiles(). */
  readonly tokenizer: ReadonlyMap<string, string>;
  /** Tokenizer.endOfText */
  readonly endOfText?: number | undefined;
}

export interface Checkpoint extends Pretrained {
  readonly directory: string;
  readonly state: RunState;
  readonly optimizer?: OptimizerState;
}

/** Directories that start so are not whole: somebody died while writing or removing one. */
export const unfinishedPrefix = ".unfinished-";

export function checkpointName(step: number): string {
  return `step-${String(step).padStart(6, "0")}`;
}

/**
 * Write `runDirectory/step-NNNNNN`, replacing one of that step.
 * @returns its path
 * @throws the signal's reason when it is aborted; nothing is left behind then
 */
export async function writeCheckpoint(
  runDirectory: string,
  snapshot: Snapshot,
  { signal }: { signal?: AbortSignal } = {},
): Promise<string> {
  const { step } = snapshot.state;
  const target = join(runDirectory, checkpointName(step));
  await makeFolder(runDirectory);
  // A name of its own: what another write left may be impossible to remove.
  const temporary = await onDisk(runDirectory, "written", () =>
    mkdtemp(join(runDirectory, `${unfinishedPrefix}${checkpointName(step)}-`)),
  );
  try {
    const manifest: Manifest = { format: "weft-checkpoint", version: 1, step, files: {} };
    for (const [name, pieces] of filesOf(snapshot))
      manifest.files[name] = await writeProven(join(temporary, name), pieces, signal);
    await writeProven(join(temporary, manifestName), [json(manifest)], signal);
    await syncDirectory(temporary);
    await moveAway(target);
    await rename(temporary, target);
    await syncDirectory(runDirectory);
  } catch (error) {
    // What cannot be removed now is removed by a later prune().
    await rm(temporary, { recursive: true, force: true }).catch(() => {});
    throw diskError(error, target, "written");
  }
  return target;
}

/** Remove a checkpoint so that nobody ever sees half of it. Absent: nothing happens. */
export async function moveAway(directory: string): Promise<void> {
  const { ino } = await lstat(directory).catch((error) => {
    if (isAbsent(error)) return { ino: undefined };
    throw error;
  });
  if (ino === undefined) return;
  const doomed = join(dirname(directory), `${unfinishedPrefix}removing-${basename(directory)}-${ino}`);
  await onDisk(directory, "written", () => rename(directory, doomed));
  // From here on it is out of sight: what cannot be removed now is removed by a later prune().
  await rm(doomed, { recursive: true }).catch(() => {});
}

/** The step that a directory's name says, or undefined if it is no checkpoint's name. */
export function checkpointStep(directory: string): number | undefined {
  const digits = /(?:^|[/\\])step-(\d{6,})[/\\]?$/.exec(directory)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

function json(value: unknown): Uint8Array {
  return Buffer.from(`${JSON.stringify(value, null, 2)}\n`);
}

function filesOf({ model, weights, optimizer, state, tokenizer, endOfText }: Snapshot): Map<string, Uint8Array[]> {
  const format = { format: "pt" }; // transformers asks for it
  return new Map([
    ["config.json", [json(configOf(model, endOfText))]],
    ["model.safetensors", encode(tensorsOf(model, weights), format)],
    ["optimizer.safetensors", encode(stateTensors(layoutOf(model), optimizer), format)],
    ["state.json", [json(stateSchema.parse(state))]],
    ...[...tokenizer].map(([name, text]): [string, Uint8Array[]] => [name, [Buffer.from(text)]]),
  ]);
}

/** The tensors "m.h.0.ln_1.weight" and so on: each vector in the model's own pieces. */
function stateTensors(layout: Layout, state: OptimizerState) {
  return Object.entries(state).flatMap(([which, vector]) =>
    layout.parameters.map(({ name, shape, offset, size }) => ({
      name: `${which}.${name}`,
      shape,
      data: vector.subarray(offset, offset + size),
    })),
  );
}

/** What its state.json says, as it stands: proveFile() says whether that is what was written. @throws ConfigError */
export async function runStateOf(directory: string): Promise<RunState> {
  const path = join(directory, "state.json");
  return checked(stateSchema, await readJson(path), path);
}

/**
 * Read a checkpoint, after proving every file that is read against the manifest.
 * @param optimizer also read the optimizer's state, to go on training
 * @throws ConfigError that names the file and what is wrong with it
 */
export async function readCheckpoint(directory: string, { optimizer }: { optimizer: boolean }): Promise<Checkpoint> {
  const { step, files } = await readManifest(directory);
  for (const name of ["config.json", "model.safetensors", "optimizer.safetensors", "state.json"])
    if (!files[name]) throw new ConfigError(`checkpoint ${directory}: its manifest does not list ${name}`);
  for (const [name, proof] of Object.entries(files))
    if (name === "optimizer.safetensors" && !optimizer) await proveSize(directory, name, proof);
    else await proveFile(directory, name, proof);
  const state = await runStateOf(directory);
  if (state.step !== step)
    throw new ConfigError(`checkpoint ${directory}: state.json is of step ${state.step}, manifest.json of ${step}`);
  const pretrained = await readPretrained(directory);
  const whole = { ...pretrained, directory, state };
  return optimizer ? { ...whole, optimizer: await readState(directory, pretrained.layout) } : whole;
}

async function readState(directory: string, layout: Layout): Promise<OptimizerState> {
  const path = join(directory, "optimizer.safetensors");
  const { tensors } = await readHeader(path);
  const suffix = `.${layout.parameters[0]!.name}`;
  const names = [...tensors.keys()]
    .filter((name) => name.endsWith(suffix))
    .map((name) => name.slice(0, -suffix.length));
  const wrong = names.find((name) => !/^[A-Za-z0-9]{1,40}$/.test(name));
  if (wrong !== undefined) throw new ConfigError(`${path}: tensor ${wrong}${suffix} is of no optimizer's state`);
  const expected = names.length * layout.parameters.length;
  if (tensors.size !== expected)
    throw new ConfigError(`${path}: ${tensors.size} tensors, config.json asks for ${expected}`);
  const state = Object.fromEntries(names.map((name) => [name, new Float32Array(layout.size)]));
  for (const { name, shape, data } of stateTensors(layout, state)) {
    const entry = tensors.get(name);
    if (entry?.shape.join() !== shape.join())
      throw new ConfigError(
        `${path}: tensor ${name} is [${entry?.shape ?? "absent"}], config.json asks for [${shape}]`,
      );
    await readFloats(path, entry!, data);
  }
  return state;
}
