// One checkpoint: a directory step-000400 that Hugging Face's transformers opens as it is, with what training needs to
// go on to the same bits. It exists once it is whole: written under another name, synced, its manifest last, renamed.
import { mkdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
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
});

export type RunState = z.infer<typeof stateSchema>;

/** AdamW's two moments, (P) each, in the layout's order. */
export interface Moments {
  readonly m: Float32Array;
  readonly v: Float32Array;
}

/** What a checkpoint is made from. Nothing in it may change until writeCheckpoint settles: give it copies. */
export interface Snapshot extends Moments {
  readonly model: ModelConfig;
  readonly weights: Float32Array;
  readonly state: RunState;
  /** The tokenizer's files by name: Tokenizer.toFiles(). */
  readonly tokenizer: ReadonlyMap<string, string>;
}

export interface Checkpoint extends Pretrained {
  readonly directory: string;
  readonly state: RunState;
  readonly moments?: Moments;
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
  const temporary = join(runDirectory, `${unfinishedPrefix}${checkpointName(step)}`);
  await rm(temporary, { recursive: true, force: true });
  await mkdir(temporary, { recursive: true });
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
    await rm(temporary, { recursive: true, force: true });
    throw error;
  }
  return target;
}

/** Remove a checkpoint so that nobody ever sees half of it. Absent: nothing happens. */
export async function moveAway(directory: string): Promise<void> {
  const doomed = join(dirname(directory), `${unfinishedPrefix}removing-${basename(directory)}`);
  await rm(doomed, { recursive: true, force: true });
  try {
    await rename(directory, doomed);
  } catch (error) {
    if (isAbsent(error)) return;
    throw error;
  }
  await rm(doomed, { recursive: true });
}

/** The step that a directory's name says, or undefined if it is no checkpoint's name. */
export function checkpointStep(directory: string): number | undefined {
  const digits = /(?:^|[/\\])step-(\d{6,})[/\\]?$/.exec(directory)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

function json(value: unknown): Uint8Array {
  return Buffer.from(`${JSON.stringify(value, null, 2)}\n`);
}

function filesOf({ model, weights, m, v, state, tokenizer }: Snapshot): Map<string, Uint8Array[]> {
  const format = { format: "pt" }; // transformers asks for it
  return new Map([
    ["config.json", [json(configOf(model))]],
    ["model.safetensors", encode(tensorsOf(model, weights), format)],
    ["optimizer.safetensors", encode(momentTensors(layoutOf(model), { m, v }), format)],
    ["state.json", [json(stateSchema.parse(state))]],
    ...[...tokenizer].map(([name, text]): [string, Uint8Array[]] => [name, [Buffer.from(text)]]),
  ]);
}

const momentNames = ["m", "v"] as const;

function momentTensors(layout: Layout, moments: Moments) {
  return momentNames.flatMap((which) =>
    layout.parameters.map(({ name, shape, offset, size }) => ({
      name: `${which}.${name}`,
      shape,
      data: moments[which].subarray(offset, offset + size),
    })),
  );
}

/**
 * Read a checkpoint, after proving every file that is read against the manifest.
 * @param optimizer also read the moments, to go on training
 * @throws ConfigError that names the file and what is wrong with it
 */
export async function readCheckpoint(directory: string, { optimizer }: { optimizer: boolean }): Promise<Checkpoint> {
  const { step, files } = await readManifest(directory);
  for (const name of ["config.json", "model.safetensors", "optimizer.safetensors", "state.json"])
    if (!files[name]) throw new ConfigError(`checkpoint ${directory}: its manifest does not list ${name}`);
  for (const [name, proof] of Object.entries(files))
    if (name === "optimizer.safetensors" && !optimizer) await proveSize(directory, name, proof);
    else await proveFile(directory, name, proof);
  const statePath = join(directory, "state.json");
  const state = stateSchema.safeParse(await readJson(statePath));
  if (!state.success) throw new ConfigError(`${statePath}: ${z.prettifyError(state.error)}`);
  if (state.data.step !== step)
    throw new ConfigError(
      `checkpoint ${directory}: state.json is of step ${state.data.step}, manifest.json of ${step}`,
    );
  const pretrained = await readPretrained(directory);
  const whole = { ...pretrained, directory, state: state.data };
  return optimizer ? { ...whole, moments: await readMoments(directory, pretrained.layout) } : whole;
}

async function readMoments(directory: string, layout: Layout): Promise<Moments> {
  const path = join(directory, "optimizer.safetensors");
  const { tensors } = await readHeader(path);
  const moments: Moments = { m: new Float32Array(layout.size), v: new Float32Array(layout.size) };
  for (const { name, shape, data } of momentTensors(layout, moments)) {
    const entry = tensors.get(name);
    if (entry?.shape.join() !== shape.join())
      throw new ConfigError(
        `${path}: tensor ${name} is [${entry?.shape ?? "absent"}], config.json asks for [${shape}]`,
      );
    await readFloats(path, entry!, data);
  }
  if (tensors.size !== momentNames.length * layout.parameters.length)
    throw new ConfigError(
      `${path}: ${tensors.size} tensors, config.json asks for ${momentNames.length * layout.parameters.length}`,
    );
  return moments;
}
