// What picoGPT's tutorial shows: tokens as words, tokens as byte pairs, and OpenAI's own GPT-2 124M on a folder that
// WEFT_GPT2_DIR names: the release (hparams.json and its TensorFlow checkpoint) or Hugging Face's.
import { describe, expect, test } from "vitest";
import { loadModel } from "../../shared/checkpoint/rundir.ts";
import { argmax } from "../../shared/decoding/decode.ts";
import { continueText } from "../../shared/decoding/text.ts";
import { gpt2Tokenizer } from "../../shared/tokenizers/gpt2.ts";
import { openTokenizer } from "../../shared/tokenizers/open.ts";
import { WordTokenizer } from "../../shared/tokenizers/word.ts";
import { openEngine } from "../../worker/engine/choose.ts";

describe("a tokenizer of words", () => {
  const tokenizer = new WordTokenizer("all not heroes the wear . capes".split(" "));

  test("not all heroes wear = 1 0 2 4", () => {
    const ids = tokenizer.encode("not all heroes wear");
    expect([...ids]).toEqual([1, 0, 2, 4]);
    expect(tokenizer.decode(ids)).toBe("not all heroes wear");
  });

  test("the highest of the last row is 6, capes", () => {
    const rows = [
      Float32Array.of(0.75, 0.1, 0, 0.15, 0, 0, 0),
      Float32Array.of(0, 0, 0.8, 0.1, 0, 0, 0.1),
      Float32Array.of(0.1, 0, 0, 0, 0.85, 0.05, 0),
      Float32Array.of(0, 0, 0, 0.1, 0, 0.05, 0.85),
    ];
    const next = argmax(rows.at(-1)!);
    expect(next).toBe(6);
    expect(tokenizer.decode([next])).toBe("capes");
  });

  test.each([
    ["not all villains", 'word "villains" at position 8 (word 3) is not in the vocabulary of 7 words'],
    ["Not all heroes", 'word "Not" at position 0 (word 1) is not in the vocabulary of 7 words'],
    ["not all  heroes", "an empty word at position 8 (word 3); expected single spaces, between words only"],
    ["not all ", "an empty word at position 8 (word 3); expected single spaces, between words only"],
    ["", "the text is empty; expected words with single spaces between them"],
  ])("%j is an error that says what and where", (text, message) => {
    expect(() => tokenizer.encode(text)).toThrow(message);
  });
});

describe("GPT-2's byte pairs", () => {
  const tokenizer = gpt2Tokenizer();
  const pieces = (text: string) => [...tokenizer.encode(text)].map((id) => tokenizer.vocabulary.tokens[id]);

  test("Not all heroes wear capes.", () => {
    const ids = [3673, 477, 10281, 5806, 1451, 274, 13];
    expect([...tokenizer.encode("Not all heroes wear capes.")]).toEqual(ids);
    expect(tokenizer.decode(ids)).toBe("Not all heroes wear capes.");
    expect(pieces("Not all heroes wear capes.")).toEqual(["Not", "Ġall", "Ġheroes", "Ġwear", "Ġcap", "es", "."]);
  });

  test("a word that it never saw falls into pieces", () => {
    expect(pieces("zjqfl")).toEqual(["z", "j", "q", "fl"]);
  });

  test("The apple doesn't fall far from the tree", () => {
    const ids = [464, 17180, 1595, 470, 2121, 1290, 422, 262];
    expect([...tokenizer.encode("The apple doesn't fall far from the")]).toEqual(ids);
    expect(tokenizer.vocabulary.tokens[5509]).toBe("Ġtree");
    expect(tokenizer.decode([...ids, 5509])).toBe("The apple doesn't fall far from the tree");
  });

  test("50,257 tokens, the last of which ends a text", () => {
    expect([tokenizer.vocabSize, tokenizer.endOfText]).toEqual([50_257, 50_256]);
  });
});

const directory = process.env.WEFT_GPT2_DIR;

test.skipIf(!directory)(
  "GPT-2 124M continues Alan Turing's sentence (skipped unless WEFT_GPT2_DIR names the real weights)",
  async () => {
    const { model, layout, weights } = await loadModel(directory!, (why) => console.log(why));
    expect(layout.size).toBe(124_439_808);
    const tokenizer = await openTokenizer(directory!);
    const options = { model, maxRows: 1, precision: "float32", threads: 0, device: "cpu" } as const;
    const { engine } = await openEngine("auto", options);
    try {
      await engine.setWeights(weights);
      const prompt = "Alan Turing theorized that computers would one day become";
      const greedy = {
        tokens: 8,
        temperature: 0,
        topK: 0,
        topP: 1,
        repetitionPenalty: 1,
        samples: 1,
        seed: 0,
        stop: [],
      };
      let continuation = "";
      for await (const { text } of continueText(engine, tokenizer, prompt, greedy)) continuation += text;
      expect(continuation).toBe(" the most powerful machines on the planet.");
    } finally {
      await engine.dispose();
    }
  },
);
