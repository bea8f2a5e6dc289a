// Hugging Face's BertNormalizer with all that it does, character by character, and its BertPreTokenizer.
import { bertDropped, bertKept, bertSigns, isSpace } from "./unicode.ts";

/** Cleaned characters by code point. */
const cleaned = new Map<number, string>();

/** A text as BertNormalizer leaves it. */
export function clean(text: string): string {
  let clean = "";
  for (let i = 0; i < text.length; i++) {
    const code = text.codePointAt(i)!;
    if (code > 0xffff) i++;
    let character = cleaned.get(code);
    if (character === undefined) {
      character = cleanCharacter(code);
      cleaned.set(code, character);
    }
    clean += character;
  }
  return clean;
}

function cleanCharacter(code: number): string {
  const character = String.fromCodePoint(code);
  if (isSpace(code) && (code > 13 || code === 9 || code === 10 || code === 13) && code !== 0x85) return " ";
  if (bertDropped.has(code)) return "";
  if (bertKept.has(code)) return character;
  const parts = [...character.normalize("NFD")].filter((part) => !bertDropped.has(part.codePointAt(0)!));
  const lower = parts.map((part) => part.toLowerCase()).join("");
  return isIdeograph(code) ? ` ${lower} ` : lower;
}

/** Hugging Face's ranges; extension E begins at U+2B920 there. */
function isIdeograph(code: number): boolean {
  return (
    (code >= 0x4e00 && code <= 0x9fff) ||
    (code >= 0x3400 && code <= 0x4dbf) ||
    (code >= 0x20000 && code <= 0x2a6df) ||
    (code >= 0x2a700 && code <= 0x2b73f) ||
    (code >= 0x2b740 && code <= 0x2b81f) ||
    (code >= 0x2b920 && code <= 0x2ceaf) ||
    (code >= 0xf900 && code <= 0xfaff) ||
    (code >= 0x2f800 && code <= 0x2fa1f)
  );
}

/** Words and single signs of a cleaned text. */
export function eachWord(text: string, visit: (word: string) => void): void {
  let start = 0;
  const end = (at: number): void => {
    if (start < at) visit(text.slice(start, at));
  };
  for (let i = 0; i < text.length; ) {
    const code = text.codePointAt(i)!;
    const next = i + (code > 0xffff ? 2 : 1);
    const sign = bertSigns.has(code);
    if (sign || isSpace(code)) {
      end(i);
      if (sign) visit(text.slice(i, next));
      start = next;
    }
    i = next;
  }
  end(text.length);
}
