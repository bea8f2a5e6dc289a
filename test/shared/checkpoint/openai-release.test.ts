import { cp, mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { crc32c } from "../../../shared/checkpoint/crc32c.ts";
import { readRelease } from "../../../shared/checkpoint/openai-release.ts";

// Written by the real TensorFlow 2.15.1: scripts/make-openai-release.py.
const fixture = join(import.meta.dirname, "../../fixtures/openai-release");

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "weft-release-"));
  await cp(fixture, directory, { recursive: true });
});
afterEach(() => rm(directory, { recursive: true }));

const ascii = (text: string): Uint8Array => Buffer.from(text, "ascii");

describe("CRC-32C", () => {
  // RFC 3720, appendix B.4, and the check value of the CRC catalogue.
  const cases: [string, Uint8Array, number][] = [
    ["nothing", new Uint8Array(0), 0],
    ["123456789", ascii("123456789"), 0xe3069283],
    ["32 zeros", new Uint8Array(32), 0x8a9136aa],
    ["32 ones", new Uint8Array(32).fill(255), 0x62a8ab43],
    ["0 to 31", Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
  ];
  for (const [name, bytes, expected] of cases) test(name, () => expect(crc32c(bytes)).toBe(expected));
  test("in two pieces", () => expect(crc32c(ascii("456789"), crc32c(ascii("123")))).toBe(0xe3069283));
});

/** Where each parameter lies in the release. */
const variables: Record<string, string> = {
  "transformer.wte.weight": "model/wte",
  "transformer.wpe.weight": "model/wpe",
  "transformer.h.0.attn.c_attn.weight": "model/h0/attn/c_attn/w",
  "transformer.h.3.attn.c_proj.bias": "model/h3/attn/c_proj/b",
  "transformer.h.9.ln_2.weight": "model/h9/ln_2/g",
  "transformer.h.10.mlp.c_proj.weight": "model/h10/mlp/c_proj/w",
  "transformer.ln_f.weight": "model/ln_f/g",
  "transformer.ln_f.bias": "model/ln_f/b",
};

test("the values that TensorFlow wrote, bit for bit", async () => {
  const { model, layout, weights } = await readRelease(directory);
  expect(model).toMatchObject({ vocabSize: 7, blockSize: 3, nEmbd: 4, nLayer: 11, nHead: 2, activation: "gelu_tanh" });
  for (const [name, variable] of Object.entries(variables)) {
    const { offset, size } = layout.byName.get(name)!;
    const start = crc32(variable) % 1000;
    const expected = Array.from({ length: size }, (_, i) => (start + i) / 1024);
    expect([...weights.subarray(offset, offset + size)], name).toEqual(expected);
  }
});

describe("refused by name", () => {
  const refused = (message: RegExp) => expect(readRelease(directory)).rejects.toThrow(message);
  const data = "model.ckpt.data-00000-of-00001";
  const change = async (name: string, at: number): Promise<void> => {
    const bytes = await readFile(join(directory, name));
    bytes[at < 0 ? bytes.length + at : at]! ^= 4;
    await writeFile(join(directory, name), bytes);
  };
  const hyperparameters = (changes: object): Promise<void> =>
    writeFile(
      join(directory, "hparams.json"),
      JSON.stringify({ n_vocab: 7, n_ctx: 3, n_embd: 4, n_head: 2, n_layer: 11, ...changes }),
    );

  test("the index cut short", async () => {
    await truncate(join(directory, "model.ckpt.index"), 900);
    await refused(/model\.ckpt\.index: not the index of a TensorFlow checkpoint, or cut short: its 900 bytes/);
  });
  test("the index damaged", async () => {
    await change("model.ckpt.index", 100);
    await refused(/model\.ckpt\.index: the block at byte 0 is damaged \(CRC-32C\)/);
  });
  test("the data cut short", async () => {
    await truncate(join(directory, data), 5000);
    await refused(/data-00000-of-00001: cut short: tensor model\/\S+ ends at byte \d+, the file at 5000/);
  });
  test("the data damaged", async () => {
    await change(data, -1);
    await refused(/tensor model\/wte is damaged \(CRC-32C\)/);
  });
  test("the data gone", async () => {
    await rm(join(directory, data));
    await refused(/data-00000-of-00001: cannot be opened \(ENOENT\)/);
  });
  test("a wrong shape, with both shapes", async () => {
    await hyperparameters({ n_vocab: 8 });
    await refused(/variable model\/wte is \[7,4\], hparams\.json asks for \[8,4\]/);
  });
  test("a missing variable", async () => {
    await hyperparameters({ n_layer: 12 });
    await refused(/variable model\/h11\/ln_1\/g is missing; hparams\.json asks for \[4\]/);
  });
  test("a surplus variable", async () => {
    await hyperparameters({ n_layer: 10 });
    await refused(/surplus variable model\/h10\/attn\/c_attn\/b \[12\]/);
  });
  test("sizes that are no model", async () => {
    await hyperparameters({ n_head: 3 });
    await refused(/hparams\.json: .*nEmbd 4 does not divide into nHead 3 heads/);
  });
  test("a checkpoint file that names nothing", async () => {
    await writeFile(join(directory, "checkpoint"), "hello");
    await refused(/checkpoint: names no model_checkpoint_path/);
  });
});
