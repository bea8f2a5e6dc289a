// A sample after each validation, drawn by a worker: in the log, beside the curves, and without a trace in the weights.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { digestOf, killAll, temporary, weft } from "./weft.ts";

afterAll(killAll);

const folder = temporary();
const data = join(folder, "text.txt");
// No line break: what samples begin with by default is not in this vocabulary.
writeFileSync(data, "abacus and bead, ".repeat(200));
const tiny = [
  ...["--data", data, "--block-size", "8", "--n-layer", "1", "--n-head", "1", "--n-embd", "16", "--dropout", "0.1"],
  ...["--batch-size", "8", "--shards", "4", "--steps", "8", "--warmup-steps", "2", "--eval-interval", "4"],
  ...["--eval-windows", "8", "--sample-tokens", "0", "--port", "0"],
];

async function run(name: string, ...flags: string[]) {
  const out = join(folder, name);
  const process = weft(["train", ...tiny, "--out", out, ...flags]);
  expect(await process.ended, process.stderr()).toBe(0);
  const { samples } = JSON.parse(readFileSync(join(out, "history.json"), "utf8"));
  const logged = process.log.flatMap(({ step, sample }) => (sample === undefined ? [] : [{ step, text: sample }]));
  expect(logged).toEqual(samples);
  return { digest: digestOf(out), samples: samples as { step: number; text: string }[] };
}

test("the same text from any number of workers, and the same weights with or without", async () => {
  const [one, three, none] = [
    await run("one", "--workers", "1", "--eval-sample-tokens", "20", "--prompt", "bead"),
    await run("three", "--workers", "3", "--eval-sample-tokens", "20", "--prompt", "bead"),
    await run("none", "--workers", "1", "--eval-sample-tokens", "0"),
  ];
  expect(one.samples.map(({ step, text }) => [step, text.length, text.slice(0, 4)])).toEqual([
    [4, 24, "bead"],
    [8, 24, "bead"],
  ]);
  expect(three).toEqual(one);
  expect(none).toEqual({ digest: one.digest, samples: [] });
});

test("a vocabulary without a line break begins with the text's first token; a prompt that was asked for is held to", async () => {
  const { samples } = await run("default");
  expect(samples.map(({ text }) => [text.length, text[0]])).toEqual([
    [101, "a"],
    [101, "a"],
  ]);
  const foreign = weft(["train", ...tiny, "--out", join(folder, "foreign"), "--prompt", "§"]);
  expect(await foreign.ended).toBe(1);
  expect(foreign.stderr()).toMatch(/"§".*vocabulary/);
});
