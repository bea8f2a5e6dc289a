// Which processes `weft train` starts on a machine with GPUs that xla drives: nvidia-smi, the plugin and the addon are
// files of the test's own, which nobody opens.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { slotsOf, whyUnused } from "../../cli/train.ts";
import { resolveOptions } from "../../shared/resolve.ts";
import { drivesGpus, xla } from "../../worker/engine/xla/kind.ts";
import { addonPath } from "../../worker/install/xla-addon.ts";

const folder = mkdtempSync(join(tmpdir(), "weft-train-gpus-"));
const plugin = join(folder, "xla_cuda_plugin.so");
const gpus = [0, 1].map((i) => `${i}, GPU-${i}, NVIDIA H100 80GB HBM3, 81559, 580.159.04, 00000000:0${i}:00.0`);

beforeAll(() => {
  for (const file of [plugin, addonPath(folder)]) writeFileSync(file, "");
  vi.stubEnv("PATH", `${folder}:${process.env.PATH}`);
  vi.stubEnv("WEFT_CACHE_DIR", folder);
  vi.stubEnv("CUDA_VISIBLE_DEVICES", undefined);
});
afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

test.each([
  ["one GPU, nothing said", 1, plugin, undefined, {}, ["gpu0 gpu 0"]],
  ["two GPUs, nothing said: one process for both", 2, plugin, undefined, {}, ["gpus gpu 0,1"]],
  ["a share of the machine", 2, plugin, "1", {}, ["gpu1 gpu 1"]],
  ["a slice of a GPU", 2, plugin, "MIG-7bb8af3d-1a4c", {}, ["gpu0 gpu MIG-7bb8af3d-1a4c"]],
  ["no share of its GPUs", 2, plugin, "", {}, ["cpu0 cpu own", "cpu1 cpu own"]],
  ["the CPU, by name", 2, plugin, undefined, { device: "cpu" }, ["cpu0 cpu -1", "cpu1 cpu -1"]],
  ["the native engine, by name", 2, plugin, undefined, { engine: "native" }, ["cpu0 cpu own", "cpu1 cpu own"]],
  ["no plugin", 2, "", undefined, {}, ["cpu0 cpu own", "cpu1 cpu own"]],
  ["no plugin, GPUs by name", 2, "", undefined, { device: "gpu" }, ["gpu0 gpu 0", "gpu1 gpu 1"]],
] as const)("%s", async (_, count, named, visible, flags, expected) => {
  writeFileSync(join(folder, "nvidia-smi"), `#!/bin/sh\nprintf '%s\\n' "${gpus.slice(0, count).join('" "')}"\n`, {
    mode: 0o755,
  });
  vi.stubEnv("WEFT_XLA_PLUGIN", named || undefined);
  vi.stubEnv("CUDA_VISIBLE_DEVICES", visible);
  const { options } = resolveOptions({ preset: "gpt2-124m", flags });
  const slots = await slotsOf(options);
  expect(
    slots.map(({ label, device, environment }) => `${label} ${device} ${environment.CUDA_VISIBLE_DEVICES ?? "own"}`),
  ).toEqual(expected);
});

test("--workers that is given where GPUs compute is said to be of no effect", async () => {
  const { options } = resolveOptions({ preset: "gpt2-124m", flags: { workers: 3 } });
  vi.stubEnv("CUDA_VISIBLE_DEVICES", undefined);
  vi.stubEnv("WEFT_XLA_PLUGIN", plugin);
  expect(whyUnused(await slotsOf(options), options)).toBe(
    "--workers 3 is for the CPU: one process drives GPUs 0: NVIDIA H100 80GB HBM3, 1: NVIDIA H100 80GB HBM3",
  );
  vi.stubEnv("CUDA_VISIBLE_DEVICES", "");
  expect(whyUnused(await slotsOf(options), options)).toBeUndefined();
});

test.each([
  [undefined, true],
  ["1", true],
  ["MIG-7bb8af3d-1a4c", true],
  ["", false],
  ["7", false],
])("does xla drive GPUs where CUDA_VISIBLE_DEVICES is %s: %s", async (visible, expected) => {
  vi.stubEnv("CUDA_VISIBLE_DEVICES", visible);
  vi.stubEnv("WEFT_XLA_PLUGIN", plugin);
  expect(await drivesGpus({ engine: "auto", backend: "auto", isa: "auto" })).toBe(expected);
  const { why } = await xla.probe({ device: "gpu" });
  if (!expected) expect(why).toBe(`xla: nvidia-smi lists 2, CUDA_VISIBLE_DEVICES="${visible}" leaves 0`);
});

test("GPUs by name where a scheduler left none", async () => {
  vi.stubEnv("CUDA_VISIBLE_DEVICES", "");
  const { options } = resolveOptions({ preset: "gpt2-124m", flags: { device: "gpu" } });
  await expect(slotsOf(options)).rejects.toThrow(/no GPU here: nvidia-smi lists 2, CUDA_VISIBLE_DEVICES="" leaves 0/);
});
