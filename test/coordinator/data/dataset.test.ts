import { mkdir, mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openDataset } from "../../../coordinator/data/dataset.ts";
import { CharTokenizer } from "../../../shared/tokenizers/char.ts";
import { openOracle, oraclesPresent } from "../../oracle.ts";
import { shakespearePath, testWithShakespeare } from "../../text.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "weft-data-"));
});
afterEach(() => rm(folder, { recursive: true }));

async function file(name: string, content: string | Uint8Array): Promise<string> {
  await writeFile(join(folder, name), content);
  return join(folder, name);
}

testWithShakespeare("tiny Shakespeare: 65 characters, 90/10, windows as nanoGPT takes them", async () => {
  const data = await openDataset({ source: shakespearePath, blockSize: 64 });
  expect(data.tokenizer.vocabSize).toBe(65);
  expect([data.train.length, data.val.length]).toEqual([1_003_854, 111_540]);
  expect(data.consecutive("val").length).toBe(1742);

  const first = new Int32Array(9);
  await data.read("train", 0, 9, first);
  expect([...first]).toEqual([18, 47, 56, 57, 58, 1, 15, 47, 58]);

  if (!oraclesPresent) return;
  const oracle = await openOracle("nanogpt-char-cpu");
  const offsets = await oracle.ints("input.offsets");
  const starts = offsets.subarray(0, 12);
  const { tokens, targets } = await data.windows("train", starts);
  for (let b = 0; b < 12; b++) {
    const row = new Int32Array(65);
    await data.read("train", starts[b]!, 65, row);
    expect(tokens.subarray(b * 64, b * 64 + 64)).toEqual(row.subarray(0, 64));
    expect(targets.subarray(b * 64, b * 64 + 64)).toEqual(row.subarray(1));
  }
});

test("the last window ends with the last target, and nothing can be read beyond", async () => {
  const text = "0123456789".repeat(12);
  const data = await openDataset({ source: await file("a.txt", text), blockSize: 3 });
  expect([data.train.length, data.val.length]).toEqual([108, 12]);
  // A fourth window would have no last target.
  expect([...data.consecutive("val")]).toEqual([0, 3, 6]);
  const { tokens, targets } = await data.windows("val", data.consecutive("val"));
  expect(data.tokenizer.decode(tokens)).toBe("890123456");
  expect(data.tokenizer.decode(targets)).toBe("901234567");
  await expect(data.windows("train", [105])).rejects.toThrow("train split has 108 tokens, asked for 105 to 109");
});

test("a folder and a glob give the same tokens as one file, in the order of names", async () => {
  await mkdir(join(folder, "books"));
  await file("books/b.txt", "second half, ü");
  await file("books/a.txt", "first half; ");
  await file("books/c.md", "not text");
  const one = await openDataset({ source: await file("one.txt", "first half; second half, ü"), blockSize: 1 });
  for (const source of [join(folder, "books"), join(folder, "books/*.txt")])
    expect((await openDataset({ source, blockSize: 1 })).fingerprint).toBe(one.fingerprint);
  expect(one.fingerprint).toMatch(/^[0-9a-f]{64}$/);
});

test("token files: uint16 and uint32, one file or a pair, with the fingerprint of the text", async () => {
  const text = "to be or not to be. ".repeat(20);
  const tokenizer = CharTokenizer.of(text);
  const inMemory = await openDataset({ source: await file("t.txt", text), blockSize: 8 });
  const ids = Uint16Array.from(tokenizer.encode(text));
  const bytes = new Uint8Array(ids.buffer);
  const single = await openDataset({ source: await file("all.bin", bytes), blockSize: 8, tokenizer });
  await file("train.bin", bytes.subarray(0, 720));
  await file("val.bin", bytes.subarray(720));
  const pair = await openDataset({ source: folder, blockSize: 8, tokenizer });
  for (const data of [single, pair]) {
    expect(data.fingerprint).toBe(inMemory.fingerprint);
    expect([data.train.length, data.val.length]).toEqual([360, 40]);
    for (const split of ["train", "val"] as const)
      expect(await data.windows(split, [0, 5, 31])).toEqual(await inMemory.windows(split, [0, 5, 31]));
    await data.close();
  }

  const wide = CharTokenizer.fromCodePoints(Array.from({ length: 65_537 }, (_, i) => i + 0x10000));
  const big = Uint32Array.from({ length: 100 }, (_, i) => 65_536 - i);
  const source = await file("wide.bin", new Uint8Array(big.buffer));
  const data = await openDataset({ source, blockSize: 4, tokenizer: wide });
  const out = new Int32Array(3);
  await data.read("train", 1, 3, out);
  expect([...out]).toEqual([65_535, 65_534, 65_533]);
  await data.close();
});

test.each([
  ["a missing file", "none.txt", undefined, /none.txt: no such file or folder, and no glob that matches/],
  ["an empty text", "a.txt", "", /a.txt: there is no text in it/],
  ["a short text", "a.txt", "x".repeat(80), /val split has 8 tokens, a window of block size 8 needs 9/],
  ["bytes that are no UTF-8", "a.txt", Uint8Array.of(65, 0xff, 66), /not UTF-8 text between bytes 0 and 3/],
  ["a bin of odd length", "a.bin", new Uint8Array(401), /401 bytes is no multiple of 2/],
])("%s is refused", async (_, name, content, message) => {
  if (content !== undefined) await file(name, content);
  const tokenizer = CharTokenizer.of("ab");
  const source = join(folder, name);
  await expect(openDataset({ source, blockSize: 8, ...(name.endsWith(".bin") && { tokenizer }) })).rejects.toThrow(
    message,
  );
});

test("an unknown character names the file and the position", async () => {
  const source = await file("a.txt", "abcd".repeat(50));
  await expect(openDataset({ source, blockSize: 8, tokenizer: CharTokenizer.of("abc") })).rejects.toThrow(
    /a.txt: character "d" \(U\+0064\) at position 3 is not in the vocabulary/,
  );
});

test("a bin without a tokenizer beside it asks for one", async () => {
  const source = await file("a.bin", new Uint8Array(400));
  await expect(openDataset({ source, blockSize: 8 })).rejects.toThrow(/which tokenizer made it\?.*--tokenizer/);
});

test("an id outside the vocabulary is named with its place when it is read", async () => {
  const ids = new Uint16Array(200);
  ids[17] = 9;
  const source = await file("a.bin", new Uint8Array(ids.buffer));
  const data = await openDataset({ source, blockSize: 8, tokenizer: CharTokenizer.of("abc") });
  await data.windows("train", [0]);
  await expect(data.windows("train", [10])).rejects.toThrow("a.bin: token 17 is 9, outside the vocabulary of 3");
  await data.close();
});

test("a file that is cut short while it is open is noticed", async () => {
  const source = await file("a.bin", new Uint8Array(400));
  const data = await openDataset({ source, blockSize: 8, tokenizer: CharTokenizer.of("abc") });
  await truncate(source, 100);
  await expect(data.windows("train", [60])).rejects.toThrow(/ends at byte 120|ends at byte 100, had 400/);
  await data.close();
});
