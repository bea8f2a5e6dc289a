// What `weft worker` starts for several processes: launching and computing are spied on, all between is as it is.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, expect, test, vi } from "vitest";
import { wrongDevice } from "../../cli/launch-words.ts";
import { workerCommand } from "../../cli/worker.ts";
import type { Options } from "../../shared/config.ts";
import type { LaunchOptions } from "../../worker/launcher.ts";
import type { WorkerSettings } from "../../worker/worker.ts";

const launched: LaunchOptions[] = [];
const worked: WorkerSettings[] = [];
vi.mock("../../worker/launcher.ts", async (real) => ({
  ...(await real<object>()),
  launch: async (options: LaunchOptions) => void launched.push(options),
  // This process is launched too, by the tests' own launcher.
  endWithLauncher: () => {},
}));
vi.mock("../../worker/worker.ts", () => ({ work: async (options: WorkerSettings) => void worked.push(options) }));

const folder = mkdtempSync(join(tmpdir(), "weft-worker-"));
afterAll(() => rmSync(folder, { recursive: true }));
beforeEach(() => {
  launched.length = 0;
  worked.length = 0;
});

const run = (...words: string[]) => workerCommand().parseAsync(words, { from: "user" });
/** Words of each process after program and file. */
const started = () => launched.flatMap(({ slots, command }) => slots.map((slot) => command(slot).slice(2)));
const config = (text: string): string => {
  const path = join(folder, "w.yaml");
  writeFileSync(path, text);
  return path;
};

test("processes from a config file compute; they do not start processes of their own", async () => {
  const path = config("processes: 2\nthreads: 3\nengine: native\ntokenFile: t\ncoordinator: [ws://a:1, ws://b:2]\n");
  await run("--config", path, "--name", "me", "--patience", "7");
  const each = (i: number) =>
    `worker --engine native --coordinator ws://a:1 --coordinator ws://b:2 --patience 7 --token-file t --name me-cpu${i} --threads 3 --device cpu`;
  expect(started().map((words) => words.join(" ").split(" ").sort())).toEqual(
    [0, 1].map((i) => each(i).split(" ").sort()),
  );
  launched.length = 0;
  writeFileSync(join(folder, "t"), "a-token-of-this-test");
  const words = each(0)
    .replace("-file t", `-file ${join(folder, "t")}`)
    .split(" ")
    .slice(1);
  await run(...words);
  expect(launched).toEqual([]);
  expect(worked.map(({ name, options }) => [name, options.coordinator, options.patience])).toEqual([
    ["me-cpu0", ["ws://a:1", "ws://b:2"], 7],
  ]);
});

test("a device that the processes cannot compute on is refused, never another one taken", async () => {
  for (const [words, why] of [
    [
      ["--processes", "4", "--device", "gpu"],
      /^worker: --device gpu, but --processes 4 computes on the CPU; take --gpus/,
    ],
    [["--config", config("processes: 4\ndevice: gpu")], /--device gpu, but --processes 4 computes on the CPU/],
    [["--gpus", "none", "--device", "gpu"], /--device gpu, but --gpus none computes on the CPU/],
    [["--gpus", "0,1", "--device", "cpu"], /--device cpu, but --gpus 0,1 computes on GPUs/],
  ] as const)
    await expect(run(...words), words.join(" ")).rejects.toThrow(why);
  await run("--processes", "2", "--device", "cpu");
  expect(started()).toHaveLength(2);
  const asks = (device: Options["device"], more: object) =>
    wrongDevice({ ssh: "a", weft: "weft", ...more }, { device } as Options);
  expect(asks("gpu", { processes: 2 })).toMatch(/^launch: a: --device gpu, but --processes 2 computes on the CPU/);
  expect(asks("cpu", { gpus: "all" })).toMatch(/^launch: a: --device cpu, but --gpus all computes on GPUs/);
  for (const fine of [asks("gpu", {}), asks("gpu", { gpus: "all" }), asks("auto", { processes: 2 })])
    expect(fine).toBeUndefined();
});
