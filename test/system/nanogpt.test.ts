// nanoGPT's own run of its CPU setting, repeated through the real coordinator and two real worker processes: the same
// start weights, the same windows, and so the same losses until rounding has grown.
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, expect } from "vitest";
import { configOf, tensorsOf } from "../../shared/checkpoint/huggingface.ts";
import { encode } from "../../shared/checkpoint/safetensors.ts";
import { findAddon } from "../../worker/install/build.ts";
import { addonFile } from "../../worker/install/xla-addon.ts";
import { findPlugin } from "../../worker/install/xla-plugin.ts";
import { nanogptStart } from "../nanogpt-start.ts";
import { openOracle } from "../oracle.ts";
import { shakespearePath, testWithShakespeare } from "../text.ts";
import { coordinator, killAll, ledgerOf, temporary, together, weft } from "./weft.ts";

afterEach(killAll);

const steps = 50;

const backends = [
  { by: "the engine that auto takes", flags: [] },
  ...(findAddon(false) ? [{ by: "TensorFlow", flags: ["--backend", "tensorflow", "--device", "cpu"] }] : []),
  // Threads are devices: their number must not show.
  ...(addonFile() && findPlugin(false)
    ? [{ by: "XLA", flags: ["--engine", "xla", "--device", "cpu", "--threads", "2"] }]
    : []),
];

for (const { by, flags } of backends)
  testWithShakespeare(`first 50 losses within 1e-3 on average by ${by}`, async () => {
    const oracle = await openOracle("nanogpt-char-cpu");
    const directory = temporary();
    const [model, windows, out] = ["model", "windows.bin", "run"].map((name) => join(directory, name)) as [
      string,
      string,
      string,
    ];
    await mkdir(model);
    await writeFile(join(model, "config.json"), JSON.stringify(configOf(oracle.model)));
    const tensors = tensorsOf(oracle.model, await nanogptStart(oracle));
    await writeFile(join(model, "model.safetensors"), Buffer.concat(encode(tensors, { format: "pt" })));
    await writeFile(windows, new Uint8Array((await oracle.ints("input.offsets")).buffer));

    const run = await coordinator([
      ...["--preset", "shakespeare-cpu", "--steps", String(steps), "--decay-steps", "2000", "--out", out],
      ...["--init-from", model, "--data", shakespearePath, "--windows-file", windows],
      ...["--eval-windows", "12", "--eval-interval", "0"],
    ]);
    const worker = (name: string) => () => weft(["worker", "--coordinator", run.url, "--name", name, ...flags]);
    await together(run, [worker("a"), worker("b")]);
    expect(await run.ended, run.stderr()).toBe(0);

    const curve = oracle.meta<number[]>("lossCurve").slice(0, steps);
    const losses = ledgerOf(out).map((line) => line.lossNats);
    expect(losses).toHaveLength(steps);
    const differences = losses.map((loss, i) => Math.abs(loss - curve[i]!));
    const mean = differences.reduce((a, b) => a + b) / steps;
    const worst = differences.indexOf(Math.max(...differences));
    expect(mean, `mean difference; worst at step ${worst + 1}: ${losses[worst]} against ${curve[worst]}`).toBeLessThan(
      1e-3,
    );
    expect(new Set(ledgerOf(out).flatMap(({ parts }) => parts.map(({ worker }) => worker))).size).toBe(2);
  });
