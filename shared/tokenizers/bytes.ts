// The byte level of GPT-2's tokenizer (Radford et al. 2019): how text falls into words, and how the bytes of words are
// written as printable characters in vocabulary files ("Ġ" is the space).

/**
 * GPT-2's words: contractions, letters, digits, other signs, each with the space before it, and other white space.
 * White space is Unicode's property, as in Hugging Face's and OpenAI's own; JavaScript's \s differs in U+0085, U+FEFF.
 */
const words =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

export function wordsOf(text: string): string[] {
  return text.match(words) ?? [];
}

/** The last place in a text where white space begins: whatever stands before it falls into the same words alone. */
export function lastWordBoundary(text: string): number {
  let at = text.length - 1;
  const space = (i: number): boolean => /\p{White_Space}/u.test(text[i]!);
  while (at > 0 && !(space(at) && !space(at - 1))) at--;
  return Math.max(at, 0);
}

/** The character for each byte: itself where it is printable, else the next one from U+0100 on. */
export const letterOfByte: readonly string[] = (() => {
  const letters: string[] = [];
  let beyond = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    letters.push(String.fromCharCode(printable ? byte : beyond++));
  }
  return letters;
})();

const byteOfLetter = new Map(letterOfByte.map((letter, byte) => [letter, byte]));

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
