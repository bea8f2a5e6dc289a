import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { dataCommand } from "../../cli/data.ts";

let folder: string;
let printed: string[];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "weft-cli-data-"));
  await writeFile(join(folder, "text.txt"), "the cat sat on the mat, the dog sat on the cat\n".repeat(40));
  printed = [];
  vi.spyOn(process.stdout, "write").mockImplementation((line) => printed.push(String(line).trimEnd()) > 0);
  vi.spyOn(process.stderr, "write").mockReturnValue(true);
});
afterEach(async () => {
  vi.restoreAllMocks();
  await rm(folder, { recursive: true });
});

async function data(...words: string[]): Promise<void> {
  const command = dataCommand().exitOverride();
  for (const sub of command.commands) sub.exitOverride();
  await command.parseAsync(words, { from: "user" });
}

test("train a tokenizer, prepare with it, look at the result", async () => {
  const at = (name: string): string => join(folder, name);
  await data("train-tokenizer", at("text.txt"), "--vocab-size", "270", "--out", at("bpe"));
  expect(JSON.parse(await readFile(at("bpe/tokenizer.json"), "utf8")).model.merges).toHaveLength(13);
  await data("prepare", at("text.txt"), "--tokenizer", at("bpe"), "--out", at("ready"), "--val-fraction", "0.25");
  await data("info", at("ready"), "--json");
  const info = JSON.parse(printed.at(-1)!);
  expect(info).toMatchObject({ source: at("ready"), tokenizer: "bpe", vocabSize: 270 });
  expect(info.valTokens / (info.trainTokens + info.valTokens)).toBeCloseTo(0.25, 2);
  expect(info.begins).toMatch(/^the cat sat on the mat, the dog/);
  await data("info", at("ready/val.bin"), "--json");
  const file = `val.bin, the val split: ${info.valTokens} tokens`;
  expect(JSON.parse(printed.at(-1)!)).toMatchObject({ ...info, file, begins: expect.stringMatching(/the|cat|dog/) });
  await data("info", at("text.txt"));
  expect(printed.at(-1)).toMatch(/^begins +the cat sat on .*\\nthe cat/);
});

test("data whose training split is empty is looked at as any other", async () => {
  const ready = join(folder, "ready");
  await data("prepare", join(folder, "text.txt"), "--out", ready, "--tokenizer", "gpt2", "--val-fraction", "0.9999");
  await data("info", ready, "--json");
  const info = JSON.parse(printed.at(-1)!);
  expect(info).toMatchObject({ trainTokens: 0, begins: expect.stringMatching(/^the cat sat on the mat, the dog/) });
  expect(info.valTokens).toBeGreaterThan(100);
});

test.each([
  ["--val-fraction", "1", /--val-fraction must be a number at least 0 and below 1, got 1/],
  ["--val-fraction", "x", /--val-fraction must be a number at least 0 and below 1, got "x"/],
  ["--threads", "1.5", /--threads must be a whole number at least 0 and at most 1024, got 1.5/],
  ["--tokenizer", "none", /none: holds no tokenizer; looked for/],
])("prepare %s %s is refused", async (flag, value, message) => {
  const command = data("prepare", join(folder, "text.txt"), "--out", join(folder, "out"), flag, value);
  await expect(command).rejects.toThrow(message);
});

test("train-tokenizer --vocab-size 256 is refused", async () => {
  const command = data("train-tokenizer", join(folder, "text.txt"), "--out", folder, "--vocab-size", "256");
  await expect(command).rejects.toThrow(/--vocab-size must be a whole number at least 257 and/);
  await expect(data("train-tokenizer", join(folder, "text.txt"))).rejects.toThrow(/required option '--out <DIR>'/);
});
