// A run's checkpoints in an object store: the same folders and names as on a disk, the manifest last. A checkpoint
// without one does not exist.
import { z } from "zod";
import { checkpointStep } from "../checkpoint/checkpoint.ts";
import type { CheckpointSource, OfferedCheckpoint } from "../checkpoint/fetch.ts";
import { manifestName, manifestSchema } from "../checkpoint/manifest.ts";
import { type Markers, markersName, markersSchema } from "../checkpoint/rundir.ts";
import { ConfigError } from "../errors.ts";
import { NoSuchObjectError, ObjectStore, type StoredObject } from "./s3.ts";

/** The ledger up to a checkpoint lies beside it; its chain proves it, not the manifest. */
export const ledgerName = "ledger.jsonl";

/**
 * @param address of a run, or of one of its checkpoints, which is then the only one
 * @throws ConfigError where the store cannot be had
 */
export async function openStoredRun(address: string): Promise<StoredRun> {
  const [, run, only] = /^(.*)\/(step-\d{6,})\/*$/.exec(address) ?? [];
  return new StoredRun(await ObjectStore.open(run ?? address), only);
}

export class StoredRun implements CheckpointSource {
  readonly store: ObjectStore;
  readonly #only: string | undefined;

  constructor(store: ObjectStore, only?: string) {
    this.store = store;
    this.#only = only;
  }

  get url(): string {
    return this.store.url;
  }

  async list(): Promise<OfferedCheckpoint[]> {
    const objects = await this.store.list(this.#only ?? "step-");
    const { best, final } = await this.markers();
    return wholeCheckpoints(objects)
      .filter(({ name }) => this.#only === undefined || name === this.#only)
      .map((checkpoint) => {
        const isBest = checkpoint.step === best?.step;
        const valLossNats = isBest ? best.valLossNats : null;
        return { ...checkpoint, valLossNats, best: isBest, final: checkpoint.step === final?.step };
      });
  }

  async manifest(checkpoint: string) {
    return await this.json(`${checkpoint}/${manifestName}`, manifestSchema);
  }

  async read(checkpoint: string, file: string, offset: number) {
    return { from: offset, pieces: await this.store.read(`${checkpoint}/${file}`, offset) };
  }

  async markers(): Promise<Markers> {
    return await this.json(markersName, markersSchema).catch((error) => {
      if (error instanceof NoSuchObjectError) return {};
      throw error;
    });
  }

  /** A small file of ours. @throws ConfigError where there is none (NoSuchObjectError), or another's */
  async json<T extends z.ZodType>(key: string, schema: T): Promise<z.infer<T>> {
    const text = (await this.store.readAll(key)).toString("utf8");
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      value = undefined; // the schema refuses it, and says so
    }
    const parsed = schema.safeParse(value);
    if (parsed.success) return parsed.data;
    throw new ConfigError(`${this.url}/${key}: not a file of Weft:\n${z.prettifyError(parsed.error)}`);
  }
}

/** Checkpoints whose manifest is there, newest first. */
export function wholeCheckpoints(objects: readonly StoredObject[]): { name: string; step: number; bytes: number }[] {
  const sizes = new Map<string, number>();
  for (const { key, bytes } of objects) {
    const [folder] = key.split("/") as [string];
    sizes.set(folder, (sizes.get(folder) ?? 0) + bytes);
  }
  return objects
    .flatMap(({ key }) => {
      const [name, file, ...more] = key.split("/") as [string, string?];
      const step = checkpointStep(name);
      return step === undefined || file !== manifestName || more.length > 0
        ? []
        : [{ name, step, bytes: sizes.get(name)! }];
    })
    .sort((a, b) => b.step - a.step);
}

/** Of a checkpoint that goes, the manifest goes first. */
export async function removeCheckpoints(store: ObjectStore, objects: readonly StoredObject[]): Promise<void> {
  const isManifest = ({ key }: StoredObject): boolean => key.endsWith(`/${manifestName}`);
  const others = objects.filter((object) => !isManifest(object));
  for (const { key } of [...objects.filter(isManifest), ...others]) await store.remove(key);
}
