// Why does TensorFlow see no GPU? It logs a line and goes on with the CPU; we refuse and name what is missing.
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { findGpus } from "../gpus.ts";
import type { Addon } from "./build.ts";
import { run } from "./tools.ts";
import { tryAddon } from "./verify.ts";

/** What can be looked up on this machine without TensorFlow. */
export interface GpuFacts {
  readonly cudaBuild: boolean;
  readonly visibleDevices: string | undefined;
  /** libcuda.so.1, the driver's own library, was found. */
  readonly driverLibrary: boolean;
  /** What nvidia-smi lists, and in words. */
  readonly gpus: readonly string[];
  readonly listing: string;
  /** Of NVIDIA's packages in the build, those that are not there. */
  readonly missingPackages: readonly string[];
  /** TensorFlow's own complaints. */
  readonly log: readonly string[];
}

/** The nvidia/ folders that TensorFlow opens libraries from when it meets a GPU. */
const CUDA_PACKAGES = ["cublas", "cuda_cupti", "cuda_nvcc", "cuda_runtime", "cudnn", "cufft", "cusolver", "cusparse"];

/**
 * What keeps TensorFlow from using a GPU, with the cure, or undefined when it uses one. It takes a second: a process
 * of its own starts TensorFlow.
 */
export async function whyNoGpu(addon: Addon): Promise<string | undefined> {
  const { gpu, log } = await tryAddon(addon.file);
  if (gpu) return undefined;
  const { gpus, why } = await findGpus();
  return explainNoGpu({
    cudaBuild: addon.cuda,
    visibleDevices: process.env.CUDA_VISIBLE_DEVICES,
    driverLibrary: await hasDriverLibrary(),
    gpus: gpus.map(({ name, driver }) => `${name} (driver ${driver})`),
    listing: why,
    missingPackages: addon.nvidia ? CUDA_PACKAGES.filter((name) => !existsSync(join(addon.nvidia!, name))) : [],
    log: complaints(log),
  });
}

/** First cause first: what is missing lower down explains what fails above it. */
export function explainNoGpu(facts: GpuFacts): string {
  const said = facts.log.length > 0 ? ` (TensorFlow: ${facts.log.join("; ")})` : "";
  if (!facts.cudaBuild) return `this build of TensorFlow knows no CUDA; run "weft install tensorflow --cuda"`;
  if (facts.visibleDevices !== undefined && !/^(\d|GPU-|MIG-)/.test(facts.visibleDevices)) {
    return `CUDA_VISIBLE_DEVICES="${facts.visibleDevices}" hides every GPU; unset it or name one`;
  }
  if (!facts.driverLibrary) {
    return `the NVIDIA driver is missing: there is no libcuda.so.1; install the driver, and in a container start it with GPUs (docker run --gpus all)${said}`;
  }
  if (facts.gpus.length === 0) return `the NVIDIA driver is installed but ${facts.listing}${said}`;
  if (facts.missingPackages.length > 0) {
    return `NVIDIA's ${facts.missingPackages.join(", ")} are missing from the build; remove its folder and run "weft install tensorflow --cuda" again${said}`;
  }
  return `TensorFlow cannot use ${facts.gpus.join(", ")}; the driver may be too old for CUDA 12 (525 or newer)${said}`;
}

async function hasDriverLibrary(): Promise<boolean> {
  const folders = (process.env.LD_LIBRARY_PATH ?? "").split(delimiter).filter(Boolean);
  if (folders.some((folder) => existsSync(join(folder, "libcuda.so.1")))) return true;
  const cached = await run(["ldconfig"], ["-p"]);
  const listed = cached.status === "missing" ? await run(["/sbin/ldconfig"], ["-p"]) : cached;
  return listed.stdout.includes("libcuda.so.1");
}

/** The lines of TensorFlow's log that speak of CUDA, without their time stamps. */
function complaints(log: string): string[] {
  return log
    .split("\n")
    .filter((line) => /cuInit|dlopen|dynamic library|cuda drivers|driver version/i.test(line))
    .map((line) => line.replace(/^.*?\] /, "").trim());
}
