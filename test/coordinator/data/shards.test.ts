// Data at scale: many shards read as one sequence, many files and documents encoded side by side, interrupted and gone
// on with, JSON lines and Parquet.
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { parquetWriteFile } from "hyparquet-writer";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openDataset } from "../../../coordinator/data/dataset.ts";
import { prepareData } from "../../../coordinator/data/prepare.ts";
import { concatenate, MemoryTokens } from "../../../coordinator/data/tokens.ts";
import { gpt2Tokenizer } from "../../../shared/tokenizers/gpt2.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "weft-shards-"));
});
afterEach(() => rm(folder, { recursive: true }));

const tokenizer = gpt2Tokenizer();
const end = 50_256;

async function allOf(source: string): Promise<number[]> {
  const data = await openDataset({ source, blockSize: 1, verify: true });
  const ids: number[] = [];
  for (const split of ["train", "val"] as const) {
    const out = new Int32Array(data[split].length);
    await data.read(split, 0, out.length, out);
    ids.push(...out);
  }
  await data.close();
  return ids;
}

test("shards are read as one sequence, across their borders and empty ones", async () => {
  const parts = [[0, 1, 2], [], [3], [4, 5, 6, 7]].map((ids) => new MemoryTokens(Uint16Array.from(ids)));
  const whole = concatenate(parts);
  expect(whole.length).toBe(8);
  for (let from = 0; from <= 8; from++)
    for (let to = from; to <= 8; to++) {
      const out = new Int32Array(to - from);
      await whole.read(from, out);
      expect([...out]).toEqual(Array.from({ length: to - from }, (_, i) => from + i));
    }
});

async function manyFiles(count: number): Promise<string> {
  const source = join(folder, "in");
  await mkdir(source, { recursive: true });
  for (let i = 0; i < count; i++) {
    const path = join(source, `${String(i).padStart(2, "0")}.txt`);
    await writeFile(path, `Document ${i} of many. `.repeat(40 + i));
  }
  return source;
}

test("any number of threads gives the same shards as one, and the ids of the text itself", async () => {
  const source = await manyFiles(7);
  const direct = await openDataset({ source, blockSize: 1, tokenizer });
  for (const threads of [1, 3]) {
    const out = join(folder, `out-${threads}`);
    const seen: number[] = [];
    const progress = (_: string, done: number, total: number) => seen.push(done / total);
    const made = await prepareData({ source, out, tokenizer, threads, partBytes: 1500, progress });
    expect(made.sha256).toBe(direct.fingerprint);
    expect((await readdir(out)).filter((name) => /^train-\d{5}\.bin$/.test(name)).length).toBeGreaterThan(2);
    expect(existsSync(join(out, ".parts"))).toBe(false);
    expect(seen.at(-1)).toBe(1);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    const data = await openDataset({ source: out, blockSize: 16, verify: true });
    expect([data.train.length, data.val.length]).toEqual([direct.train.length, direct.val.length]);
    const starts = Array.from({ length: direct.train.length - 16 }, (_, i) => i);
    expect(await data.windows("train", starts)).toEqual(await direct.windows("train", starts, 16));
    await data.close();
  }
});

test("a preparation that was interrupted goes on with what is missing, and trusts nothing that has changed", async () => {
  const source = await manyFiles(7);
  const out = join(folder, "out");
  const options = { source, out, tokenizer, threads: 1, partBytes: 1500 };
  const whole = await prepareData({ ...options, out: join(folder, "whole") });
  let stopAt = 3000;
  const stop = (_: string, done: number) => {
    if (done > stopAt) throw new Error("pulled the plug");
  };
  await expect(prepareData({ ...options, progress: stop })).rejects.toThrow("pulled the plug");
  const parts = (await readdir(join(out, ".parts"))).filter((name) => name.endsWith(".bin"));
  expect(parts.length).toBeGreaterThan(1);
  const said: string[] = [];
  stopAt = Number.POSITIVE_INFINITY;
  // One was cut short by a power failure, the source of another one was written anew.
  await truncate(join(out, ".parts", parts[0]!), 10);
  const touched = join(source, "01.txt");
  await utimes(touched, new Date(), new Date(Date.now() + 5000));
  const again = await prepareData({ ...options, notify: (line) => said.push(line) });
  expect(again.sha256).toBe(whole.sha256);
  expect(said.join()).toMatch(/\d of \d parts are there already/);
  await expect(prepareData(options)).rejects.toThrow("holds prepared data already");
});

test("a shard that is missing, or of another length, is said", async () => {
  const source = await manyFiles(7);
  const out = join(folder, "out");
  await prepareData({ source, out, tokenizer, partBytes: 1500 });
  await rm(join(out, "train-00001.bin"));
  await expect(openDataset({ source: out, blockSize: 8 })).rejects.toThrow(
    /train.bin, or the shards of it, hold \d+ tokens, its data.json says/,
  );
});

test("a glob of token files is one sequence; names tell the splits apart", async () => {
  const bin = (name: string, ids: number[]) =>
    writeFile(join(folder, name), new Uint8Array(Uint16Array.from(ids).buffer));
  const numbers = (from: number, count: number) => Array.from({ length: count }, (_, i) => (from + i) % 50_000);
  await bin("a-1.bin", numbers(0, 50));
  await bin("a-2.bin", numbers(50, 50));
  await bin("fine_train_000001.bin", numbers(100, 40));
  await bin("fine_train_000002.bin", numbers(140, 40));
  await bin("fine_val_000000.bin", numbers(180, 20));
  const plain = await openDataset({ source: join(folder, "a-*.bin"), blockSize: 4, tokenizer });
  expect([plain.train.length, plain.val.length]).toEqual([90, 10]);
  expect((await plain.windows("train", [48])).tokens).toEqual(Int32Array.of(48, 49, 50, 51));
  const split = await openDataset({ source: join(folder, "fine_*.bin"), blockSize: 4, tokenizer });
  expect([split.train.length, split.val.length]).toEqual([80, 20]);
  expect((await split.windows("val", [0])).tokens).toEqual(Int32Array.of(180, 181, 182, 183));
  for (const data of [plain, split]) await data.close();
  await expect(openDataset({ source: join(folder, "b-*.bin"), blockSize: 4, tokenizer })).rejects.toThrow(
    "no glob that matches",
  );
});

const rows = ["The first document.", "", "Ein zweites, mit Umlauten: äöü und 漢字.", "line\nbreaks\nin it"];
const idsOf = (texts: readonly string[]) => texts.flatMap((text) => [...tokenizer.encode(text), end]);

test("JSON lines: a document a line, also gzipped, by the name of its column", async () => {
  const lines = `${rows.map((text, id) => JSON.stringify({ id, content: text })).join("\n")}\n`;
  await writeFile(join(folder, "a.jsonl"), lines);
  await writeFile(join(folder, "a.jsonl.gz"), gzipSync(lines));
  for (const name of ["a.jsonl", "a.jsonl.gz"]) {
    const out = join(folder, `out-${name}`);
    await prepareData({ source: join(folder, name), out, tokenizer, textColumn: "content" });
    expect(await allOf(out), name).toEqual(idsOf(rows));
  }
  const wrong = prepareData({ source: join(folder, "a.jsonl"), out: join(folder, "no"), tokenizer });
  await expect(wrong).rejects.toThrow(
    /a.jsonl: line 1 has no "text"; there are id, content; name the column with --text-column/,
  );
  await writeFile(join(folder, "b.jsonl"), '{"text": "good"}\n{"text": "cut o');
  const cut = prepareData({ source: join(folder, "b.jsonl"), out: join(folder, "no"), tokenizer });
  await expect(cut).rejects.toThrow(/b.jsonl: line 2 is not JSON/);
  await writeFile(join(folder, "c.jsonl.gz"), gzipSync(lines).subarray(0, 60));
  const broken = prepareData({
    source: join(folder, "c.jsonl.gz"),
    out: join(folder, "no"),
    tokenizer,
    textColumn: "content",
  });
  await expect(broken).rejects.toThrow(/c.jsonl.gz: ends in the middle of its packed data/);
});

test.each([
  ["gpt2", { tokenizer }],
  ["its characters", {}],
])("JSON lines: half a character is refused with its line, with %s", async (_, options) => {
  const source = join(folder, "a.jsonl");
  await writeFile(source, '{"text": "ab"}\n{"text": "ab\\ud83e\\udd8a"}\n{"text": "ab\\ud800cd"}\n');
  await expect(openDataset({ source, blockSize: 1, whole: true, ...options })).rejects.toThrow(
    /a\.jsonl: line 3 has half a character \(a lone surrogate\) at position 2 of "text"; it has no UTF-8 bytes/,
  );
});

test("a row without its text is left out of JSON lines too; names count in capitals", async () => {
  await mkdir(join(folder, "texts"));
  await writeFile(join(folder, "texts/A.JSONL.GZ"), gzipSync('{"text": "ab"}\n{"text": null}\n{"text": "ba"}\n'));
  const data = await openDataset({ source: join(folder, "texts"), blockSize: 1, tokenizer, whole: true });
  const read = new Int32Array(data.train.length);
  await data.read("train", 0, read.length, read);
  expect([...read]).toEqual(idsOf(["ab", "ba"]));
});

test.each([
  ["UTF-32", Buffer.from("\ufeffa\0b\0", "utf16le")],
  ["UTF-16", Buffer.from("\ufeffab", "utf16le")],
  ["UTF-16 \\(by its many NUL bytes\\)", Buffer.from("some text", "utf16le")],
])("text in %s is refused by that name", async (name, bytes) => {
  const source = join(folder, "a.txt");
  await writeFile(source, name === "UTF-32" ? Buffer.concat([Buffer.from([0xff, 0xfe, 0, 0]), bytes]) : bytes);
  await expect(openDataset({ source, blockSize: 1 })).rejects.toThrow(
    new RegExp(`a\\.txt: is ${name} text; convert it to UTF-8 first`),
  );
});

test("Parquet: row groups and compression, by the name of its column", async () => {
  const many = Array.from({ length: 300 }, (_, i) => `${rows[i % rows.length]} ${i}`);
  const path = join(folder, "a.parquet");
  const columnData = [
    { name: "id", data: many.map((_, i) => i) },
    { name: "text", data: many },
  ];
  await parquetWriteFile({ filename: path, columnData, rowGroupSize: 70 });
  const out = join(folder, "out");
  await prepareData({ source: path, out, tokenizer });
  expect(await allOf(out)).toEqual(idsOf(many));
  const number = prepareData({ source: path, out: join(folder, "no"), tokenizer, textColumn: "id" });
  await expect(number).rejects.toThrow(/a.parquet: row 0 has no text in "id" but 0/);
  const absent = prepareData({ source: path, out: join(folder, "no"), tokenizer, textColumn: "body" });
  await expect(absent).rejects.toThrow(/a.parquet: has no "body"; there are id, text/);
  await writeFile(join(folder, "b.parquet"), (await readFile(path)).subarray(0, 900));
  const cut = prepareData({ source: join(folder, "b.parquet"), out: join(folder, "no"), tokenizer });
  await expect(cut).rejects.toThrow(/b.parquet: not a Parquet file, or damaged/);
});

test("characters have no end of text: documents follow each other", async () => {
  await writeFile(join(folder, "a.jsonl"), '{"text":"ab"}\n{"text":"ba"}\n');
  const out = join(folder, "out");
  await prepareData({ source: join(folder, "a.jsonl"), out, valFraction: 0 });
  expect(await allOf(out)).toEqual([0, 1, 1, 0]);
  expect((await stat(join(out, "val.bin"))).size).toBe(0);
});

test("a fault in one of several threads ends all with its sentence", async () => {
  const source = await manyFiles(6);
  await writeFile(join(source, "03.txt"), Buffer.from([65, 0xff, 66]));
  const out = join(folder, "out");
  const failed = prepareData({ source, out, tokenizer, threads: 3, partBytes: 1000 });
  await expect(failed).rejects.toThrow(/03.txt: not UTF-8 text/);
});
