// The commands themselves on data and models as people bring them.
import { execFile } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { configOf, tensorsOf } from "../../shared/checkpoint/huggingface.ts";
import { encode } from "../../shared/checkpoint/safetensors.ts";
import { initialWeights } from "../../shared/family/init.ts";
import { layoutOf } from "../../shared/family/layout.ts";
import type { ModelConfig } from "../../shared/model.ts";
import { CharTokenizer } from "../../shared/tokenizers/char.ts";
import { killAll, temporary, weft } from "../system/weft.ts";

const directory = temporary();
const model: ModelConfig = {
  ...{ family: "gpt2", vocabSize: 8, blockSize: 16, nLayer: 1, nHead: 1, nEmbd: 8, bias: true, dropout: 0 },
  ...{ activation: "gelu", tiedHead: true, layerNormEps: 1e-5 },
};
const text = "the cat sat on the mat; ".repeat(20);

async function writeModel(name: string, change: (weights: Float32Array) => void = () => {}): Promise<string> {
  const padded = { ...model, vocabSize: 40 };
  const weights = initialWeights(layoutOf(padded), 3);
  change(weights);
  const folder = join(directory, name);
  await mkdir(folder);
  await writeFile(join(folder, "config.json"), JSON.stringify(configOf(padded)));
  await writeFile(join(folder, "model.safetensors"), Buffer.concat(encode(tensorsOf(padded, weights), {})));
  for (const [file, content] of CharTokenizer.of(text).toFiles()) await writeFile(join(folder, file), content);
  return folder;
}

let padded: string;
beforeAll(async () => {
  padded = await writeModel("padded");
  await writeFile(join(directory, "t.txt"), text);
});
afterAll(killAll);

async function run(args: readonly string[]): Promise<{ status: number | string; out: string; err: string }> {
  const started = weft(args);
  return { status: await started.ended, out: started.stdout(), err: started.stderr() };
}

test("a padded model samples from the tokens that exist", async () => {
  const { status, out } = await run([
    "sample",
    "--checkpoint",
    padded,
    "--prompt",
    "the",
    "--tokens",
    "200",
    "--temperature",
    "2",
  ]);
  expect(status).toBe(0);
  expect(out.length).toBe(3 + 200 + 1);
  expect([...out].filter((character) => !text.includes(character) && character !== "\n")).toEqual([]);
});

test.each([
  ["all windows of both splits of a text", 480, "all", "28 windows of 16 tokens"],
  ["those of the whole where a split would hold none", 120, "all", "7 windows of 16 tokens"],
  ["one shorter window of a shorter text", 10, "all", "1 window of 9 tokens"],
  ["a split that is asked for, whatever the other one holds", 24, "train", "1 window of 16 tokens"],
])("eval takes %s", async (_, length, split, expected) => {
  const path = join(directory, `${length}.txt`);
  await writeFile(path, text.slice(0, length));
  const { status, out, err } = await run(["eval", "--checkpoint", padded, "--data", path, "--split", split]);
  expect(status, err).toBe(0);
  expect(out).toContain(expected);
});

test("eval reads the column of --text-column", async () => {
  const path = join(directory, "rows.jsonl");
  await writeFile(path, `${JSON.stringify({ body: text })}\n`);
  const evaluate = ["eval", "--checkpoint", padded, "--data", path, "--split", "all"];
  const without = await run(evaluate);
  expect([without.status, without.err]).toEqual([1, expect.stringContaining("name the column with --text-column")]);
  const { status, out, err } = await run([...evaluate, "--text-column", "body"]);
  expect(status, err).toBe(0);
  expect(out).toMatch(/^all: [\d.]+ nats a token/);
});

test("eval takes all of two splits of which one is empty", async () => {
  const folder = join(directory, "emptytrain");
  await mkdir(folder);
  await writeFile(join(folder, "train.bin"), "");
  await writeFile(join(folder, "val.bin"), new Uint8Array(new Uint16Array(50).buffer));
  for (const data of [folder, join(folder, "val.bin")]) {
    const { status, out, err } = await run(["eval", "--checkpoint", padded, "--data", data, "--split", "all"]);
    expect(status, err).toBe(0);
    expect(out).toContain("3 windows of 16 tokens");
  }
});

test("weights that are not finite end eval, sample and convert with the tensor's name", async () => {
  const broken = await writeModel("broken", (weights) => weights.fill(Number.NaN, 5, 6));
  for (const args of [
    ["eval", "--checkpoint", broken, "--data", join(directory, "t.txt")],
    ["sample", "--checkpoint", broken, "--prompt", "the", "--beams", "2"],
    ["convert", broken, "--out", join(directory, "converted")],
    [
      "train",
      "--init-from",
      broken,
      "--data",
      join(directory, "t.txt"),
      "--out",
      join(directory, "tuned"),
      "--port",
      "0",
    ],
  ]) {
    const { status, out, err } = await run(args);
    expect([status, out], err).toEqual([1, ""]);
    expect(err.trimEnd().split("\n").at(-1)).toContain("tensor transformer.wte.weight[0, 5] is NaN;");
  }
});

test("weights that are finite but too large for float32 end sample and eval too", async () => {
  const huge = await writeModel("huge", (weights) => weights.set(weights.map((w) => (w === 1 ? 3e38 : w))));
  const sampled = await run(["sample", "--checkpoint", huge, "--prompt", "the", "--tokens", "5"]);
  expect([sampled.status, sampled.err]).toEqual([1, expect.stringMatching(/logit of id \d+ after 3 tokens is/)]);
  const evaluated = await run(["eval", "--checkpoint", huge, "--data", join(directory, "t.txt")]);
  expect([evaluated.status, evaluated.err]).toEqual([1, expect.stringMatching(/the loss of window 0 is/)]);
});

const tiny = [
  ...["--block-size", "8", "--n-layer", "1", "--n-head", "1", "--n-embd", "8", "--steps", "2", "--batch-size", "4"],
  ...["--workers", "1", "--sample-tokens", "0", "--port", "0", "--warmup-steps", "0"],
];

test("train without validation on a text from standard input", async () => {
  const out = join(directory, "piped");
  const program = join(import.meta.dirname, "../../dist/cli/weft.js");
  const stdout = await new Promise<string>((resolve, reject) => {
    const args = [program, "train", ...tiny, "--data", "-", "--val-fraction", "0", "--out", out];
    const child = execFile(process.execPath, args, (error, text) => (error ? reject(error) : resolve(text)));
    child.stdin!.end(text);
  });
  expect(stdout).toMatch(/^finished 2 steps/);
  expect(stdout).toMatch(/^checkpoint: .*step-000002$/m);
  expect(stdout).not.toContain("validation");
  const again = await run(["eval", "--checkpoint", out, "--data", join(directory, "t.txt")]);
  expect(again.status, again.err).toBe(0);
});

test("fine-tuning a padded model keeps its padding", async () => {
  const out = join(directory, "tuned-padded");
  const flags = [...tiny.slice(8), "--init-from", padded, "--data", join(directory, "t.txt"), "--out", out];
  const { status, err } = await run(["train", ...flags]);
  expect(status, err).toBe(0);
  const resumed = await run(["train", ...flags, "--resume"]);
  expect(resumed.status, resumed.err).toBe(0);
});

test("a byte order mark before a config file and a prompt is no part of them", async () => {
  await writeFile(join(directory, "marked.json"), '\uFEFF{"threads": 1}');
  await writeFile(join(directory, "marked.txt"), "\uFEFFthe");
  const flags = ["--config", join(directory, "marked.json"), "--prompt-file", join(directory, "marked.txt")];
  const { status, out, err } = await run(["sample", "--checkpoint", padded, "--tokens", "3", ...flags]);
  expect(status, err).toBe(0);
  expect(out).toMatch(/^the/);
});
