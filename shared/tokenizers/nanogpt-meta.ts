// meta.pkl, which nanoGPT's data/shakespeare_char/prepare.py writes beside train.bin: {"vocab_size": V, "itos": {id:
// character}, "stoi": {character: id}}. https://github.com/karpathy/nanoGPT
import { CharTokenizer } from "./char.ts";
import { readPickle } from "./pickle.ts";
import { NoTokenizerError } from "./tokenizer.ts";

export const metaFile = "meta.pkl";

/**
 * @throws NoTokenizerError where it has no characters: nanoGPT itself takes the "vocab_size" alone; ConfigError where it
 * cannot be read
 */
export function parseMeta(bytes: Uint8Array, path: string): CharTokenizer {
  const meta = readPickle(bytes, path);
  const itos = meta instanceof Map ? meta.get("itos") : undefined;
  if (!(itos instanceof Map))
    throw new NoTokenizerError(`${path}: has no "itos", a dictionary of characters by their ids, as nanoGPT writes it`);
  const tokens: string[] = [];
  for (let id = 0; id < itos.size; id++) {
    const token = itos.get(id);
    if (typeof token !== "string" || [...token].length !== 1)
      throw new NoTokenizerError(
        `${path}: id ${id} of its ${itos.size} is ${JSON.stringify(token)?.slice(0, 60) ?? "absent"}, expected one character`,
      );
    tokens.push(token);
  }
  if (tokens.length === 0) throw new NoTokenizerError(`${path}: its "itos" is empty`);
  return new CharTokenizer(tokens);
}
