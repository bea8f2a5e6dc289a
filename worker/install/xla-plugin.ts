// Where XLA's plugins are on this machine: the one that WEFT_XLA_PLUGIN names, else what `weft install xla` put, or
// noted, in the cache folder.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { z } from "zod";
import { cacheDir } from "../../shared/cache.ts";
import { ConfigError } from "../../shared/errors.ts";

export const pluginKinds = ["cpu", "cuda12", "cuda13"] as const;
export type PluginKind = (typeof pluginKinds)[number];

/** Inside a Python environment's folder of packages. */
export const pluginPaths: Readonly<Record<PluginKind, string>> = {
  cpu: "xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so",
  cuda12: "jax_plugins/xla_cuda12/xla_cuda_plugin.so",
  cuda13: "jax_plugins/xla_cuda13/xla_cuda_plugin.so",
};
/** The packages of PyPI that bring them. */
export const pluginPackages: Readonly<Record<PluginKind, string>> = {
  cpu: "xla-cpu-pjrt",
  cuda12: "jax-cuda12-pjrt",
  cuda13: "jax-cuda13-pjrt",
};

export interface XlaPlugin {
  readonly file: string;
  readonly gpu: boolean;
  /** What decides its bits, for people too: "jax-cuda12-pjrt 0.12.0.1". */
  readonly identity: string;
  /** The folder with NVIDIA's bin/ptxas and nvvm/libdevice, for CUDA. */
  readonly cudaData?: string;
}

const recordSchema = z.strictObject({
  kind: z.enum(pluginKinds),
  /** The folder of Python packages that it lies in; relative to the record's folder, or elsewhere on the machine. */
  site: z.string(),
});
export type PluginRecord = z.infer<typeof recordSchema>;

export const recordName = "xla.json";
export const pluginDir = (cache: string, kind: PluginKind): string => join(cache, `xla-${kind}-${process.arch}`);

/** The plugin of a folder of Python packages, if it is there. */
export function pluginIn(site: string, kind: PluginKind): XlaPlugin | undefined {
  const file = join(site, pluginPaths[kind]);
  if (!existsSync(file)) return undefined;
  const prefix = `${pluginPackages[kind].replaceAll("-", "_")}-`;
  const info = readdirSync(site).find((name) => name.startsWith(prefix) && name.endsWith(".dist-info"));
  const version = info?.slice(prefix.length, -".dist-info".length) ?? `of ${statSync(file).size} bytes`;
  const gpu = kind !== "cpu";
  const cudaData = gpu ? findCudaData(site) : undefined;
  return { file, gpu, identity: `${pluginPackages[kind]} ${version}`, ...(cudaData && { cudaData }) };
}

/** ptxas and libdevice: nvidia-cuda-nvcc-cu12 has them in cuda_nvcc, CUDA 13's packages together in cu13. */
function findCudaData(site: string): string | undefined {
  return ["nvidia/cuda_nvcc", "nvidia/cu13"]
    .map((folder) => join(site, folder))
    .find((folder) => existsSync(join(folder, "bin/ptxas")) && existsSync(join(folder, "nvvm/libdevice")));
}

/** @throws ConfigError where WEFT_XLA_PLUGIN names no file */
function namedPlugin(path: string): XlaPlugin {
  if (!existsSync(path)) throw new ConfigError(`WEFT_XLA_PLUGIN: there is no file ${path}`);
  const file = resolve(path);
  for (const kind of pluginKinds)
    if (file.endsWith(`/${pluginPaths[kind]}`)) return pluginIn(file.slice(0, -pluginPaths[kind].length - 1), kind)!;
  const site = dirname(dirname(dirname(file)));
  const gpu = /cuda|gpu/.test(basename(file));
  const cudaData = gpu ? findCudaData(site) : undefined;
  return { file, gpu, identity: `${basename(file)} of ${statSync(file).size} bytes`, ...(cudaData && { cudaData }) };
}

/** @throws ConfigError where WEFT_XLA_PLUGIN names no file */
export function findPlugin(gpu: boolean, cache: string = cacheDir()): XlaPlugin | undefined {
  const named = process.env.WEFT_XLA_PLUGIN;
  if (named) {
    const plugin = namedPlugin(named);
    if (plugin.gpu === gpu) return plugin;
  }
  // The newest CUDA first.
  for (const kind of [...pluginKinds].reverse()) {
    if ((kind !== "cpu") !== gpu) continue;
    const plugin = readPlugin(cache, kind);
    if (plugin) return plugin;
  }
  return undefined;
}

/** What `weft install xla` finished for this kind, if it is still whole. */
export function readPlugin(cache: string, kind: PluginKind): XlaPlugin | undefined {
  const dir = pluginDir(cache, kind);
  const path = join(dir, recordName);
  if (!existsSync(path)) return undefined;
  const record = recordSchema.safeParse(JSON.parse(readFileSync(path, "utf8")));
  return record.success ? pluginIn(resolve(dir, record.data.site), kind) : undefined;
}
