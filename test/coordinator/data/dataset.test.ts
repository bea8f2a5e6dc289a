import { createHash } from "node:crypto";
import { mkdir, mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Dataset, openDataset } from "../../../coordinator/data/dataset.ts";
import { CharTokenizer } from "../../../shared/tokenizers/char.ts";
import { openOracle } from "../../oracle.ts";
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

test("windows beyond two billion tokens start where they lie", () => {
  const tokens = { length: 10 * 2 ** 30 + 1, read: async () => {} };
  const parts = { name: "long", tokenizer: CharTokenizer.of("ab"), fingerprint: "", blockSize: 2 ** 30 };
  const data = new Dataset({ ...parts, train: tokens, val: tokens });
  expect([...data.consecutive("val")]).toEqual(Array.from({ length: 10 }, (_, i) => i * 2 ** 30));
  const T = 2 ** 29;
  const cut = 18 * T;
  expect([...data.uncut(T)]).toEqual([...Array.from({ length: 17 }, (_, i) => i * T), cut, cut + T]);
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

test("a packed text is measured by what it holds: more than may be in memory is refused", async () => {
  const source = await file("a.txt.gz", gzipSync("abab".repeat(2 ** 18)));
  for (const tokenizer of [undefined, CharTokenizer.of("ab")]) {
    const options = { source, blockSize: 8, ...(tokenizer && { tokenizer }) };
    expect((await openDataset({ ...options, mostTextBytes: 2 ** 20 })).val.length).toBeGreaterThan(0);
    await expect(openDataset({ ...options, mostTextBytes: 2 ** 20 - 1 })).rejects.toThrow(
      /^data \S*a\.txt\.gz: 1048576 bytes of text are more than the 1048575 that .* run "weft data prepare"/,
    );
  }
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

test.each([17, 199])("an id outside the vocabulary is named with its place when the file is opened", async (at) => {
  const ids = new Uint16Array(200);
  ids[at] = 9;
  const source = await file("a.bin", new Uint8Array(ids.buffer));
  await expect(openDataset({ source, blockSize: 8, tokenizer: CharTokenizer.of("abc") })).rejects.toThrow(
    `a.bin: token ${at} is 9, outside the vocabulary of 3; the file (read as uint16) is damaged`,
  );
});

test("an id without a token, in a vocabulary with gaps", async () => {
  const tokenizer = CharTokenizer.of("abcdef");
  const gap = Object.assign(Object.create(tokenizer) as CharTokenizer, { has: (id: number) => id !== 3 });
  const source = await file(
    "a.bin",
    new Uint8Array(Uint16Array.from({ length: 90 }, (_, i) => (i === 50 ? 3 : 1)).buffer),
  );
  const { TokenFile } = await import("../../../coordinator/data/tokens.ts");
  const opened = await TokenFile.open(source, { vocabSize: tokenizer.vocabSize, has: gap.has });
  await expect(opened.addTo(createHash("sha256"))).rejects.toThrow("a.bin: token 50 is 3, an id without a token");
  await opened.close();
});

describe("forms of token files", () => {
  const ids = Array.from({ length: 100 }, (_, i) => (i * 7) % 11);
  const tokenizer = CharTokenizer.of("abcdefghijk");
  const u16 = Buffer.from(Uint16Array.from(ids).buffer);
  const u32 = Buffer.from(Uint32Array.from(ids).buffer);
  const llmc = (magic: number, length: number, data: Buffer): Buffer => {
    const header = Buffer.alloc(1024);
    for (const [i, word] of [magic, 1, length].entries()) header.writeInt32LE(word, 4 * i);
    return Buffer.concat([header, data]);
  };
  const npy = (descr: string, shape: string, data: Buffer, order = "False"): Buffer => {
    const text = `{'descr': '${descr}', 'fortran_order': ${order}, 'shape': ${shape}, }`;
    const padded = `${text.padEnd(117)}\n`;
    return Buffer.concat([
      Buffer.from("\x93NUMPY\x01\x00", "latin1"),
      Buffer.from([padded.length, 0]),
      Buffer.from(padded),
      data,
    ]);
  };
  const read: Record<string, [string, Buffer]> = {
    uint16: ["a.bin", u16],
    "uint32, though 16 bits would do": ["a.bin", u32],
    "llm.c's GPT-2 header": ["a.bin", llmc(20_240_520, 100, u16)],
    "llm.c's Llama 3 header": ["a.bin", llmc(20_240_801, 100, u32)],
    ".npy of uint16": ["a.npy", npy("<u2", "(100,)", u16)],
    ".npy of int32 in rows": ["a.npy", npy("<i4", "(4, 25)", u32)],
    ".npy under another name": ["a.bin", npy("<u4", "(100,)", u32)],
  };
  test.each(Object.entries(read))("%s: the same ids and fingerprint", async (_, [name, content]) => {
    const lines: string[] = [];
    const notify = (line: string) => lines.push(line);
    const data = await openDataset({ source: await file(name, content), blockSize: 4, tokenizer, notify });
    const out = new Int32Array(90);
    await data.read("train", 0, 90, out);
    expect([...out]).toEqual(ids.slice(0, 90));
    expect(data.fingerprint).toBe(createHash("sha256").update(u16).digest("hex"));
    expect(lines.length).toBe(content === u16 ? 0 : 1);
    await data.close();
  });

  const foreign: Record<string, [string, Buffer, string]> = {
    "64 bits": [
      "a.bin",
      Buffer.from(BigUint64Array.from(ids, BigInt).buffer),
      "holds ids of 64 bits; save them as uint16",
    ],
    "llm.c cut short": ["a.bin", llmc(20_240_520, 101, u16), "announces 101 ids, 1226 bytes; it has 1224"],
    ".npy of int64": ["a.npy", npy("<i8", "(50,)", u32), "a .npy file of <i8; save the ids as uint16"],
    ".npy of floats": ["a.npy", npy("<f4", "(100,)", u32), "a .npy file of <f4"],
    ".npy cut short": [
      "a.npy",
      npy("<u2", "(100,)", u16.subarray(2)),
      "announces 100 ids of 2 bytes after byte 128; the file has 326",
    ],
    ".npy in columns": ["a.npy", npy("<u2", "(10, 10)", u16, "True"), "in Fortran's order"],
    ".npy with half a header": ["a.npy", npy("<u2", "(100,)", u16).subarray(0, 60), "its .npy header cannot be read"],
  };
  test.each(Object.entries(foreign))("%s is refused by its name", async (_, [name, content, why]) => {
    const source = await file(name, content);
    await expect(openDataset({ source, blockSize: 4, tokenizer })).rejects.toThrow(`${source}: `);
    await expect(openDataset({ source, blockSize: 4, tokenizer })).rejects.toThrow(why);
  });
});

test("nanoGPT's character folder opens as it is, with the characters of its meta.pkl", async () => {
  const characters = [..."\n !aé🦊"];
  // As Python 3.8 and later write {"vocab_size": 6, "itos": {...}, "stoi": {...}}, and protocol 2 before.
  const short = (text: string) =>
    Buffer.concat([Buffer.from([0x8c, Buffer.byteLength(text)]), Buffer.from(text), Buffer.from([0x94])]);
  const long = (text: string) => {
    const head = Buffer.from([0x58, 0, 0, 0, 0]);
    head.writeUInt32LE(Buffer.byteLength(text), 1);
    return Buffer.concat([head, Buffer.from(text), Buffer.from("q\x07", "latin1")]);
  };
  const number = (n: number) => Buffer.from([0x4b, n]);
  const pickle = (head: Buffer, spell: (text: string) => Buffer) =>
    Buffer.concat([
      ...[head, Buffer.from("}("), spell("vocab_size"), number(characters.length), spell("itos"), Buffer.from("}(")],
      ...characters.flatMap((character, id) => [number(id), spell(character)]),
      ...[Buffer.from("u"), spell("stoi"), Buffer.from("}u.")],
    ]);
  await file("train.bin", new Uint8Array(Uint16Array.from({ length: 60 }, (_, i) => i % 6).buffer));
  await file("val.bin", new Uint8Array(Uint16Array.from({ length: 12 }, (_, i) => i % 6).buffer));
  for (const bytes of [
    pickle(Buffer.from([0x80, 4, 0x95, 0, 0, 0, 0, 0, 0, 0, 0]), short),
    pickle(Buffer.from([0x80, 2]), long),
  ]) {
    await file("meta.pkl", bytes);
    const data = await openDataset({ source: folder, blockSize: 4 });
    const { tokens } = await data.windows("train", [0, 6]);
    expect(data.tokenizer.decode(tokens)).toBe("\n !a\n !a");
    expect(data.tokenizer.toFiles().get("weft-tokenizer.json")).toContain("🦊");
    await data.close();
  }
});

test.each([
  [
    "code",
    "\x80\x04cos\nsystem\n.",
    /meta\.pkl: has opcode 0x63, which is not read here, at byte 3; expected a pickle of/,
  ],
  ["half of it", "\x80\x04}\x94(\x8c\x05it", /meta\.pkl: is cut short at byte/],
  ["text", "hello", /meta\.pkl: recalls 101|is cut short|opcode/],
])("a meta.pkl that holds %s is refused", async (_, content, why) => {
  await file("train.bin", new Uint8Array(60));
  await file("val.bin", new Uint8Array(60));
  await file("meta.pkl", Buffer.from(content, "latin1"));
  await expect(openDataset({ source: folder, blockSize: 4 })).rejects.toThrow(why);
});

test.each([
  ["no characters", "\x80\x04}.", /meta\.pkl: has no "itos".*name it with --tokenizer/],
  ["a size", "\x80\x04}\x8c\x0avocab_sizeK\x37s.", /meta\.pkl: has no "itos".*name it with --tokenizer/],
  [
    "words",
    "\x80\x04}\x8c\x04itos}K\x00\x8c\x03abcss.",
    /id 0 of its 1 is "abc", expected one character; name it with --tokenizer/,
  ],
])("a meta.pkl that holds %s leaves the tokenizer to be named", async (_, content, why) => {
  await file("train.bin", new Uint8Array(60));
  await file("val.bin", new Uint8Array(60));
  await file("meta.pkl", Buffer.from(content, "latin1"));
  await expect(openDataset({ source: folder, blockSize: 4 })).rejects.toThrow(why);
  const tokenizer = CharTokenizer.of("ab");
  expect((await openDataset({ source: folder, blockSize: 4, tokenizer })).tokenizer).toBe(tokenizer);
});

test("standard input and a pipe are read once and can be asked for twice", async () => {
  const { execFileSync } = await import("node:child_process");
  const pipe = join(folder, "pipe");
  execFileSync("mkfifo", [pipe]);
  const writing = writeFile(pipe, "\uFEFFa text that comes through a pipe");
  const data = await openDataset({ source: pipe, blockSize: 2 });
  await writing;
  expect([data.train.length, data.val.length]).toEqual([28, 4]);
  expect(data.tokenizer.vocabSize).toBe(15);
});

test("no validation at all, where that was asked for", async () => {
  const source = await file("a.txt", "0123456789");
  const data = await openDataset({ source, blockSize: 9, valFraction: 0 });
  expect([data.train.length, data.val.length]).toEqual([10, 0]);
  expect(data.consecutive("val")).toHaveLength(0);
  await file("train.bin", new Uint8Array(20));
  await file("val.bin", new Uint8Array(0));
  const tokenizer = CharTokenizer.of("ab");
  await expect(openDataset({ source: folder, blockSize: 2, tokenizer, valFraction: 0.2 })).rejects.toThrow(
    "has a validation split of its own, val.bin; leave out --val-fraction",
  );
  expect((await openDataset({ source: folder, blockSize: 2, tokenizer })).val.length).toBe(0);
});

test("a file that is cut short while it is open is noticed", async () => {
  const source = await file("a.bin", new Uint8Array(400));
  const data = await openDataset({ source, blockSize: 8, tokenizer: CharTokenizer.of("abc") });
  await truncate(source, 100);
  await expect(data.windows("train", [60])).rejects.toThrow(
    /a\.bin: cut short, or changed while it was read: bytes up to \d+ were expected, it had 400/,
  );
  await data.close();
});
