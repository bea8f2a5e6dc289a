import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";
import { CharTokenizer } from "../../../shared/tokenizers/char.ts";
import { openTokenizer } from "../../../shared/tokenizers/open.ts";
import { StreamEncoder } from "../../../shared/tokenizers/tokenizer.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "weft-char-"));
});
afterEach(() => rm(directory, { recursive: true }));

const anyText = fc.string({ unit: "binary", minLength: 1, maxLength: 200 });

test("the vocabulary is sorted by code point, also beyond the first plane", () => {
  const tokenizer = CharTokenizer.of("b\u{1F600}a\uFF5E\n");
  expect(tokenizer.vocabSize).toBe(5);
  expect(tokenizer.decode([0, 1, 2, 3, 4])).toBe("\nab\uFF5E\u{1F600}");
});

test("any text comes back from its ids, whole and as a stream", () => {
  fc.assert(
    fc.property(anyText, fc.array(fc.nat(200)), (text, cuts) => {
      const tokenizer = CharTokenizer.of(text);
      const ids = tokenizer.encode(text);
      expect(tokenizer.decode(ids)).toBe(text);

      const encoder = new StreamEncoder(tokenizer);
      const places = [0, ...cuts.filter((cut) => cut <= text.length).sort((a, b) => a - b), text.length];
      const streamed = places.slice(1).flatMap((place, i) => [...encoder.push(text.slice(places[i], place))]);
      expect([...streamed, ...encoder.end()]).toEqual([...ids]);

      const decoder = tokenizer.decoder();
      expect([...ids].map((id) => decoder.push(id)).join("") + decoder.end()).toBe(text);
    }),
  );
});

test("its file brings back the same tokenizer", async () => {
  await fc.assert(
    fc.asyncProperty(anyText, async (text) => {
      const tokenizer = CharTokenizer.of(text);
      for (const [name, content] of tokenizer.toFiles()) await writeFile(join(directory, name), content);
      const opened = await openTokenizer(directory);
      expect([opened.name, opened.vocabSize]).toEqual(["char", tokenizer.vocabSize]);
      expect(opened.encode(text)).toEqual(tokenizer.encode(text));
    }),
    { numRuns: 20 },
  );
});

test("an unknown character is named with its position, in a stream too", () => {
  const tokenizer = CharTokenizer.of("abc");
  const message = 'character "é" (U+00E9) at position 4 is not in the vocabulary of 3 characters';
  expect(() => tokenizer.encode("abcaé")).toThrow(message);
  const encoder = new StreamEncoder(tokenizer);
  encoder.push("abc");
  expect(() => encoder.push("aé")).toThrow(message);
  expect(() => tokenizer.decode([3])).toThrow("id 3 is outside its vocabulary of 3");
});

test.each([
  ["no tokenizer at all", undefined, /holds no tokenizer; looked for weft-tokenizer.json/],
  ["not JSON", "{", /weft-tokenizer.json: not JSON/],
  ["a foreign kind", '{"kind":"x","version":1,"tokens":["a"]}', /weft-tokenizer.json: .*kind/s],
  ["a character twice", '{"kind":"char","version":1,"tokens":["a","a"]}', /twice/],
  ["two characters in one token", '{"kind":"char","version":1,"tokens":["ab"]}', /expected one character/],
])("a directory with %s is refused", async (_, content, message) => {
  if (content !== undefined) await writeFile(join(directory, "weft-tokenizer.json"), content);
  await expect(openTokenizer(directory)).rejects.toThrow(message);
});

test("characters that the vocabulary lacks are left out where that is asked for, and counted", () => {
  const tokenizer = CharTokenizer.of("ab").skippingUnknown();
  expect([...tokenizer.encode("a\u{1F600}b\u00e9a")]).toEqual([0, 1, 0]);
  expect(tokenizer.skipped).toBe(2);
});

test("a vocabulary grows behind what it has: no id changes its meaning", () => {
  const extended = CharTokenizer.of("bd").extendedBy([..."\u{1F600}adc"].map((c) => c.codePointAt(0)!));
  expect(extended.decode([0, 1, 2, 3, 4])).toBe("bdac\u{1F600}");
});
