// Random Unicode, rich in what divides and joins words, by a seed.
import { PhiloxStream } from "../../../shared/arithmetic/philox.ts";

const common = [
  ..." etaoinshrdlu",
  ..."the fox '",
  ..."\n\t\r\u000b\u0085\u00a0\u2003\u3000\u200b\ufeff",
  ..."0127½٣Ⅷ",
  ..."éßİıΣσςÅñ",
  ..."日本語。、한국어",
  ..."<>|_-.,!?@#()[]",
  ..."\u0301\u0308\u05d0\u0610\u0e31\u1734",
  ..."🙂👩🏽‍🚀𝔘𐍈",
  "'s",
  "'ll",
  "'re",
  "  ",
  "\n\n",
  "the",
  " of",
];
const ranges = [
  [0x20, 0x7f],
  [0, 0x24f],
  [0x250, 0x1fff],
  [0x2000, 0x2fff],
  [0x3000, 0xd7ff],
  [0xe000, 0xffff],
  [0x10000, 0x1ffff],
  [0x20000, 0x10ffff],
] as const;

export class RandomText {
  readonly #random: PhiloxStream;

  constructor(seed: number) {
    this.#random = new PhiloxStream(seed, 77);
  }

  below(n: number): number {
    return this.#random.below(n);
  }

  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  /** @param pieces strings to weave in, whole and broken */
  text(longest: number, pieces: readonly string[] = []): string {
    let text = "";
    for (let i = this.below(longest + 1); i > 0; i--) {
      const kind = this.below(10);
      if (kind < 3 && pieces.length > 0) {
        const piece = [...this.of(pieces)];
        text += (this.below(4) > 0 ? piece : piece.slice(this.below(2), 1 + this.below(piece.length))).join("");
      } else if (kind < 9) text += this.of(common);
      else {
        const [low, high] = this.of(ranges);
        text += String.fromCodePoint(low + this.below(high - low));
      }
    }
    return text.replace(/\p{Surrogate}/gu, "");
  }
}
