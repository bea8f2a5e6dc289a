// The contract of a tokenizer: text to ids and back, in one piece or as a stream, and the files in which it travels
// inside a checkpoint. Implementations live in tokenizers/; this file knows how to find and open each of them.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ConfigError } from "./errors.ts";
import { BpeTokenizer } from "./tokenizers/bpe.ts";
import { CharTokenizer } from "./tokenizers/char.ts";
import { Gpt1Tokenizer } from "./tokenizers/gpt1.ts";
import { gpt2Tokenizer, isGpt2 } from "./tokenizers/gpt2.ts";
import {
  parseTokenizerJson,
  parseVocabularyPair,
  type ReadVocabulary,
  tokenizerJson,
  vocabularyPairs,
} from "./tokenizers/hugging-face.ts";
import { ownFile, parseOwnFile } from "./tokenizers/own-file.ts";
import { WordTokenizer } from "./tokenizers/word.ts";

export interface Tokenizer {
  readonly name: "char" | "word" | "gpt2" | "gpt1" | "bpe";
  /** V: ids are 0 .. vocabSize - 1. */
  readonly vocabSize: number;
  /** Id that ends a document, where the vocabulary has one. */
  readonly endOfText?: number;

  /**
   * Ids of a text.
   * @param at position of the text's first code unit in the whole input, for messages
   * @throws ConfigError naming what the vocabulary lacks and its position
   */
  encode(text: string, at?: number): Int32Array;

  /**
   * Where the beginning of a longer text may be cut off so that head and rest can be encoded apart; 0: not yet.
   * This is what lets files larger than memory be encoded piece by piece.
   */
  cut(text: string): number;

  /** @throws ConfigError on an id outside the vocabulary */
  decode(ids: Iterable<number>): string;

  /** Text of a growing sequence: characters whose bytes are split over tokens appear once they are whole. */
  decoder(): StreamDecoder;

  /** Names and contents of the files that hold this tokenizer in a checkpoint. */
  toFiles(): ReadonlyMap<string, string>;
}

export interface StreamDecoder {
  /** The text that this id completes. */
  push(id: number): string;
  /** What is left, once no more ids come. */
  end(): string;
}

/** Encodes a text that comes in pieces. */
export class StreamEncoder {
  readonly #tokenizer: Tokenizer;
  #held = "";
  #position = 0;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** The ids that are certain so far. */
  push(text: string): Int32Array {
    const whole = this.#held + text;
    const cut = this.#tokenizer.cut(whole);
    this.#held = whole.slice(cut);
    return this.#take(whole.slice(0, cut));
  }

  /** The rest, once no more text comes. */
  end(): Int32Array {
    const rest = this.#held;
    this.#held = "";
    return this.#take(rest);
  }

  #take(text: string): Int32Array {
    if (text === "") return new Int32Array(0);
    const ids = this.#tokenizer.encode(text, this.#position);
    this.#position += text.length;
    return ids;
  }
}

/** The text of a file, or undefined where there is none. */
async function textOf(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new ConfigError(`${path}: cannot be read (${code})`, { cause: error });
  }
}

/** A directory holds none of the files of a tokenizer. */
export class NoTokenizerError extends ConfigError {}

/**
 * The tokenizer whose files lie in a directory: a checkpoint, a prepared data set or a Hugging Face model.
 * @throws NoTokenizerError where there is none, ConfigError where its files are not what they should be
 */
export async function openTokenizer(directory: string): Promise<Tokenizer> {
  const at = (name: string): string => join(directory, name);
  const own = await textOf(at(ownFile));
  if (own !== undefined) {
    const { kind, tokens } = parseOwnFile(own, at(ownFile));
    return kind === "char" ? new CharTokenizer(tokens) : new WordTokenizer(tokens);
  }
  const whole = await textOf(at(tokenizerJson));
  if (whole !== undefined) return tokenizerOf(parseTokenizerJson(whole, at(tokenizerJson)));
  for (const [vocabName, mergesName] of vocabularyPairs) {
    const vocab = await textOf(at(vocabName));
    const merges = await textOf(at(mergesName));
    if (vocab !== undefined && merges !== undefined)
      return tokenizerOf(parseVocabularyPair(vocab, at(vocabName), merges, at(mergesName)));
  }
  const names = [ownFile, tokenizerJson, ...vocabularyPairs.map((pair) => pair.join(" + "))];
  throw new NoTokenizerError(`${directory}: holds no tokenizer; looked for ${names.join(", ")}`);
}

function tokenizerOf({ kind, ...vocabulary }: ReadVocabulary): Tokenizer {
  if (kind === "gpt1") return new Gpt1Tokenizer(vocabulary);
  return new BpeTokenizer(isGpt2(vocabulary) ? "gpt2" : "bpe", vocabulary);
}

/**
 * The tokenizer that a command line names: `gpt2`, `word:FILE` with a word a line, or a directory that holds one.
 * `char` has no vocabulary before it has seen a text: undefined.
 * @throws ConfigError
 */
export async function tokenizerNamed(name: string): Promise<Tokenizer | undefined> {
  if (name === "char") return undefined;
  if (name === "gpt2") return gpt2Tokenizer();
  if (!name.startsWith("word:")) return openTokenizer(name);
  const path = name.slice("word:".length);
  const words = await textOf(path);
  if (words === undefined) throw new ConfigError(`--tokenizer ${name}: there is no file ${path} with a word a line`);
  return new WordTokenizer(words.split(/\r?\n/).filter((word) => word !== ""));
}
