// The checkpoints that others may see and fetch: those whose manifest lists them whole. Read anew after each write,
// mark or prune, so that answering a request touches no directory, and no name from outside ever becomes a path.
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { checkpointName, stateSchema } from "../shared/checkpoint/checkpoint.ts";
import { type Manifest, manifestName, proveSize, readManifest } from "../shared/checkpoint/manifest.ts";
import { checkpointSteps, type Markers, readMarkers } from "../shared/checkpoint/rundir.ts";
import { ConfigError } from "../shared/errors.ts";
import { readJson } from "../shared/json.ts";
import type { CheckpointStatus } from "./status.ts";

export interface ShelvedCheckpoint {
  readonly name: string;
  readonly directory: string;
  readonly manifest: Manifest;
  readonly valLossNats: number | null;
  readonly writtenAt: number;
}

export class CheckpointShelf {
  readonly #runDirectory: string;
  #checkpoints: ShelvedCheckpoint[] = [];
  #markers: Markers = {};

  /** Empty until the first refresh(). */
  constructor(runDirectory: string) {
    this.#runDirectory = runDirectory;
  }

  /** Look again. @param onSkip hears of each checkpoint that is not whole */
  async refresh(onSkip: (why: string) => void): Promise<void> {
    const known = new Map(this.#checkpoints.map((checkpoint) => [checkpoint.name, checkpoint]));
    const found: ShelvedCheckpoint[] = [];
    for (const step of await checkpointSteps(this.#runDirectory)) {
      const name = checkpointName(step);
      try {
        found.push(await openCheckpoint(this.#runDirectory, name, known.get(name)));
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        onSkip(error.message);
      }
    }
    this.#markers = await readMarkers(this.#runDirectory, onSkip);
    this.#checkpoints = found;
  }

  /** Newest first. @param now in milliseconds, as Date.now() gives it */
  list(now: number): CheckpointStatus[] {
    return this.#checkpoints.map(({ name, manifest, valLossNats, writtenAt }) => ({
      name,
      step: manifest.step,
      valLossNats,
      bytes: Object.values(manifest.files).reduce((sum, file) => sum + file.bytes, 0),
      sha256: manifest.files["model.safetensors"]?.sha256 ?? "",
      best: manifest.step === this.#markers.best?.step,
      final: manifest.step === this.#markers.final?.step,
      ageSeconds: Math.max(0, now - writtenAt) / 1000,
    }));
  }

  find(name: string): ShelvedCheckpoint | undefined {
    return this.#checkpoints.find((checkpoint) => checkpoint.name === name);
  }
}

/** @param known what was found under this name before; it is taken again unless its manifest was written anew */
async function openCheckpoint(runDirectory: string, name: string, known?: ShelvedCheckpoint) {
  const directory = join(runDirectory, name);
  const manifest = await readManifest(directory);
  const { mtimeMs } = await stat(join(directory, manifestName));
  if (known?.writtenAt === mtimeMs) return known;
  for (const [file, proof] of Object.entries(manifest.files)) await proveSize(directory, file, proof);
  const state = stateSchema.partial().safeParse(await readJson(join(directory, "state.json")));
  return { name, directory, manifest, valLossNats: state.data?.valLossNats ?? null, writtenAt: mtimeMs };
}
