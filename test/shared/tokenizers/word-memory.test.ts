// A word comes back with its own tokens or not at all: however many there are, long ones, and those that collide.
import { expect, test } from "vitest";
import { IdBuffer } from "../../../shared/tokenizers/id-buffer.ts";
import { WordMemory } from "../../../shared/tokenizers/word-memory.ts";

const recall = (memory: WordMemory, word: string): number[] | undefined => {
  const out = new IdBuffer();
  // Found where it stands in a text.
  return memory.recall(`ab${word}yz`, 2, 2 + word.length, out) ? [...out.ids] : undefined;
};
const keep = (memory: WordMemory, word: string, tokens: readonly number[]): void =>
  memory.keep(`x${word}`, 1, 1 + word.length, Int32Array.from(tokens));

test("a word has the tokens it was kept with, in another text too; a part of it or more of it is another word", () => {
  const memory = new WordMemory();
  keep(memory, "Straße", [7, 50_256, 9]);
  expect(recall(memory, "Straße")).toEqual([7, 50_256, 9]);
  expect(recall(memory, "Straß")).toBeUndefined();
  expect(recall(memory, "Straßen")).toBeUndefined();
  expect(recall(memory, "")).toBeUndefined();
});

test("of 300,000 words, more than it holds, none ever has another's tokens, and the last ones are there", () => {
  const memory = new WordMemory();
  const word = (i: number) => ` word${i.toString(36)}`;
  for (let i = 0; i < 300_000; i++) {
    const known = recall(memory, word(i >> 1));
    if (known && known[0] !== i >> 1) expect(known, word(i >> 1)).toEqual([i >> 1, -(i >> 1)]);
    keep(memory, word(i), [i, -i]);
  }
  let found = 0;
  for (let i = 299_000; i < 300_000; i++) if (recall(memory, word(i))?.[1] === -i) found++;
  expect(found).toBeGreaterThan(990);
});

test("words made to collide are forgotten rather than looked for all along", () => {
  // FNV-1a of two units: ((start ^ a) * prime ^ b) * prime. Two values of a whose products differ in 16 bits have a b each
  // that makes them one, and words of five such pairs are 32 that collide.
  const start = 0x811c9dc5;
  const pairs: [string, string][] = [];
  for (let state = start; pairs.length < 5; ) {
    const product = (a: number) => Math.imul(state ^ a, 0x01000193);
    const before = new Map<number, number>();
    for (let a = 0; ; a++) {
      const high = product(a) >>> 16;
      const other = before.get(high);
      before.set(high, a);
      if (other === undefined) continue;
      pairs.push([String.fromCharCode(other, 0), String.fromCharCode(a, (product(a) ^ product(other)) & 0xffff)]);
      state = Math.imul(product(other), 0x01000193);
      break;
    }
  }
  const words = Array.from({ length: 32 }, (_, i) => pairs.map((pair, bit) => pair[(i >> bit) & 1]).join(""));
  const memory = new WordMemory();
  for (const [i, word] of words.entries()) keep(memory, word, [i]);
  const found = words.map((word) => recall(memory, word)?.[0]);
  expect(found).toEqual([...Array(16).keys(), ...Array(16).fill(undefined)]);
});
