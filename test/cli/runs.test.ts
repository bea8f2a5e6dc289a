// Ten runs on the disk: their table, a comparison, and their curves for other programs.
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { exportCommand } from "../../cli/export.ts";
import { runsCommand } from "../../cli/runs.ts";
import { statusCommand } from "../../cli/status.ts";
import { History } from "../../coordinator/history.ts";
import { Ledger, ledgerStart } from "../../coordinator/ledger.ts";
import { writePast } from "../../coordinator/past.ts";
import { serveRun } from "../coordinator/served-run.ts";
import { temporary } from "../system/weft.ts";
import { output } from "./output.ts";

const folder = join(temporary(), "runs");
const steps = 40;

async function makeRun(name: string, learningRate: number): Promise<void> {
  const directory = join(folder, name);
  mkdirSync(directory, { recursive: true });
  const ledger = await Ledger.open(directory, ledgerStart);
  const history = new History();
  for (let step = 1; step <= steps; step++) {
    const point = { step, lossNats: 4 - step * learningRate, gradientNorm: 1, learningRate };
    await ledger.append({ ...point, parts: [{ shards: "0", worker: "a", leases: 1 }], weights: "00" });
    history.addStep({ ...point, tokens: 64 * step, seconds: step / 10, tokensPerSec: 10 });
    if (step % 20 === 0)
      history.addValidation({ step, tokens: 64 * step, seconds: step / 10, valLossNats: 4.5 - step * learningRate });
  }
  await ledger.close();
  const about = { model: "gpt2: 1 layers", steps, tokensPerStep: 64, options: { learningRate, nLayer: 1 } };
  await writePast(directory, { ...about, ...history.curves() });
}

beforeAll(async () => {
  for (let i = 0; i < 10; i++) await makeRun(`run-${i}`, (i + 1) / 1000);
});

const run = (command: ReturnType<typeof runsCommand>, ...words: string[]) =>
  output(() => command.exitOverride().parseAsync(words, { from: "user" }));

test("ten runs in one table", async () => {
  const lines = (await run(runsCommand(), folder)).trimEnd().split("\n");
  expect(lines).toHaveLength(11);
  expect(lines[0]).toMatch(/^run +step +loss +best val +checkpoint +written \(UTC\) +model$/);
  expect(lines[10]).toMatch(/^run-9 +40\/40 +3.6000 +4.1000 +- +\d{4}-\d\d-\d\d \d\d:\d\d +gpt2: 1 layers$/);
});

test("two runs side by side: only what differs, the results, and both curves", async () => {
  const text = await run(runsCommand(), join(folder, "run-0"), join(folder, "run-9"));
  expect(text).toMatch(/--learning-rate +0.001 +0.01\n/);
  expect(text).not.toContain("--n-layer");
  expect(text).toMatch(/training loss +3.9600 +3.6000\n/);
  expect(text.match(/[\u2801-\u28ff]/g)!.length).toBeGreaterThan(20);
});

test("a folder without a run is said to be one", async () => {
  await expect(run(runsCommand(), temporary())).rejects.toThrow(/there is no run in/);
  await expect(run(exportCommand(), temporary())).rejects.toThrow(/no run; it holds neither ledger.jsonl nor/);
});

test("CSV and JSON lines hold every step, and the evaluations beside them", async () => {
  const lines = (await run(exportCommand(), join(folder, "run-0"))).trimEnd().split("\n");
  expect([lines.length, lines[0], lines[1], lines[20]]).toEqual([
    41,
    "step,lossNats,gradientNorm,learningRate,valLossNats",
    "1,3.999,1,0.001,",
    "20,3.98,1,0.001,4.48",
  ]);
  const file = join(temporary(), "a.jsonl");
  await run(exportCommand(), join(folder, "run-0"), "--format", "jsonl", "--out", file);
  const rows = readFileSync(file, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(rows[39]).toEqual({ step: 40, lossNats: 3.96, gradientNorm: 1, learningRate: 0.001, valLossNats: 4.46 });
});

test("steps that were undone are not among the rows, which are those that stand", async () => {
  const directory = temporary();
  const ledger = await Ledger.open(directory, ledgerStart);
  const parts = [{ shards: "0", worker: "a", leases: 1 }];
  const append = async (from: number, to: number, lossNats: number) => {
    for (let step = from; step <= to; step++)
      await ledger.append({ step, lossNats, gradientNorm: 1, learningRate: 0.1, parts, weights: "00" });
  };
  const undo = (from: number, to: number) => ledger.undo({ from, to, weights: "00", workers: ["b"], why: "" });
  await append(1, 8, 1);
  await undo(8, 6);
  await append(7, 10, 2);
  await undo(10, 3);
  await append(4, 5, 3);
  await ledger.close();
  const rows = (await run(exportCommand(), directory)).trimEnd().split("\n").slice(1);
  expect(rows.map((row) => row.split(",").slice(0, 2).join())).toEqual(["1,1", "2,1", "3,1", "4,3", "5,3"]);
});

test("status says how a run stands", async () => {
  await using served = await serveRun({ steps: [] });
  const text = await run(statusCommand(), "--from", served.url.replace("http", "ws"));
  expect(text).toMatch(/^progress +step \d+ of \d+, .* tokens\/s/m);
  const json = await run(statusCommand(), "--from", served.url, "--json");
  expect(JSON.parse(json).step).toBe(served.status.step);
});
