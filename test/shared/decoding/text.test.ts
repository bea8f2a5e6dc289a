import { expect, test } from "vitest";
import { continueText, StoppingText, stopsAt } from "../../../shared/decoding/text.ts";
import { CharTokenizer } from "../../../shared/tokenizers/char.ts";
import { WordTokenizer } from "../../../shared/tokenizers/word.ts";
import { ToyModel } from "../../toy.ts";

const tokenizer = new CharTokenizer([..."abcdef."]);
const options = {
  tokens: 40,
  temperature: 1.2,
  topK: 0,
  topP: 1,
  repetitionPenalty: 1,
  samples: 3,
  seed: 3,
};

/** Pieces as they come, the rest at the end. */
function pieces(text: string, stops: string[]): string[] {
  const stopping = new StoppingText(tokenizer.decoder(), stops);
  return [...[...tokenizer.encode(text)].map((id) => stopping.push(id)), stopping.end()];
}

test("without stop strings every token's text comes at once", () => {
  expect(pieces("abc", [])).toEqual(["a", "b", "c", ""]);
});

test("what may begin a stop string is held back until it is certain", () => {
  expect(pieces("aabacd", ["abc", "f"])).toEqual(["", "a", "", "ab", "", "", "acd"].map(() => expect.any(String)));
  expect(pieces("aabacd", ["abc", "f"]).join("")).toBe("aabacd");
  expect(pieces("aab", ["abc"])).toEqual(["", "a", "", "ab"]);
});

test("a text ends before the first stop string, whichever that is", () => {
  expect(pieces("dabcabc", ["abc", "ca"]).join("")).toBe("d");
  expect(pieces("dafbc", ["abc", "f"]).join("")).toBe("da");
});

test("decoding ends where the text does", async () => {
  const texts = async (stop: string[]): Promise<string[]> => {
    const all = ["", "", ""];
    const engine = new ToyModel(16, tokenizer.vocabSize);
    for await (const { sample, text } of continueText(engine, tokenizer, "ab", { ...options, stop }))
      all[sample] += text;
    return all;
  };
  const whole = await texts([]);
  for (const text of whole) expect(text).toHaveLength(40);
  const stop = whole[0]!.slice(7, 10);
  const cut = await texts([stop]);
  for (const [i, text] of cut.entries()) expect(text).toBe(whole[i]!.split(stop)[0]);
});

test("words are divided from the prompt as from each other", async () => {
  const words = new WordTokenizer(["not", "all", "heroes", "wear", "capes"]);
  const engine = new ToyModel(16, words.vocabSize);
  let text = "not all";
  for await (const piece of continueText(engine, words, text, { ...options, samples: 1, stop: [] })) text += piece.text;
  expect(words.encode(text)).toHaveLength(42);
});

test("a stop string is seen however many tokens it takes", () => {
  const finished = stopsAt(tokenizer, ["abcabc"]);
  const ids = [...tokenizer.encode("ffffffffffffffffffffffffffffffffffabcabc")];
  expect(finished(ids)).toBe(true);
  expect(finished(ids.slice(0, -1))).toBe(false);
  expect(stopsAt(tokenizer, [])(ids)).toBe(false);
});
