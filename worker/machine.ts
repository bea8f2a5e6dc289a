// What a launcher must know of the machine to share it out: cores, nodes of memory, and whether it can bind to them.
import { constants } from "node:fs";
import { access, readdir, readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { delimiter, join } from "node:path";
import type { Machine } from "./launcher.ts";

/** Is there a program of this name on PATH? */
export async function isOnPath(program: string): Promise<boolean> {
  for (const folder of (process.env.PATH ?? "").split(delimiter))
    try {
      await access(join(folder, program), constants.X_OK);
      return true;
    } catch {
      // Not in this folder; the next one may have it.
    }
  return false;
}

/** "0-2,5" as [0, 1, 2, 5]. */
export function coreNumbersOf(list: string): number[] {
  return list.split(",").flatMap((range) => {
    const [first, last = first] = range.split("-").map(Number) as [number, number?];
    return Array.from({ length: last! - first + 1 }, (_, i) => first + i);
  });
}

/** @param sysfs where the kernel tells of nodes: /sys, or a copy in a test */
export async function thisMachine(sysfs = "/sys"): Promise<Machine> {
  // Systems other than Linux have no such files, and neither numactl nor taskset.
  const status = await readFile("/proc/self/status", "utf8").catch(() => "");
  const allowed = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1];
  const names = await readdir(join(sysfs, "devices/system/node")).catch(() => []);
  const numaNodes = names
    .map((name) => /^node(\d+)$/.exec(name)?.[1])
    .filter((digits) => digits !== undefined)
    .map(Number)
    .sort((a, b) => a - b);
  return {
    cores: availableParallelism(),
    coreNumbers: allowed === undefined ? [] : coreNumbersOf(allowed),
    numaNodes,
    hasNumactl: await isOnPath("numactl"),
    hasTaskset: await isOnPath("taskset"),
  };
}
