// The byte level of GPT-2's tokenizer (Radford et al. 2019): how text falls into words, and how the bytes of words are
// written as printable characters in vocabulary files ("Ġ" is the space).
import { digits, isSpace, letters } from "./unicode.ts";

/** Other signs are 0. */
const [letter, digit, space] = [1, 2, 3];

/** Class of every code point. A scanner, because a regular expression overflows its stack on a word of megabytes. */
const classes = new Uint8Array(0x110000);
letters.forEach((start, end) => void classes.fill(letter, start, end));
digits.forEach((start, end) => void classes.fill(digit, start, end));
for (let code = 0; code <= 0x3000; code++) if (isSpace(code)) classes[code] = space;

const apostrophe = 0x27;
const contractions = ["s", "t", "re", "ve", "m", "ll", "d"];

/**
 * End of the word of GPT-2 that begins at `at`: a contraction, letters, digits or other signs, each with the space before
 * it, or white space. It is the pattern
 * 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 */
export function wordEnd(text: string, at: number): number {
  if (text.charCodeAt(at) === apostrophe)
    for (const ending of contractions) if (text.startsWith(ending, at + 1)) return at + 1 + ending.length;
  let start = at;
  if (text.charCodeAt(at) === 0x20 && at + 1 < text.length && classes[text.codePointAt(at + 1)!] !== space) start++;
  const kind = classes[text.codePointAt(start)!];
  let end = start;
  while (end < text.length) {
    const code = text.codePointAt(end)!;
    if (classes[code] !== kind) break;
    end += code > 0xffff ? 2 : 1;
  }
  // The last of several spaces belongs to the word that follows, or stands alone.
  if (kind === space && end < text.length && end - at > 1) return end - 1;
  return end;
}

/**
 * The last place in (from, to] where a text may be cut so that both parts fall into the words of the whole: where white
 * space begins, or, unless `spaceOnly`, where another kind of character does. 0: there is none.
 */
export function lastWordBoundary(text: string, from = 0, to = text.length - 1, spaceOnly = false): number {
  for (let at = Math.min(to, text.length - 1); at > from && at > 0; at--) {
    const next = text.codePointAt(at)!;
    const unit = text.charCodeAt(at - 1);
    const low = unit >= 0xdc00 && unit < 0xe000;
    const previous = classes[low && at > 1 ? text.codePointAt(at - 2)! : unit];
    // Inside a surrogate pair.
    if (next >= 0xdc00 && next < 0xe000) continue;
    if (previous === space || previous === classes[next]) continue;
    if (classes[next] === space || (!spaceOnly && unit !== apostrophe)) return at;
  }
  return 0;
}

/** A string of its own: what is cut out of a text keeps all of the text in memory. */
export function copyOf(word: string): string {
  return Buffer.from(word, "utf16le").toString("utf16le");
}

/** The character for each byte: itself where it is printable, else the next one from U+0100 on. */
export const letterOfByte: readonly string[] = (() => {
  const spelled: string[] = [];
  let beyond = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    spelled.push(String.fromCharCode(printable ? byte : beyond++));
  }
  return spelled;
})();

const byteOfLetter = new Map(letterOfByte.map((spelled, byte) => [spelled, byte]));

/** "Ġall" for the bytes of " all". */
export function spellBytes(bytes: Uint8Array): string {
  let spelled = "";
  for (const byte of bytes) spelled += letterOfByte[byte];
  return spelled;
}

/** The bytes of "Ġall"; undefined where a character stands for no byte. */
export function bytesOf(spelled: string): Uint8Array | undefined {
  const bytes = new Uint8Array(spelled.length);
  for (let i = 0; i < spelled.length; i++) {
    const byte = byteOfLetter.get(spelled[i]!);
    if (byte === undefined) return undefined;
    bytes[i] = byte;
  }
  return bytes;
}
