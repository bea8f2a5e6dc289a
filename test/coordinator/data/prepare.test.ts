import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openDataset } from "../../../coordinator/data/dataset.ts";
import { prepareData } from "../../../coordinator/data/prepare.ts";
import { gpt2Tokenizer } from "../../../shared/tokenizers/gpt2.ts";
import { shakespearePath, testWithShakespeare } from "../../text.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "weft-prepare-"));
});
afterEach(() => rm(folder, { recursive: true }));

const text = "The cat sat on the mat; the dog did not. ".repeat(30);

async function prepared(content = text): Promise<string> {
  const out = join(folder, "out");
  await writeFile(join(folder, "text.txt"), content);
  await prepareData({ source: join(folder, "text.txt"), out });
  return out;
}

test("a prepared folder gives the tokens, the split and the fingerprint of the text itself", async () => {
  const out = await prepared();
  expect((await readdir(out)).sort()).toEqual([
    "data.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "train.bin",
    "val.bin",
    "weft-tokenizer.json",
  ]);
  const direct = await openDataset({ source: join(folder, "text.txt"), blockSize: 8 });
  for (const source of [out, join(out, "train.bin")]) {
    const data = await openDataset({ source, blockSize: 8, verify: true });
    expect(data.fingerprint).toBe(direct.fingerprint);
    expect([data.train.length, data.val.length]).toEqual([direct.train.length, direct.val.length]);
    expect(await data.windows("val", [3])).toEqual(await direct.windows("val", [3]));
    expect(data.tokenizer.toFiles()).toEqual(direct.tokenizer.toFiles());
    await data.close();
  }
});

testWithShakespeare("tiny Shakespeare in GPT-2's tokens: 338,025, as nanoGPT counts 301,966 + 36,059", async () => {
  const out = join(folder, "gpt2");
  const passes = new Map<string, number>();
  const made = await prepareData({
    source: shakespearePath,
    out,
    tokenizer: gpt2Tokenizer(),
    progress: (pass, done, total) => passes.set(pass, done / total),
  });
  expect(made.trainTokens + made.valTokens).toBe(301_966 + 36_059);
  expect(made.dtype).toBe("uint16");
  expect([...passes]).toEqual([["tokens", 1]]);
  const train = await readFile(join(out, "train.bin"));
  expect(train.length).toBe(2 * made.trainTokens);
  expect([0, 1, 2, 3].map((i) => train.readUInt16LE(2 * i))).toEqual([5962, 22307, 25, 198]);
});

test("documents of a folder are parted by <|endoftext|> where the vocabulary has it", async () => {
  await mkdir(join(folder, "in"));
  await writeFile(join(folder, "in/1.txt"), "one");
  await writeFile(join(folder, "in/2.txt"), "two");
  const out = join(folder, "out");
  await prepareData({ source: join(folder, "in"), out, tokenizer: gpt2Tokenizer(), valFraction: 0 });
  const data = await openDataset({ source: out, blockSize: 3 });
  const { tokens } = await data.windows("train", [0]);
  expect(data.tokenizer.decode(tokens)).toBe("one<|endoftext|>two");
  expect([data.train.length, data.val.length, data.consecutive("val").length]).toEqual([4, 0, 0]);
  await data.close();
});

test("data is not written over", async () => {
  const out = await prepared();
  await expect(prepareData({ source: join(folder, "text.txt"), out })).rejects.toThrow(/holds prepared data already/);
});

test.each<[string, (out: string) => Promise<unknown>, RegExp]>([
  [
    "a file cut short",
    async (out) => writeFile(join(out, "val.bin"), (await readFile(join(out, "val.bin"))).subarray(2)),
    /its val.bin, or the shards of it, hold 122 tokens, its data.json says 123/,
  ],
  [
    "a changed byte",
    async (out) => {
      const bytes = await readFile(join(out, "train.bin"));
      bytes[100]! ^= 1;
      await writeFile(join(out, "train.bin"), bytes);
    },
    /sha256 of the tokens is [0-9a-f]{64}, data.json says/,
  ],
  [
    "a missing half",
    (out) => rm(join(out, "val.bin")),
    /its val.bin, or the shards of it, hold \d+ tokens, its data.json says/,
  ],
  ["a broken data.json", (out) => writeFile(join(out, "data.json"), "{"), /data.json: not JSON/],
  [
    "a foreign data.json",
    (out) => writeFile(join(out, "data.json"), "{}"),
    /data.json: not what "weft data prepare" writes: format is missing/,
  ],
])("%s is refused", async (_, damage, message) => {
  const out = await prepared();
  await damage(out);
  await expect(openDataset({ source: out, blockSize: 8 })).rejects.toThrow(message);
});

test("another tokenizer than the one that made the data is refused", async () => {
  const out = await prepared();
  const tokenizer = gpt2Tokenizer();
  await expect(openDataset({ source: out, blockSize: 8, tokenizer })).rejects.toThrow(
    /made with the tokenizer char of 16 tokens that lies beside it, not with the gpt2 of 50257/,
  );
});
