// gpt2, bpe, gpt1 and word against Hugging Face's tokenizers (tokenizers.golden.json), gpt-tokenizer and themselves.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import * as gptTokenizer from "gpt-tokenizer/encoding/r50k_base";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { CharTokenizer } from "../../../shared/tokenizers/char.ts";
import { normalize } from "../../../shared/tokenizers/gpt1.ts";
import { gpt2Tokenizer } from "../../../shared/tokenizers/gpt2.ts";
import { openTokenizer, skippingUnknown, tokenizerNamed } from "../../../shared/tokenizers/open.ts";
import { StreamEncoder, type Tokenizer } from "../../../shared/tokenizers/tokenizer.ts";
import { BpeTrainer } from "../../../shared/tokenizers/train-bpe.ts";
import { digits, letters } from "../../../shared/tokenizers/unicode.ts";
import { WordTokenizer } from "../../../shared/tokenizers/word.ts";
import golden from "./tokenizers.golden.json" with { type: "json" };

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "weft-tokenizer-"));
});
afterEach(() => rm(directory, { recursive: true }));

async function save(files: Iterable<readonly [name: string, content: string]>): Promise<string> {
  for (const [name, content] of files) await writeFile(join(directory, name), content);
  return directory;
}

const gpt2 = gpt2Tokenizer();
const trained = (() => {
  const trainer = new BpeTrainer();
  trainer.push(golden.text);
  return trainer.train(331);
})();
const gpt1Files = [
  ["vocab.json", golden.gpt1.vocab],
  ["merges.txt", golden.gpt1.merges],
] as const;

/** Well-formed text of all planes, rich in what splits words. */
const anyText = fc
  .array(
    fc.oneof(
      fc.string({ unit: "binary" }),
      fc.constantFrom(" ", "  ", "\n", "\t\n ", "'ll", "'s", "the", " fox", "12", "\u0085", "\uFEFF", "<|endoftext|>"),
    ),
  )
  .map((parts) => parts.join(""));

function streamed(tokenizer: Tokenizer, text: string, step: number): number[] {
  const encoder = new StreamEncoder(tokenizer);
  const ids: number[] = [];
  for (let i = 0; i < text.length; i += step) ids.push(...encoder.push(text.slice(i, i + step)));
  return [...ids, ...encoder.end()];
}

describe("byte-level BPE", () => {
  test.each(golden.gpt2)("gpt2 encodes $text as Hugging Face does", ({ text, ids }) => {
    expect([...gpt2.encode(text)]).toEqual(ids);
    expect(gpt2.decode(ids)).toBe(text);
  });

  test("a text without a place to cut it is looked through in linear time", () => {
    let looked = 0;
    const tokenizer = {
      name: "one",
      cut: (text: string) => {
        looked += text.length;
        return 0;
      },
      encode: (text: string) => Int32Array.of(text.length),
    } as unknown as Tokenizer;
    const encoder = new StreamEncoder(tokenizer);
    for (let i = 0; i < 1000; i++) expect(encoder.push("x".repeat(100))).toHaveLength(0);
    expect(encoder.end()).toEqual(Int32Array.of(100_000));
    expect(looked).toBeLessThan(4 * 100_000);
  });

  test("gpt2 agrees with gpt-tokenizer on any text where both mean the same white space", () => {
    fc.assert(
      fc.property(anyText, (any) => {
        // gpt-tokenizer's letters and digits are those of Node's Unicode, which may be newer.
        const newer = (c: string) => !letters.has(c.codePointAt(0)!) && !digits.has(c.codePointAt(0)!);
        const text = any
          .replace(/[\u0085\uFEFF]|<\|endoftext\|>/g, "")
          .replace(/[\p{L}\p{N}]/gu, (c) => (newer(c) ? "" : c));
        expect([...gpt2.encode(text)]).toEqual(gptTokenizer.encode(text));
      }),
    );
  });

  test("training finds the merges that Hugging Face's trainer finds", () => {
    expect(trained.vocabSize).toBe(331);
    expect(trained.vocabulary.merges.map((pair) => pair.join(" "))).toEqual(golden.bpeMerges);
    expect([...trained.encode("<|endoftext|>")]).toEqual([330]);
  });

  test("text trained in pieces gives the same merges", () => {
    const trainer = new BpeTrainer();
    for (let i = 0; i < golden.text.length; i += 7) trainer.push(golden.text.slice(i, i + 7));
    expect(trainer.train(331).vocabulary).toEqual(trained.vocabulary);
  });

  test.each([
    ["gpt2", gpt2],
    ["bpe", trained],
  ])("%s brings any text back, whole and as streams", (_, tokenizer) => {
    fc.assert(
      fc.property(anyText, fc.integer({ min: 1, max: 9 }), (text, step) => {
        const ids = tokenizer.encode(text);
        expect(tokenizer.decode(ids)).toBe(text);
        expect(streamed(tokenizer, text, step)).toEqual([...ids]);
        const decoder = tokenizer.decoder();
        expect([...ids].map((id) => decoder.push(id)).join("") + decoder.end()).toBe(text);
      }),
    );
  });

  test("a character whose bytes are split over tokens appears once it is whole", () => {
    const decoder = gpt2.decoder();
    const ids = [...gpt2.encode("👩")];
    expect(ids.length).toBeGreaterThan(1);
    expect(ids.map((id) => decoder.push(id))).toEqual([...ids.slice(1).map(() => ""), "👩"]);
    decoder.push(ids[0]!);
    expect(decoder.end()).toBe("\uFFFD");
  });

  test("six million letters without a space are encoded as any others", () => {
    const encoder = new StreamEncoder(gpt2);
    const ids: number[] = [];
    for (let i = 0; i < 6; i++) for (const id of encoder.push("a".repeat(1_000_000))) ids.push(id);
    for (const id of encoder.end()) ids.push(id);
    expect([ids.length, new Set(ids)]).toEqual([1_500_000, new Set(gptTokenizer.encode("aaaa"))]);
  });

  test("one word of a million letters takes time like n log n", () => {
    const text = "ab".repeat(500_000);
    expect(trained.decode(trained.encode(text))).toBe(text);
  });

  test.each([
    ["gpt2", gpt2],
    ["bpe", trained],
  ] as const)("the files of %s bring it back", async (name, tokenizer) => {
    const opened = await openTokenizer(await save(tokenizer.toFiles()));
    expect([opened.name, opened.vocabSize, opened.endOfText]).toEqual([name, tokenizer.vocabSize, tokenizer.endOfText]);
    for (const { text } of golden.gpt2) expect(opened.encode(text)).toEqual(tokenizer.encode(text));
  });

  test("OpenAI's encoder.json and vocab.bpe open too", async () => {
    const { tokens, merges } = gpt2.vocabulary;
    const vocab = JSON.stringify(Object.fromEntries(tokens.map((token, id) => [token, id])));
    const lines = merges.map((pair) => pair.join(" ")).join("\n");
    const opened = await openTokenizer(
      await save([
        ["encoder.json", vocab],
        ["vocab.bpe", `#version: 0.2\n${lines}\n`],
      ]),
    );
    expect([opened.name, opened.endOfText]).toEqual(["gpt2", 50_256]);
    for (const { text, ids } of golden.gpt2) expect([...opened.encode(text)]).toEqual(ids);
  });

  test.each([
    ["too small a vocabulary", "abc", 256, /--vocab-size must be from 257/],
    ["too little text", "ab ab", 1024, /pairs for 259 tokens only, --vocab-size is 1024/],
  ])("training refuses %s", (_, text, size, message) => {
    const trainer = new BpeTrainer();
    trainer.push(text);
    expect(() => trainer.train(size)).toThrow(message);
  });

  test("a lone surrogate is refused with its position", () => {
    expect(() => gpt2.encode("ab\ud83d!")).toThrow("half a character (a lone surrogate) at position 2");
  });
});

describe("tokenizer.json of others", () => {
  const base = () => JSON.parse(trained.toFiles().get("tokenizer.json")!);
  test.each<[string, (file: ReturnType<typeof base>) => void, RegExp]>([
    ["another model", (f) => (f.model.type = "WordPiece"), /a WordPiece model; Weft reads BPE and WordLevel/],
    ["half a character, wherever", (f) => (f.note = "a\ud800"), /\\ud800 is half a character/],
    ["a normalizer", (f) => (f.normalizer = { type: "NFC" }), /normalizer NFC/],
    ["another pre_tokenizer", (f) => (f.pre_tokenizer = { type: "Metaspace" }), /pre_tokenizer Metaspace/],
    ["a prefix space that the other file denies", (f) => (f.pre_tokenizer.add_prefix_space = true), /add_prefix_space/],
    ["a merge without its token", (f) => f.model.merges.push(["Ġ", "qqq"]), /merge \d+ needs "qqq"/],
    ["a broken merge", (f) => (f.model.merges = ["abc"]), /merge 0 is "abc", expected two tokens/],
    ["an id twice", (f) => (f.model.vocab.z = 5), /id 5 belongs to/],
    ["no vocabulary", (f) => delete f.model.vocab, /vocab/],
  ])("%s is refused by name", async (_, change, message) => {
    const file = base();
    change(file);
    await save([
      ["tokenizer.json", JSON.stringify(file)],
      ["tokenizer_config.json", JSON.stringify({ tokenizer_class: "GPT2Tokenizer" })],
    ]);
    await expect(openTokenizer(directory)).rejects.toThrow(message);
  });

  test("merges are written as text, which transformers 4.38 reads too, and read as pairs", async () => {
    const file = base();
    expect(file.model.merges.every((merge: unknown) => typeof merge === "string")).toBe(true);
    file.model.merges = file.model.merges.map((pair: string) => pair.split(" "));
    const opened = await openTokenizer(await save([["tokenizer.json", JSON.stringify(file)]]));
    expect(opened.encode(golden.text)).toEqual(trained.encode(golden.text));
  });
});

describe("the WordLevel tokenizer.json of a list of tokens", () => {
  const lists = [
    [CharTokenizer.of("fox, the 🦊\n"), "the fox\n\n🦊"],
    [new WordTokenizer(["not", "all", "7", "__proto__", "🦊"]), "all 7 not __proto__ 🦊"],
  ] as const;

  test.each(lists)("$name comes back through it, as the list that it is", async (list, text) => {
    const files = new Map(list.toFiles());
    files.delete("weft-tokenizer.json");
    const opened = await openTokenizer(await save(files));
    expect(opened.constructor).toBe(list.constructor);
    expect([...opened.encode(text)]).toEqual([...list.encode(text)]);
    expect(opened.toFiles()).toEqual(list.toFiles());
  });

  test("with another token it is one of others, and of no class with tokens of its own", async () => {
    const [list] = lists[0];
    const files = new Map(list.toFiles());
    files.delete("weft-tokenizer.json");
    const file = JSON.parse(files.get("tokenizer.json")!);
    const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
    file.added_tokens = [{ id: list.vocabSize, content: "<u>", ...flags }];
    const opened = await openTokenizer(await save([...files, ["tokenizer.json", JSON.stringify(file)]]));
    expect([opened.name, [...opened.encode("the<u>")]]).toEqual(["wordlevel", [...list.encode("the"), list.vocabSize]]);
    expect(() => opened.encode("the !")).toThrow('its vocabulary lacks "!" and has no token for unknown ones');
    expect(() => skippingUnknown(opened)).toThrow("--unknown skip leaves out characters or words");
    await save([["tokenizer_config.json", '{"tokenizer_class": "GPT2TokenizerFast"}']]);
    await expect(openTokenizer(directory)).rejects.toThrow(
      "tokenizer_class GPT2TokenizerFast; tokenizer.json has a WordLevel model",
    );
  });
});

describe("gpt1", () => {
  test.each(golden.gpt1.cases)("encodes $text as transformers does", async ({ text, ids }) => {
    const tokenizer = await openTokenizer(await save(gpt1Files));
    expect(tokenizer.name).toBe("gpt1");
    expect([...tokenizer.encode(text)]).toEqual(ids);
    expect(tokenizer.decode(ids)).toBe(normalize(text));
    expect(streamed(tokenizer, text, 3)).toEqual(ids);
  });

  test("the normalized form of any text is its own", () => {
    fc.assert(
      fc.property(anyText, (text) => {
        expect(normalize(normalize(text))).toBe(normalize(text));
      }),
    );
  });

  test("brings back the normalized form of any text that its characters spell", async () => {
    const tokenizer = await openTokenizer(await save(gpt1Files));
    const letters = fc.constantFrom(..."abcdefgHIJKlmnop   \n\t.,!'12é");
    fc.assert(
      fc.property(fc.string({ unit: letters }), (text) => {
        const form = normalize(text);
        expect(normalize(form)).toBe(form);
        const ids = tokenizer.encode(text);
        fc.pre(!ids.includes(0));
        expect(tokenizer.decode(ids)).toBe(form);
      }),
    );
  });

  test("its files bring it back", async () => {
    const tokenizer = await openTokenizer(await save(gpt1Files));
    const again = await openTokenizer(await save(tokenizer.toFiles()));
    for (const { text, ids } of golden.gpt1.cases) expect([...again.encode(text)]).toEqual(ids);
  });

  test("a character that it lacks is <unk>, as in transformers, or named where there is none", async () => {
    const tokenizer = await openTokenizer(await save(gpt1Files));
    expect(tokenizer.decode(tokenizer.encode("the 日 fox"))).toBe("the <unk>fox");
    const { "<unk>": _, ...vocab } = JSON.parse(golden.gpt1.vocab);
    const without = await openTokenizer(await save([["vocab.json", JSON.stringify(vocab)]]));
    expect(() => without.encode("the 日 fox")).toThrow('its vocabulary lacks a character of "日"');
  });
});

describe("word", () => {
  const words = "all not heroes the wear . capes".split(" ");
  const tokenizer = new WordTokenizer(words);

  test("brings back any sequence of its words, whole and as a stream", async () => {
    const opened = await openTokenizer(await save(tokenizer.toFiles()));
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...words), { minLength: 1 }), (sequence) => {
        const text = sequence.join(" ");
        const ids = opened.encode(text);
        expect(opened.decode(ids)).toBe(text);
        expect(streamed(opened, text, 4)).toEqual([...ids]);
        const decoder = opened.decoder();
        expect([...ids].map((id) => decoder.push(id)).join("")).toBe(text);
      }),
    );
  });

  test("a piece that goes on begins with a space or with a word", () => {
    const piece = { first: false, last: false };
    expect([...tokenizer.encode(" all the", 0, piece)]).toEqual([0, 3]);
    expect([...tokenizer.encode("all the", 0, piece)]).toEqual([0, 3]);
    expect(() => tokenizer.encode("all teh", 5, piece)).toThrow('word "teh" at position 9 (word 2)');
  });

  test("its words come from a file with one a line", async () => {
    await save([["words.txt", "to\nbe\r\nor\n"]]);
    const named = await tokenizerNamed(`word:${join(directory, "words.txt")}`);
    expect([...named!.encode("or to be")]).toEqual([2, 0, 1]);
    await expect(tokenizerNamed("word:none.txt")).rejects.toThrow(/there is no file none.txt/);
  });

  test.each([
    ["a word twice", ["a", "b", "a"], /"a" is token 0 and token 2/],
    ["a word with a space", ["a b"], /expected a word without spaces/],
  ])("%s is refused", (_, tokens, message) => {
    expect(() => new WordTokenizer(tokens)).toThrow(message);
  });
});
