import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { convertModel } from "../../cli/convert.ts";
import { loadModel } from "../../shared/checkpoint/rundir.ts";

const release = join(import.meta.dirname, "../fixtures/openai-release");

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "weft-convert-"));
});
afterEach(() => rm(directory, { recursive: true }));

const load = (path: string) =>
  loadModel(path, (why) => {
    throw new Error(why);
  });
const bits = (x: Float32Array): string => Buffer.from(x.buffer, x.byteOffset, x.byteLength).toString("base64");

test("a GPT-2 release to Hugging Face and on, bit for bit, with its tokenizer under their names", async () => {
  const source = join(directory, "release");
  await cp(release, source, { recursive: true });
  await writeFile(join(source, "encoder.json"), '{"a": 0}');
  await writeFile(join(source, "vocab.bpe"), "#version: 0.2\n");
  const original = await load(source);
  expect(await convertModel(original, join(directory, "once"))).toEqual(["vocab.json", "merges.txt"]);
  const once = await load(join(directory, "once"));
  expect(once.model).toEqual(original.model);
  expect(bits(once.weights)).toBe(bits(original.weights));
  expect(await convertModel(once, join(directory, "twice"))).toEqual(["vocab.json", "merges.txt"]);
  const names = ["config.json", "merges.txt", "model.safetensors", "vocab.json"];
  expect((await readdir(join(directory, "twice"))).sort()).toEqual(names);
  for (const name of names)
    expect(await readFile(join(directory, "twice", name)), name).toEqual(await readFile(join(directory, "once", name)));
});

test("what stands at the target stays", async () => {
  const out = join(directory, "mine");
  await mkdir(out);
  await writeFile(join(out, "novel.txt"), "precious");
  await expect(convertModel(await load(release), out)).rejects.toThrow(/mine: exists and is not empty/);
  expect(await readdir(directory)).toEqual(["mine"]);
  expect(await readdir(out)).toEqual(["novel.txt"]);
  await expect(convertModel(await load(release), join(out, "novel.txt"))).rejects.toThrow(
    /novel\.txt: cannot be written \(ENOTDIR\)/,
  );
});
