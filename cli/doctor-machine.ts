// What this machine can do for Weft and what is missing, one finding for each thing that has bitten somebody.
import { readFile, statfs } from "node:fs/promises";
import { createServer } from "node:net";
import { availableParallelism, cpus, freemem, totalmem } from "node:os";
import { nativeStatus } from "../shared/arithmetic/native.ts";
import { cacheDir } from "../shared/cache.ts";
import { messageOf } from "../shared/errors.ts";
import { xla } from "../worker/engine/xla/kind.ts";
import { findGpus, type Gpu } from "../worker/gpus.ts";
import { addonOf, findBuild } from "../worker/install/build.ts";
import { whyNoGpu } from "../worker/install/gpu.ts";
import { findCompiler, run } from "../worker/install/tools.ts";
import { isOnPath } from "../worker/machine.ts";

export interface Finding {
  readonly what: string;
  /** `good`; `absent`: Weft works without it; `bad`: it does not. */
  readonly state: "good" | "absent" | "bad";
  /** What was found, or what is missing and the cure. */
  readonly says: string;
}

const oldestNode = [20, 19];
const leastFreeGiB = 2;

/** @param port where a coordinator would listen */
export async function examine(port: number): Promise<{ findings: Finding[]; gpus: readonly Gpu[] }> {
  const found = await findGpus();
  const findings = await Promise.all([
    nodeFinding(process.versions.node),
    cpuFinding(),
    memoryFinding(freemem(), totalmem()),
    diskFinding("."),
    portFinding(port),
    compilerFinding(),
    nativeFinding(),
    ...found.gpus.map(gpuFinding),
    ...(found.gpus.length === 0 ? [{ what: "GPU", state: "absent", says: found.why } as const] : []),
    found.gpus.length > 0 ? cudaFinding() : undefined,
    xlaFinding(found.gpus.length > 0),
    tensorflowFinding(found.gpus.length > 0),
    numaFinding(),
  ]);
  return { findings: findings.filter((finding) => finding !== undefined), gpus: found.gpus };
}

export function nodeFinding(version: string): Finding {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [oldMajor, oldMinor] = oldestNode as [number, number];
  const here = `${version} on ${process.platform} ${process.arch}`;
  if (major < oldMajor || (major === oldMajor && minor < oldMinor))
    return { what: "Node", state: "bad", says: `${here}; Weft needs ${oldMajor}.${oldMinor} or later` };
  return { what: "Node", state: "good", says: here };
}

/** Instruction sets that decide an engine's speed, by the names that Linux gives them. */
const features = ["avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd", "sve", "bf16"];

async function cpuFinding(): Promise<Finding> {
  const info = await readFile("/proc/cpuinfo", "utf8").catch(() => "");
  const model = cpus()[0]?.model.trim() || /^CPU part\s*: (.*)$/m.exec(info)?.[1] || process.arch;
  return { what: "CPU", state: "good", says: `${model}, ${availableParallelism()} cores${featuresOf(info)}` };
}

export function featuresOf(cpuinfo: string): string {
  const flags = new Set(/^(?:flags|Features)\s*: (.*)$/m.exec(cpuinfo)?.[1]?.split(" "));
  const here = features.filter((name) => flags.has(name));
  return here.length === 0 ? "" : `: ${here.join(" ")}`;
}

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;

function memoryFinding(free: number, total: number): Finding {
  return { what: "memory", state: "good", says: `${gib(free)} free of ${gib(total)}` };
}

async function diskFinding(folder: string): Promise<Finding> {
  const { bavail, bsize } = await statfs(folder);
  const free = bavail * bsize;
  if (free >= leastFreeGiB * 2 ** 30) return { what: "disk", state: "good", says: `${gib(free)} free here` };
  const says = `${gib(free)} free here; a checkpoint of 124M parameters takes 1.4 GiB, free some or use --out elsewhere`;
  return { what: "disk", state: "bad", says };
}

async function portFinding(port: number): Promise<Finding> {
  const reason = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
    const server = createServer().once("error", resolve);
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(undefined)));
  });
  if (!reason) return { what: "port", state: "good", says: `${port} is free` };
  const says = `${port} cannot be listened on (${reason.code}); a coordinator here needs another --port`;
  return { what: "port", state: "absent", says };
}

async function compilerFinding(): Promise<Finding> {
  try {
    const compiler = await findCompiler();
    const { stdout } = await run(compiler, ["--version"]);
    return { what: "compiler", state: "good", says: `${compiler.join(" ")}: ${stdout.split("\n")[0]}` };
  } catch (error) {
    return { what: "compiler", state: "absent", says: messageOf(error).replace(/^install tensorflow: /, "") };
  }
}

function nativeFinding(): Finding {
  const { built, why } = nativeStatus();
  return { what: "native engine", state: built ? "good" : "absent", says: why };
}

/** The engine for GPUs; a CPU does without it. */
async function xlaFinding(gpu: boolean): Promise<Finding> {
  const { usable, why } = await xla.probe({ device: gpu ? "gpu" : "cpu" });
  return { what: "xla engine", state: usable ? "good" : "absent", says: why.replace(/^xla: /, "") };
}

function gpuFinding({ index, name, memoryMiB, driver, numaNode }: Gpu): Finding {
  const node = numaNode === undefined ? "" : `, NUMA node ${numaNode}`;
  return { what: `GPU ${index}`, state: "good", says: `${name}, ${memoryMiB} MiB, driver ${driver}${node}` };
}

/** The newest CUDA that the driver runs; TensorFlow's own libraries must not be newer. */
async function cudaFinding(): Promise<Finding> {
  const { stdout } = await run(["nvidia-smi"], ["-q"]);
  const version = /^CUDA Version\s*: (\d+\.\d+)/m.exec(stdout)?.[1];
  return version
    ? { what: "CUDA", state: "good", says: `${version} and older, by the driver` }
    : { what: "CUDA", state: "absent", says: "nvidia-smi -q names no CUDA version" };
}

/** @param wanted a GPU is here: then it is a loss when TensorFlow cannot use it */
async function tensorflowFinding(wanted: boolean): Promise<Finding> {
  const what = "TensorFlow";
  const build = findBuild(cacheDir(), true) ?? findBuild(cacheDir(), false);
  if (!build) {
    const cure = `weft install tensorflow${wanted ? " --cuda" : ""}`;
    return { what, state: wanted ? "bad" : "absent", says: `not installed; "${cure}" builds it` };
  }
  const version = `${build.tensorflow}${build.cuda ? " with CUDA" : ""} in ${build.dir}`;
  if (!build.cuda && !wanted) return { what, state: "good", says: `${version}, for the CPU` };
  const why = await whyNoGpu(addonOf(build)).catch(messageOf);
  return why === undefined
    ? { what, state: "good", says: `${version}, uses the GPU` }
    : { what, state: wanted ? "bad" : "absent", says: `${version}: ${why}` };
}

async function numaFinding(): Promise<Finding | undefined> {
  if (process.platform !== "linux") return undefined;
  return (await isOnPath("numactl"))
    ? { what: "numactl", state: "good", says: "on PATH; worker processes are bound near their GPUs" }
    : { what: "numactl", state: "absent", says: "not on PATH; only machines with several memory nodes gain from it" };
}
