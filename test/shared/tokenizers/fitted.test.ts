import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { specialToken } from "../../../shared/tokenizers/added.ts";
import { letterOfByte } from "../../../shared/tokenizers/bytes.ts";
import { CharTokenizer } from "../../../shared/tokenizers/char.ts";
import { fitted } from "../../../shared/tokenizers/fitted.ts";
import { openTokenizer, openTokenizerOf } from "../../../shared/tokenizers/open.ts";
import { plainPlan } from "../../../shared/tokenizers/plan.ts";
import { writeTokenizerJson } from "../../../shared/tokenizers/tokenizer-json.ts";

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "weft-fitted-"));
  // Bytes are ids 0 to 255, 256 has no token, [PAD] is 257.
  const tokens = [...letterOfByte, undefined, "[PAD]"];
  const own = new Map(tokens.flatMap((token, id) => (token === undefined ? [] : [[token, id] as const])));
  const vocabulary = { tokens, merges: [], added: [specialToken(257, "[PAD]")] };
  for (const [name, text] of writeTokenizerJson(false, { ...plainPlan([], []), vocabulary, own, roles: {} }))
    await writeFile(join(directory, name), text);
});
afterAll(() => rm(directory, { recursive: true }));

const opened = (vocabSize: number) => openTokenizerOf({ directory, model: { vocabSize } });

test("the tokenizer says which ids have a token, whatever the model's padding", async () => {
  const tokenizer = await opened(300);
  expect([0, 255, 256, 257, 258, 299].map((id) => tokenizer.has(id))).toEqual([true, true, false, true, false, false]);
  expect([...tokenizer.encode("a[PAD]")]).toEqual([97, 257]);
});

test("a token that was added without resizing the model is refused where a text has it, and never drawn", async () => {
  const whole = await openTokenizer(directory);
  const cut = fitted(whole, 256, "m");
  expect(cut.vocabSize).toBe(256);
  expect([255, 257].map((id) => cut.has(id))).toEqual([true, false]);
  expect(cut.decode(cut.encode("né"))).toBe("né");
  expect(() => cut.encode("a[PAD]")).toThrow(/"\[PAD\]", token 257, .* not to the model, whose embedding has 256 rows/);
  expect(cut.toFiles()).toEqual(whole.toFiles());
});

test("a model that lacks more than special tokens has another tokenizer", async () => {
  await expect(opened(255)).rejects.toThrow(/its tokenizer has 258 tokens, its model 255; they do not belong together/);
  expect(() => fitted(CharTokenizer.of("abc"), 2, "m")).toThrow("m: its tokenizer has 3 tokens, its model 2");
});
