// Which token files a source names, and where what describes them lies: one file, a folder of shards, a glob, or the same
// in an object store, where each is read by ranges as a file is by offset.
import { readdir, stat, writeFile } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { glob, isDynamicPattern } from "tinyglobby";
import { temporaryFolder } from "../../shared/disk.ts";
import { ConfigError, Interrupted, messageOf } from "../../shared/errors.ts";
import { isStoreAddress } from "../../shared/store/address.ts";
import { ObjectStore } from "../../shared/store/s3.ts";
import { type ReadableFile, StoredFile } from "../../shared/stored-file.ts";

export interface TokenShards {
  /** In which the tokenizer's files may lie, and a description of all token files there. */
  readonly folder: string;
  /** Are these all of the folder's, so that its description is of them? */
  readonly all: boolean;
  /** In the order of their names. */
  readonly train: readonly (() => Promise<ReadableFile>)[];
  /** undefined: the train shards hold both splits. */
  readonly val: readonly (() => Promise<ReadableFile>)[] | undefined;
}

const tokenExtensions = [".bin", ".npy"];
const isTokenFile = (name: string): boolean => tokenExtensions.includes(extname(name));

/** train.bin, train-00003.bin, fineweb_train_000001.bin */
export function isShardOf(split: "train" | "val", name: string): boolean {
  return new RegExp(`(?:^|[._-])${split}(?:[._-]\\d+)?\\.(?:bin|npy)$`).test(name);
}

/** Is this source made of token files? */
export async function isTokenSource(source: string): Promise<boolean> {
  if (isStoreAddress(source) || isTokenFile(source)) return true;
  const names = await readdir(source).catch(() => []);
  return names.some((name) => isShardOf("train", name));
}

/** @throws ConfigError where there is no such file, and where a folder has no shard to train on */
export async function findShards(source: string): Promise<TokenShards> {
  if (isStoreAddress(source)) return await findInStore(source);
  const found = await stat(source).catch(() => undefined);
  const paths = found?.isDirectory()
    ? (await readdir(source)).filter(isTokenFile).map((name) => join(source, name))
    : found
      ? await withTwin(source)
      : isDynamicPattern(source)
        ? await glob(source, { onlyFiles: true })
        : [];
  if (paths.length === 0) throw new ConfigError(`data ${source}: no such file, and no glob that matches`);
  const folder = found?.isDirectory() ? source : dirname(paths[0]!);
  const all = found?.isDirectory() || (found !== undefined && paths.length > 1);
  return { ...split(source, folder, paths, (path) => StoredFile.open(path)), all };
}

/** A file that is one of a folder's two splits stands for both. */
async function withTwin(path: string): Promise<string[]> {
  const pair = ["train.bin", "val.bin"].map((name) => join(dirname(path), name));
  if (!/^(train|val)\.bin$/.test(basename(path))) return [path];
  const both = await Promise.all(pair.map((name) => stat(name).catch(() => undefined)));
  return both.every((file) => file?.isFile()) ? pair : [path];
}

/** By name where names tell the splits apart. */
function split(
  source: string,
  folder: string,
  paths: readonly string[],
  open: (path: string) => Promise<ReadableFile>,
): Omit<TokenShards, "all"> {
  const sorted = [...paths].sort();
  const opened = (some: readonly string[]) => some.map((path) => () => open(path));
  const val = sorted.filter((path) => isShardOf("val", basename(path)));
  if (val.length === 0 || paths.length === 1) return { folder, train: opened(sorted), val: undefined };
  const train = sorted.filter((path) => isShardOf("train", basename(path)));
  if (train.length === 0)
    throw new ConfigError(`data ${source}: has ${basename(val[0]!)} and no file of a name like train.bin beside it`);
  return { folder, train: opened(train), val: opened(val) };
}

/** Larger objects are neither a description nor a tokenizer's file. */
const largestBeside = 64 * 2 ** 20;

async function findInStore(address: string): Promise<TokenShards> {
  const single = isTokenFile(address);
  const store = await ObjectStore.open(single ? address.replace(/\/[^/]*$/, "") : address);
  const objects = (await patiently(() => store.list())).filter(({ key }) => !key.includes("/"));
  const wanted = single
    ? objects.filter(({ key }) => key === basename(address))
    : objects.filter((o) => isTokenFile(o.key));
  if (wanted.length === 0)
    throw new ConfigError(`data ${address}: there is no ${single ? "such file" : ".bin file"} in the store`);
  const folder = await temporaryFolder("weft-data-");
  for (const { key, bytes } of objects)
    if (!isTokenFile(key) && bytes <= largestBeside)
      await writeFile(join(folder, basename(key)), await patiently(() => store.readAll(key)));
  const sizes = new Map(wanted.map(({ key, bytes }) => [key, bytes]));
  const open = async (key: string) => new RemoteFile(store, key, sizes.get(key)!);
  return { ...split(address, folder, [...sizes.keys()], open), all: !single };
}

/** An object that is read by place. */
class RemoteFile implements ReadableFile {
  readonly path: string;
  readonly size: number;
  readonly #store: ObjectStore;
  readonly #key: string;

  constructor(store: ObjectStore, key: string, size: number) {
    this.path = `${store.url}/${key}`;
    this.size = size;
    this.#store = store;
    this.#key = key;
  }

  async read(out: Uint8Array, position: number): Promise<void> {
    if (out.length === 0) return;
    await patiently(async () => {
      let done = 0;
      for await (const piece of await this.#store.read(this.#key, position, position + out.length)) {
        out.set(piece.subarray(0, out.length - done), done);
        done += piece.length;
      }
      if (done !== out.length)
        throw new Interrupted(`${this.path}: ${done} bytes from byte ${position} on, ${out.length} were expected`);
    });
  }

  async close(): Promise<void> {}
}

/** Tries before a store that is away ends the run: about four minutes. */
const mostTries = 10;

async function patiently<T>(act: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++)
    try {
      return await act();
    } catch (error) {
      if (!(error instanceof Interrupted)) throw error;
      if (tries === mostTries) throw new ConfigError(`data ${messageOf(error)}`, { cause: error });
      await sleep(Math.min(250 * 2 ** tries, 60_000));
    }
}
