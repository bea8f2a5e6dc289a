import { spawn } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { beforeEach, expect, test } from "vitest";
import { chooseGpus, type Found, findGpus } from "../../worker/gpus.ts";
import { launch, type Machine, nextStart, planSlots, type Slot } from "../../worker/launcher.ts";
import { coreNumbersOf, thisMachine } from "../../worker/machine.ts";
import { testOn, testWhere } from "../where.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "weft-launcher-"));
  const path = process.env.PATH;
  return () => {
    process.env.PATH = path;
    rmSync(folder, { recursive: true });
  };
});

/** A stand-in for a program, found before or instead of the real one. */
function standIn(name: string, script: string, only = false): void {
  writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`);
  chmodSync(join(folder, name), 0o755);
  process.env.PATH = only ? folder : `${folder}:${process.env.PATH}`;
}

const smi = `[ "$1" = --query-gpu=index,uuid,name,memory.total,driver_version,pci.bus_id ] || exit 9
[ "$2" = --format=csv,noheader,nounits ] || exit 9
echo "0, GPU-aaaa1111, NVIDIA H100 80GB HBM3, 81559, 550.54.15, 00000000:3B:00.0"
echo "1, GPU-bbbb2222, NVIDIA H100 80GB HBM3, 81559, 550.54.15, 00000000:AF:00.0"
echo "2, GPU-cccc3333, NVIDIA A2, 15356, 550.54.15, 00000000:D8:00.0"`;

async function threeGpus(): Promise<Found> {
  standIn("nvidia-smi", smi);
  for (const [bus, node] of [
    ["0000:3b:00.0", "0"],
    ["0000:af:00.0", "1"],
    ["0000:d8:00.0", "-1"],
  ] as const) {
    mkdirSync(join(folder, "bus/pci/devices", bus), { recursive: true });
    writeFileSync(join(folder, "bus/pci/devices", bus, "numa_node"), `${node}\n`);
  }
  return await findGpus(folder);
}

test("GPUs as nvidia-smi lists them, with their NUMA nodes", async () => {
  const { gpus, why } = await threeGpus();
  expect(why).toBe("nvidia-smi lists 3");
  expect(gpus.map(({ index, memoryMiB, numaNode }) => [index, memoryMiB, numaNode])).toEqual([
    [0, 81559, 0],
    [1, 81559, 1],
    [2, 15356, undefined],
  ]);
  expect(gpus[0]).toMatchObject({ uuid: "GPU-aaaa1111", name: "NVIDIA H100 80GB HBM3", driver: "550.54.15" });
});

test("no driver, a broken one, no GPU: each has its reason", async () => {
  standIn("unrelated", "", true);
  expect(await findGpus()).toEqual({ gpus: [], why: expect.stringMatching(/^nvidia-smi is not on PATH/) });
  standIn("nvidia-smi", "echo NVIDIA-SMI has failed because it could not communicate with the driver; exit 9");
  expect((await findGpus()).why).toMatch(/^nvidia-smi failed: NVIDIA-SMI has failed because it could not/);
  standIn("nvidia-smi", "true");
  expect(await findGpus()).toEqual({ gpus: [], why: "nvidia-smi lists no GPU" });
  standIn("nvidia-smi", "echo something else");
  await expect(findGpus()).rejects.toThrow('nvidia-smi said "something else", expected index, uuid');
});

test("what was asked for is taken, what is absent stops the start", async () => {
  const found = await threeGpus();
  const choose = (selection: string, visible?: string) => chooseGpus(selection, found, visible).map((gpu) => gpu.index);
  expect(choose("all")).toEqual([0, 1, 2]);
  expect(choose("2,0")).toEqual([2, 0]);
  expect(choose("none")).toEqual([]);
  expect(choose("all", "1,2")).toEqual([1, 2]);
  expect(choose("all", "GPU-bbbb")).toEqual([1]);
  const here = "0 \\(NVIDIA H100 80GB HBM3\\), 1 \\(NVIDIA H100 80GB HBM3\\), 2 \\(NVIDIA A2\\)";
  expect(() => choose("0,3")).toThrow(
    new RegExp(`^--gpus 0,3: GPU 3 is not here: nvidia-smi lists 3; usable: ${here}$`),
  );
  expect(() => choose("0", "1")).toThrow('GPU 0 is not here: nvidia-smi lists 3, CUDA_VISIBLE_DEVICES="1" leaves 1');
  expect(() => choose("all", "")).toThrow('no GPU here: nvidia-smi lists 3, CUDA_VISIBLE_DEVICES="" leaves 0');
  expect(() => choose("1,1")).toThrow("a GPU is named twice");
  expect(() => choose("first")).toThrow('--gpus takes all, none or numbers such as 0,2, got "first"');
  const nothing = { gpus: [], why: "nvidia-smi is not on PATH" };
  expect(() => chooseGpus("all", nothing, undefined)).toThrow(/no GPU here: nvidia-smi is not on PATH; --gpus none/);
});

const machine: Machine = { cores: 16, coreNumbers: [], numaNodes: [0, 1], hasNumactl: true, hasTaskset: true };
const unbound: Machine = { ...machine, hasNumactl: false };

test("each GPU has its process, its cores and its own memory", async () => {
  const { gpus } = await threeGpus();
  const slots = planSlots(gpus, 7, machine);
  expect(slots.map(({ label, threads, device, prefix }) => [label, threads, device, prefix.join(" ")])).toEqual([
    ["gpu0", 5, "gpu", "numactl --cpunodebind=0 --preferred=0"],
    ["gpu1", 5, "gpu", "numactl --cpunodebind=1 --preferred=1"],
    ["gpu2", 5, "gpu", ""],
  ]);
  expect(slots[1]!.environment).toEqual({
    CUDA_VISIBLE_DEVICES: "1",
    CUDA_DEVICE_ORDER: "PCI_BUS_ID",
    TF_FORCE_GPU_ALLOW_GROWTH: "true",
  });
  expect(slots[1]!.about).toBe("GPU 1: NVIDIA H100 80GB HBM3, 81559 MiB, driver 550.54.15, NUMA node 1");
});

test("an engine that drives all GPUs is one process that sees them in nvidia-smi's order", async () => {
  const { gpus } = await threeGpus();
  const [slot, ...others] = planSlots(gpus, 1, machine, true);
  expect(others).toEqual([]);
  expect(slot).toMatchObject({
    label: "gpus",
    threads: 16,
    device: "gpu",
    environment: { CUDA_VISIBLE_DEVICES: gpus.map(({ index }) => index).join(","), CUDA_DEVICE_ORDER: "PCI_BUS_ID" },
  });
  expect(planSlots(gpus.slice(0, 1), 1, machine, true)[0]!.label).toBe("gpu0");
});

test("CPU processes share cores and nodes, and see no GPU", () => {
  const slots = planSlots([], 3, machine);
  expect(slots.map(({ label, threads, prefix }) => [label, threads, prefix[1]])).toEqual([
    ["cpu0", 5, "--cpunodebind=0"],
    ["cpu1", 5, "--cpunodebind=1"],
    ["cpu2", 5, "--cpunodebind=0"],
  ]);
  expect(slots[0]!.environment).toEqual({ CUDA_VISIBLE_DEVICES: "-1" });
  expect(planSlots([], 2, unbound)[0]!.prefix).toEqual([]);
  expect(planSlots([], 2, { ...machine, numaNodes: [0] })[0]!.prefix).toEqual([]);
  expect(planSlots([], 64, machine)[0]!.threads).toBe(1);
});

test("where nodes do not bind them, CPU processes have cores of their own", () => {
  const coreNumbers = [0, 1, 4, 5, 7];
  const prefixes = (processes: number, change: Partial<Machine> = {}) =>
    planSlots([], processes, { ...unbound, coreNumbers, ...change }).map(({ prefix }) => prefix.join(" "));
  expect(prefixes(2)).toEqual(["taskset -c 0,1", "taskset -c 4,5,7"]);
  expect(prefixes(3)).toEqual(["taskset -c 0", "taskset -c 1,4", "taskset -c 5,7"]);
  expect(prefixes(1)).toEqual([""]);
  expect(prefixes(6)).toEqual(Array(6).fill(""));
  expect(prefixes(2, { hasTaskset: false })).toEqual(["", ""]);
  expect(prefixes(2, { hasNumactl: true })[1]).toMatch(/^numactl/);
  expect(coreNumbersOf("0-2,5")).toEqual([0, 1, 2, 5]);
});

const { coreNumbers, hasTaskset } = await thisMachine();
testWhere(coreNumbers.length > 1 && hasTaskset, "taskset and 2 cores")("they really have", async () => {
  const { done, lines } = supervise(
    `console.log(/Cpus_allowed_list:\\s*(\\S+)/.exec(require("node:fs").readFileSync("/proc/self/status", "utf8"))[1])`,
    planSlots([], 2, { ...unbound, coreNumbers: coreNumbers.slice(0, 2) }),
  );
  await done;
  expect(lines).toEqual(expect.arrayContaining([`[cpu0] ${coreNumbers[0]}`, `[cpu1] ${coreNumbers[1]}`]));
});

test("nodes, cores and the programs that bind to them are found where they are", async () => {
  for (const node of ["node0", "node10", "node2"])
    mkdirSync(join(folder, "devices/system/node", node), { recursive: true });
  standIn("numactl", "");
  expect(await thisMachine(folder)).toMatchObject({ numaNodes: [0, 2, 10], hasNumactl: true });
  standIn("taskset", "", true);
  expect(await thisMachine(folder)).toMatchObject({ hasNumactl: true, hasTaskset: true });
  rmSync(join(folder, "numactl"));
  expect(await thisMachine(folder)).toMatchObject({ hasNumactl: false, hasTaskset: true });
});

test("back-off: doubling to 30 s, forgotten after a minute of life, given up after 5 in a row", () => {
  expect([0, 1, 2, 3, 4].map((failures) => nextStart(failures, 100))).toEqual(
    [1000, 2000, 4000, 8000, 16_000].map((waitMs, i) => ({ failures: i + 1, waitMs })),
  );
  expect(nextStart(5, 100)).toBe("give up");
  expect(nextStart(5, 60_000)).toEqual({ failures: 1, waitMs: 1000 });
});

/** Runs a program of Node in each slot until all have ended. */
function supervise(program: string, slots: Slot[] = planSlots([], 2, unbound)) {
  const stop = new AbortController();
  const kill = new AbortController();
  const lines: string[] = [];
  const waits: number[] = [];
  const done = launch({
    slots,
    command: (slot) => [process.execPath, "-e", program, folder, slot.label],
    stop: stop.signal,
    kill: kill.signal,
    log: (line) => {
      lines.push(line);
      if (line.endsWith("enough")) stop.abort();
    },
    wait: async (ms) => {
      waits.push(ms);
    },
  });
  return { done, lines, waits, stop, kill };
}

test("output is prefixed, environment is the slot's, status 0 ends the work", async () => {
  const { done, lines } = supervise("console.log('sees', process.env.CUDA_VISIBLE_DEVICES); console.error('err')");
  await done;
  for (const label of ["cpu0", "cpu1"])
    expect(lines).toEqual(expect.arrayContaining([`[${label}] sees -1`, `[${label}] err`]));
});

testOn(process.platform === "linux", "Linux")(
  "Ctrl-C on the terminal does not reach the processes: each leads a group",
  async () => {
    const stat = "require('fs').readFileSync('/proc/self/stat', 'latin1').split(' ')";
    const { done, lines } = supervise(`console.log(${stat}[4] === String(process.pid) ? "leads" : "follows")`);
    await done;
    expect(lines).toEqual(expect.arrayContaining(["[cpu0] leads", "[cpu1] leads"]));
  },
);

test("a crashed process is started again, the other goes on", async () => {
  const { done, lines, waits } = supervise(`
    const [folder, label] = process.argv.slice(1);
    const tries = require("fs").readdirSync(folder).filter((name) => name.startsWith(label)).length;
    require("fs").writeFileSync(folder + "/" + label + "." + tries, "");
    if (label === "cpu1" && tries < 2) { console.error("out of memory"); process.kill(process.pid, "SIGKILL"); }
    else console.log("done after", tries);`);
  await done;
  expect(waits).toEqual([1000, 2000]);
  expect(lines).toContain("[cpu1] cpu1 ended with SIGKILL: out of memory; starting it again in 1 s");
  expect(lines).toEqual(expect.arrayContaining(["[cpu0] done after 0", "[cpu1] done after 2"]));
});

test("one that never starts stops all with its last words", async () => {
  const { done, waits } = supervise(`
    if (process.argv[2] === "cpu0") { console.error("no such engine"); process.exit(3); }
    process.on("SIGTERM", () => process.exit(0)); setInterval(() => {}, 1000);`);
  await expect(done).rejects.toThrow("cpu0 ended with 3: no such engine; it failed 6 times in a row at the start");
  expect(waits.length).toBe(5);
});

test("what no second try can mend is not tried again", async () => {
  const { done, waits } = supervise(`
    if (process.argv[2] === "cpu0") { console.error("too large a model"); process.exit(78); }
    process.on("SIGTERM", () => process.exit(0)); setInterval(() => {}, 1000);`);
  await expect(done).rejects.toThrow(/^cpu0 ended with 78: too large a model$/);
  expect(waits).toEqual([]);
});

test("a worker says whether another one in its place could do better", async () => {
  const cases = [
    ["new ConfigError('refused')", "ended with 78"],
    ["new UnfitError('too large')", "ended with 78"],
    ["new ConfigError('alone', { cause: new Interrupted('gone') })", "6 times in a row"],
    ["new EngineError('the device is gone')", "6 times in a row"],
  ] as const;
  const [launcher, errors] = ["worker/launcher", "shared/errors"].map(
    (name) => pathToFileURL(join(import.meta.dirname, `../../dist/${name}.js`)).href,
  );
  for (const [error, said] of cases) {
    const { done } = supervise(
      `import("${errors}").then(async ({ ConfigError, EngineError, Interrupted, UnfitError }) => {
        process.exitCode = 1;
        (await import("${launcher}")).endBecauseOf(${error});
      });`,
      planSlots([], 1, unbound),
    );
    await expect(done, error).rejects.toThrow(said);
  }
});

test("stopping asks each process once and waits for it", async () => {
  const { done, lines } = supervise(`
    let asked = 0;
    process.on("SIGTERM", () => { asked++; setTimeout(() => { console.log("asked", asked); process.exit(0); }, 50); });
    setInterval(() => {}, 1000);
    console.log(process.argv[2] === "cpu0" ? "enough" : "ready");`);
  await done;
  const after = lines.filter((line) => line.includes("asked"));
  expect(after).toContain("[cpu0] asked 1");
  expect(lines.some((line) => line.includes("starting it again"))).toBe(false);
});

test("killing ends those that do not listen", async () => {
  const { done, kill, stop, lines } = supervise(
    `process.on("SIGTERM", () => console.log("enough of what")); console.log("deaf"); setInterval(() => {}, 1000);`,
    planSlots([], 1, unbound),
  );
  while (!lines.includes("[cpu0] deaf")) await new Promise((resolve) => setImmediate(resolve));
  stop.abort();
  kill.abort();
  await done;
});

test("a launcher that is killed takes its processes with it", async () => {
  const compiled = pathToFileURL(join(import.meta.dirname, "../../dist/worker/launcher.js"));
  const worker = `import { endWithLauncher } from "${compiled}";
    process.on("SIGTERM", () => process.exit(0));
    endWithLauncher();
    console.log("works as", process.pid);
    setInterval(() => {}, 1000);`;
  const launcher = `import { launch, planSlots } from "${compiled}";
    const never = new AbortController().signal;
    await launch({
      slots: planSlots([], 1, ${JSON.stringify(unbound)}),
      command: () => [process.execPath, "--input-type=module", "-e", ${JSON.stringify(worker)}],
      stop: never, kill: never, log: (line) => console.log(line),
    });`;
  const started = spawn(process.execPath, ["--input-type=module", "-e", launcher], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let pid = 0;
  for await (const line of createInterface({ input: started.stdout })) {
    pid = Number(/works as (\d+)/.exec(line)?.[1] ?? 0);
    if (pid > 0) break;
  }
  started.kill("SIGKILL");
  const isAlive = (): boolean => {
    try {
      return process.kill(pid, 0);
    } catch {
      return false;
    }
  };
  while (isAlive()) await new Promise((resolve) => setImmediate(resolve));
});
