// Which GPUs this machine has, as NVIDIA's own tool tells it, and which of them were asked for. A GPU that was asked for
// and is not there is an error with the reason: nothing falls back to the CPU in silence.
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { EngineError } from "../shared/errors.ts";

export interface Gpu {
  /** As nvidia-smi counts: by the bus, which is CUDA's order too once CUDA_DEVICE_ORDER=PCI_BUS_ID is set. */
  readonly index: number;
  readonly uuid: string;
  readonly name: string;
  readonly memoryMiB: number;
  readonly driver: string;
  /** Node of memory and cores that it hangs on; undefined on machines with one, and where the system does not say. */
  readonly numaNode: number | undefined;
  /** As CUDA names the part of it that is ours, where it is divided (MIG). */
  readonly slice?: string;
}

/** GPUs, and why there are no more. */
export interface Found {
  readonly gpus: readonly Gpu[];
  readonly why: string;
}

const columns = ["index", "uuid", "name", "memory.total", "driver_version", "pci.bus_id"];

/**
 * All GPUs that the driver sees.
 * @param sysfs where the kernel tells of devices: /sys, or a copy in a test
 * @returns none, and why, where there is no driver or no GPU
 */
export async function findGpus(sysfs = "/sys"): Promise<Found> {
  const query = [`--query-gpu=${columns.join(",")}`, "--format=csv,noheader,nounits"];
  let table: string;
  try {
    table = (await promisify(execFile)("nvidia-smi", query, { timeout: 20_000 })).stdout;
  } catch (error) {
    const { code, stdout, stderr } = error as NodeJS.ErrnoException & { stdout?: string; stderr?: string };
    if (code === "ENOENT")
      return { gpus: [], why: "nvidia-smi is not on PATH: NVIDIA's driver is not installed, or hidden by a container" };
    const said = `${stdout ?? ""}${stderr ?? ""}`.trim().split("\n")[0];
    return { gpus: [], why: `nvidia-smi failed: ${said || `status ${code}`}` };
  }
  const lines = table.split("\n").filter((line) => line.trim() !== "");
  const gpus = await Promise.all(lines.map((line) => parseGpu(line, sysfs)));
  return { gpus, why: gpus.length === 0 ? "nvidia-smi lists no GPU" : `nvidia-smi lists ${gpus.length}` };
}

async function parseGpu(line: string, sysfs: string): Promise<Gpu> {
  const [index = "", uuid = "", name = "", memory = "", driver = "", busId = ""] = line.split(/ *, */);
  if (!/^\d+$/.test(index) || uuid === "" || busId === "")
    throw new EngineError(`nvidia-smi said "${line}", expected ${columns.join(", ")}`);
  // nvidia-smi writes 00000000:3B:00.0, the kernel 0000:3b:00.0.
  const device = busId
    .trim()
    .toLowerCase()
    .replace(/^0000(?=[0-9a-f]{4}:)/, "");
  const node = await readFile(join(sysfs, "bus/pci/devices", device, "numa_node"), "utf8").catch(() => "-1");
  const numaNode = Number.parseInt(node, 10);
  return {
    index: Number(index),
    uuid,
    name,
    memoryMiB: Number(memory), // NaN where the tool says [N/A]
    driver,
    numaNode: numaNode >= 0 ? numaNode : undefined,
  };
}

/** Those that CUDA_VISIBLE_DEVICES, as this process found it, leaves: a scheduler's share of the machine. */
export function visibleGpus({ gpus, why }: Found, visible: string | undefined): Found {
  const share = visible?.split(",").map((entry) => entry.trim());
  if (!share) return { gpus, why };
  // nvidia-smi lists no slices, and CUDA gives a process no more than one of them.
  const slice = share.find((entry) => entry.startsWith("MIG-"));
  const ours = slice
    ? gpus.slice(0, 1).map((gpu) => ({ ...gpu, slice }))
    : gpus.filter(({ index, uuid }) => share.some((entry) => entry === String(index) || isUuid(entry, uuid)));
  const isAll = ours.length === gpus.length;
  return { gpus: ours, why: isAll ? why : `${why}, CUDA_VISIBLE_DEVICES="${visible}" leaves ${ours.length}` };
}

/**
 * The GPUs that `--gpus all|none|0,2` means.
 * @param visible CUDA_VISIBLE_DEVICES: a scheduler's share of the machine is not left
 * @throws EngineError for one that is not there or not ours, and for `all` of none
 */
export function chooseGpus(selection: string, found: Found, visible: string | undefined): readonly Gpu[] {
  if (selection === "none") return [];
  const { gpus: ours, why } = visibleGpus(found, visible);
  if (selection === "all") {
    if (ours.length === 0) throw new EngineError(`--gpus all: no GPU here: ${why}; --gpus none computes on the CPU`);
    return ours;
  }
  const entries = selection.split(",");
  for (const entry of entries)
    if (!/^\d+$/.test(entry))
      throw new EngineError(`--gpus takes all, none or numbers such as 0,2, got "${selection}"`);
  if (new Set(entries.map(Number)).size < entries.length)
    throw new EngineError(`--gpus ${selection}: a GPU is named twice; one process has it to itself`);
  return entries.map((entry) => {
    const found = ours.find((gpu) => gpu.index === Number(entry));
    if (found) return found;
    const there = ours.map(({ index, name }) => `${index} (${name})`).join(", ") || "none";
    throw new EngineError(`--gpus ${selection}: GPU ${entry} is not here: ${why}; usable: ${there}`);
  });
}

/** CUDA takes a UUID's beginning for the whole. */
function isUuid(entry: string, uuid: string): boolean {
  return entry.length > 4 && uuid.startsWith(entry);
}
