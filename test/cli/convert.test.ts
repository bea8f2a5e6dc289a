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

const config = async (folder: string) => JSON.parse(await readFile(join(directory, folder, "config.json"), "utf8"));

test("what begins and ends a text survives: the source's ids, else its tokenizer's", async () => {
  await convertModel(await load(release), join(directory, "once"));
  expect(await config("once")).toMatchObject({ bos_token_id: null, eos_token_id: null });
  const changed = { ...(await config("once")), bos_token_id: 3, eos_token_id: [4, 5], pad_token_id: 6 };
  await writeFile(join(directory, "once", "config.json"), JSON.stringify(changed));
  await convertModel(await load(join(directory, "once")), join(directory, "twice"));
  expect(await config("twice")).toMatchObject({ bos_token_id: 3, eos_token_id: [4, 5], pad_token_id: 6 });

  await writeFile(join(directory, "once", "config.json"), JSON.stringify({ ...changed, eos_token_id: null }));
  await writeFile(join(directory, "once", "vocab.json"), '{"a": 0, "<|endoftext|>": 1}');
  await writeFile(join(directory, "once", "merges.txt"), "");
  await convertModel(await load(join(directory, "once")), join(directory, "third"));
  expect(await config("third")).toMatchObject({ bos_token_id: 3, eos_token_id: 1, pad_token_id: 6 });
});

test("a list of characters goes along as a tokenizer.json, and merges as text, which every transformers reads", async () => {
  const source = join(directory, "source");
  await convertModel(await load(release), source);
  await writeFile(join(source, "weft-tokenizer.json"), '{"kind": "char", "version": 1, "tokens": ["a", "\\n"]}');
  const names = ["weft-tokenizer.json", "tokenizer.json", "tokenizer_config.json"];
  expect(await convertModel(await load(source), join(directory, "char"))).toEqual(names);
  const char = JSON.parse(await readFile(join(directory, "char", "tokenizer.json"), "utf8"));
  expect(char.model).toMatchObject({ type: "WordLevel", vocab: { a: 0, "\n": 1 } });

  await rm(join(source, "weft-tokenizer.json"));
  const bpe = { ...char, model: { type: "BPE", vocab: { a: 0, b: 1, ab: 2 }, merges: [["a", "b"]] } };
  await writeFile(join(source, "tokenizer.json"), JSON.stringify(bpe));
  await convertModel(await load(source), join(directory, "bpe"));
  const written = JSON.parse(await readFile(join(directory, "bpe", "tokenizer.json"), "utf8"));
  expect(written).toEqual({ ...bpe, model: { ...bpe.model, merges: ["a b"] } });
});
