// Fetching a checkpoint from where others keep it, a coordinator or an object store: goes on where an earlier try
// stopped, trusts only what the manifest proves, and puts the checkpoint in place whole or not at all.
import { open, rename, stat, statfs, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { makeFolder, onDisk } from "../disk.ts";
import { ConfigError, Interrupted, messageOf } from "../errors.ts";
import {
  type FileProof,
  hashFile,
  type Manifest,
  manifestName,
  proveFile,
  readManifest,
  syncDirectory,
} from "./manifest.ts";

/** A checkpoint that a source has whole. */
export interface OfferedCheckpoint {
  /** Such as "step-000400". */
  readonly name: string;
  readonly step: number;
  /** Of all its files together. */
  readonly bytes: number;
  readonly valLossNats: number | null;
  readonly best: boolean;
  readonly final: boolean;
}

/** Where checkpoints come from. Its methods throw Interrupted where asking again may help, ConfigError where not. */
export interface CheckpointSource {
  /** For people, and the beginning of every message. */
  readonly url: string;
  /** Newest first. */
  list(): Promise<readonly OfferedCheckpoint[]>;
  manifest(checkpoint: string): Promise<Manifest>;
  /**
   * A file's bytes from an offset on.
   * @returns `from`: the offset of the first piece; 0 where the source begins anew instead
   */
  read(
    checkpoint: string,
    file: string,
    offset: number,
    proof: FileProof,
  ): Promise<{ from: number; pieces: AsyncIterable<Buffer> }>;
}

export interface FetchOptions {
  /** "latest", "best", "final", "best or latest", or the number of a step. */
  readonly step: string;
  /** The checkpoint becomes a folder in this one, named after its step. */
  readonly out: string;
  /**
   * `model`: leave out what only training needs, and put the rest, a folder that Hugging Face opens, in `model-NNNNNN`.
   * `all`: the whole checkpoint, in `step-NNNNNN`, so that `out` is the folder of a run.
   */
  readonly parts: "all" | "model";
  /** Hears after every piece how far the whole is. */
  readonly onProgress?: (bytesDone: number, bytesTotal: number) => void;
  /** Hears of broken connections that are tried again. */
  readonly onRetry?: (why: string) => void;
  readonly wait?: (ms: number) => Promise<unknown>;
}

export interface Fetched {
  readonly directory: string;
  readonly checkpoint: OfferedCheckpoint;
  /** Bytes that came over the wire now; the rest was there already. */
  readonly bytesReceived: number;
}

const forTrainingOnly = ["optimizer.safetensors", "state.json"];
/** Tries in a row that bring nothing before it gives up. */
const mostTries = 5;

/**
 * @throws ConfigError that says what to do: no such checkpoint, a target that is in the way, a file that does not fit
 *         its proof; what has come so far stays for the next try
 */
export async function fetchCheckpoint(source: CheckpointSource, options: FetchOptions): Promise<Fetched> {
  const checkpoint = choose(await persist(options, () => source.list()), options.step, source.url);
  const manifest = await persist(options, () => source.manifest(checkpoint.name));
  if (manifest.step !== checkpoint.step)
    throw new ConfigError(`${source.url}: the manifest of ${checkpoint.name} is of step ${manifest.step}`);
  const model = options.parts === "model";
  const wanted = Object.entries(manifest.files).filter(([name]) => !model || !forTrainingOnly.includes(name));
  const name = model ? checkpoint.name.replace("step-", "model-") : checkpoint.name;
  const directory = join(options.out, name);
  if (await isThere(directory, manifest, model)) return { directory, checkpoint, bytesReceived: 0 };

  const temporary = join(options.out, `.pulling-${name}`);
  const total = wanted.reduce((sum, [, proof]) => sum + proof.bytes, 0);
  await checkRoom(options.out, temporary, wanted, `${source.url}: ${checkpoint.name}`);
  await makeFolder(temporary);
  let bytesReceived = 0;
  let before = 0;
  for (const [file, proof] of wanted) {
    bytesReceived += await fetchFile(source, checkpoint.name, temporary, file, proof, options, (done) =>
      options.onProgress?.(before + done, total),
    );
    before += proof.bytes;
  }
  if (!model) await writeManifest(temporary, manifest);
  await syncDirectory(temporary);
  await onDisk(directory, "written", () => rename(temporary, directory));
  await syncDirectory(options.out);
  return { directory, checkpoint, bytesReceived };
}

function choose(list: readonly OfferedCheckpoint[], step: string, url: string): OfferedCheckpoint {
  if (list.length === 0) throw new ConfigError(`${url} has no checkpoint yet; try again when the run has written one`);
  const named: Record<string, (c: OfferedCheckpoint, i: number) => boolean> = {
    latest: (_, i) => i === 0,
    best: (c) => c.best,
    final: (c) => c.final,
  };
  const has = (word: string) => list.find(named[word] ?? ((c) => String(c.step) === word));
  const found = step
    .split(" or ")
    .map(has)
    .find((checkpoint) => checkpoint !== undefined);
  if (found) return found;
  const there = list.map((c) => `${c.step}${c.best ? " (best)" : ""}${c.final ? " (final)" : ""}`).join(", ");
  throw new ConfigError(`${url} has no checkpoint "${step}"; there are: ${there}`);
}

/** Is the checkpoint in place already? @throws ConfigError where something else stands there */
async function isThere(directory: string, manifest: Manifest, model: boolean): Promise<boolean> {
  const stands = await stat(directory).then(
    () => true,
    () => false,
  );
  if (!stands) return false;
  const other = `${directory} exists and is not this checkpoint; move it away or choose another --out`;
  if (!model && JSON.stringify(await readManifest(directory)) !== JSON.stringify(manifest))
    throw new ConfigError(other);
  for (const [name, proof] of Object.entries(manifest.files))
    if (!model || !forTrainingOnly.includes(name))
      await proveFile(directory, name, proof).catch((error) => {
        throw new ConfigError(`${other} (${messageOf(error)})`, { cause: error });
      });
  return true;
}

/**
 * A manifest may speak of any size: what is still to come must fit the disk before a byte of it is written.
 * @throws ConfigError with both sizes
 */
async function checkRoom(out: string, temporary: string, files: [string, FileProof][], what: string): Promise<void> {
  let missing = 0;
  for (const [name, { bytes }] of files) {
    const here = await stat(join(temporary, name)).catch(() => undefined);
    missing += Math.max(0, bytes - (here?.size ?? 0));
  }
  const { bavail, bsize } = await statfs(await firstExisting(resolve(out)));
  const free = bavail * bsize;
  const megabytes = (count: number): string => (count / 1e6).toFixed(1);
  if (missing > free)
    throw new ConfigError(
      `${what} needs ${megabytes(missing)} MB more, ${out} has ${megabytes(free)} MB free; make room or choose another --out`,
    );
}

/** The folder itself, or the nearest one above it that exists. */
async function firstExisting(path: string): Promise<string> {
  const exists = await stat(path).then(
    () => true,
    () => false,
  );
  return exists || dirname(path) === path ? path : firstExisting(dirname(path));
}

/** @returns bytes received; those of an earlier try that were kept do not count */
async function fetchFile(
  source: CheckpointSource,
  checkpoint: string,
  directory: string,
  name: string,
  proof: FileProof,
  options: FetchOptions,
  onDone: (bytes: number) => void,
): Promise<number> {
  const path = join(directory, name);
  const what = `${source.url}/${checkpoint}/${name}`;
  const file = await onDisk(path, "written", () => open(path, "a+"));
  try {
    let size = (await file.stat()).size;
    let received = 0;
    const restart = async (): Promise<void> => {
      await file.truncate(0);
      size = 0;
    };
    const fetchRest = async (): Promise<void> => {
      if (size === proof.bytes) return;
      const { from, pieces } = await source.read(checkpoint, name, size, proof);
      if (from !== size) await restart();
      for await (const piece of pieces) {
        if (size + piece.length > proof.bytes)
          throw new ConfigError(`${what} is longer than the ${proof.bytes} bytes of its manifest`);
        await onDisk(path, "written", () => file.appendFile(piece));
        size += piece.length;
        received += piece.length;
        onDone(size);
      }
      if (size < proof.bytes) throw new Interrupted(`${what} ended after ${size} of ${proof.bytes} bytes`);
    };

    if (size > proof.bytes) await restart();
    // What an earlier try left may be of another checkpoint: if it does not fit, once more from the first byte.
    for (let kept = size > 0; ; kept = false) {
      await persist(options, fetchRest, () => size);
      await onDisk(path, "written", () => file.sync());
      const sha256 = await hashFile(path);
      if (sha256 === proof.sha256) break;
      await restart();
      if (!kept)
        throw new ConfigError(
          `${what}: its SHA-256 is ${sha256}, the manifest says ${proof.sha256}; it was damaged there or on the way`,
        );
    }
    onDone(size);
    return received;
  } finally {
    await file.close();
  }
}

/**
 * Try again while the connection breaks, as long as there is progress.
 * @throws ConfigError after several tries in a row without any
 */
async function persist<T>(options: FetchOptions, action: () => Promise<T>, progress = () => 0): Promise<T> {
  let tries = 0;
  for (let reached = progress(); ; ) {
    try {
      return await action();
    } catch (error) {
      if (!(error instanceof Interrupted)) throw error;
      tries = progress() > reached ? 1 : tries + 1;
      reached = progress();
      if (tries >= mostTries)
        throw new ConfigError(`${error.message}; what has come is kept: the same command goes on from there`, {
          cause: error,
        });
      options.onRetry?.(error.message);
      await (options.wait ?? sleep)(250 * 2 ** tries);
    }
  }
}

/** Last, and in the bytes that its source has. */
async function writeManifest(directory: string, manifest: Manifest): Promise<void> {
  const path = join(directory, manifestName);
  await onDisk(path, "written", () => writeFile(path, `${JSON.stringify(manifest, null, 2)}\n`, { flush: true }));
}
