// What `weft install tensorflow` leaves in the cache folder: TensorFlow's libraries as pip lays them out, beside
// @tensorflow/tfjs-node's kernels and its addon compiled against them. The stock package pins TensorFlow 2.9.1, which
// knows no GPU after Ampere. build.json is written last: a folder without it, or with a file cut short, is no build.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { z } from "zod";
import { cacheDir } from "../../shared/cache.ts";

/** The npm package whose binding and kernels are built. */
export const TFJS_NODE_VERSION = "4.22.0";
/** Built and tested with every wheel from 2.12.1 to this one, the newest on PyPI when this was written. */
export const TENSORFLOW_VERSION = "2.21.0";

const recordSchema = z.strictObject({
  tensorflow: z.string(),
  tfjsNode: z.string(),
  cuda: z.boolean(),
  /** Bytes of each file that must be there, by path inside the folder. */
  files: z.record(z.string(), z.number()),
});
export type BuildRecord = z.infer<typeof recordSchema>;

export interface Build extends BuildRecord {
  readonly dir: string;
}

/** Paths inside a build's folder. */
export const parts = {
  record: "build.json",
  addon: "tfjs_binding.node",
  /** What pip installed: tensorflow/ and, for CUDA, nvidia/, which TensorFlow finds by its own relative path. */
  site: "site",
  library: "site/tensorflow/libtensorflow_cc.so.2",
  framework: "site/tensorflow/libtensorflow_framework.so.2",
  tfjsNode: "node_modules/@tensorflow/tfjs-node",
} as const;

export function buildDir(cache: string, version: string, cuda: boolean): string {
  return join(cache, `tensorflow-${version}-${cuda ? "cuda" : "cpu"}-${process.arch}`);
}

/** The whole build in `dir`, or undefined where none was finished. */
export function readBuild(dir: string): Build | undefined {
  const path = join(dir, parts.record);
  if (!existsSync(path)) return undefined;
  const record = recordSchema.safeParse(JSON.parse(readFileSync(path, "utf8")));
  if (!record.success) return undefined; // another version of Weft wrote it
  const whole = Object.entries(record.data.files).every(
    ([file, bytes]) => statSync(join(dir, file), { throwIfNoEntry: false })?.size === bytes,
  );
  return whole ? { ...record.data, dir } : undefined;
}

/** The newest whole build in the cache folder for CUDA, or for the CPU alone. */
export function findBuild(cache: string, cuda: boolean): Build | undefined {
  if (!existsSync(cache)) return undefined;
  const newestFirst = (a: Build, b: Build) => b.tensorflow.localeCompare(a.tensorflow, "en", { numeric: true });
  return readdirSync(cache)
    .filter((name) => name.startsWith("tensorflow-") && name.endsWith(`-${process.arch}`))
    .map((name) => readBuild(join(cache, name)))
    .filter((build) => build !== undefined)
    .filter((build) => build.cuda === cuda && build.tfjsNode === TFJS_NODE_VERSION)
    .sort(newestFirst)[0];
}

/** tfjs-node on this machine, ready to be loaded. */
export interface Addon {
  /** The compiled addon. */
  readonly file: string;
  /** Folder of the npm package, with the kernels in dist/. */
  readonly package: string;
  readonly cuda: boolean;
  /** The folder of NVIDIA's packages that `weft install` fetched with it. */
  readonly nvidia?: string;
}

export function addonOf({ dir, cuda }: Build): Addon {
  const addon = { file: join(dir, parts.addon), package: join(dir, parts.tfjsNode), cuda };
  return cuda ? { ...addon, nvidia: join(dir, parts.site, "nvidia") } : addon;
}

/** @tensorflow/tfjs-node or -gpu as npm installed it beside Weft, with the TensorFlow 2.9.1 that it downloads. */
function stockAddon(cuda: boolean): Addon | undefined {
  const require = createRequire(import.meta.url);
  const paths = require.resolve.paths("@tensorflow/tfjs-node") ?? [];
  const folders = paths.map((path) => join(path, `@tensorflow/tfjs-node${cuda ? "-gpu" : ""}`));
  for (const folder of folders) {
    const file = join(folder, "lib/napi-v8/tfjs_binding.node");
    if (existsSync(file)) return { file, package: folder, cuda };
  }
  return undefined;
}

/** The build in the cache folder, else what npm installed. Without `cuda` one with CUDA serves too, GPUs unused. */
export function findAddon(cuda: boolean, cache: string = cacheDir()): Addon | undefined {
  const build = findBuild(cache, cuda);
  return build ? addonOf(build) : (stockAddon(cuda) ?? (cuda ? undefined : findAddon(true, cache)));
}
