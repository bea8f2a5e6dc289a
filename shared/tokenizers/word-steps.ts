// What Hugging Face's library does around a vocabulary of whole words (WordLevel): how a text is normalized and cut into
// them, and how they are joined. Every step that is read here looks at single characters and their neighbours only, so
// that a text may be cut wherever two words meet.
import { z } from "zod";
import { brief } from "../check.ts";
import { ConfigError } from "../errors.ts";
import { clean } from "./bert.ts";
import { bertSigns, isSpace, wordCharacters } from "./unicode.ts";

const character = z.string().refine((text) => [...text].length === 1, "is not one character");
const split = { type: z.literal("Split"), invert: z.literal(false) };

const normalizers = z.union([
  z.strictObject({
    type: z.literal("BertNormalizer"),
    clean_text: z.literal(true),
    handle_chinese_chars: z.literal(true),
    strip_accents: z.literal(true).nullable(),
    lowercase: z.literal(true),
  }),
  z.strictObject({ type: z.literal("Lowercase") }),
]);

const cutters = z.union([
  z.strictObject({ type: z.enum(["Whitespace", "WhitespaceSplit", "BertPreTokenizer"]) }),
  z.strictObject({ type: z.literal("Punctuation"), behavior: z.literal("Isolated") }),
  z.strictObject({ type: z.literal("CharDelimiterSplit"), delimiter: character }),
  z.strictObject({ ...split, pattern: z.strictObject({ String: character }), behavior: z.literal("Removed") }),
  z.strictObject({
    ...split,
    pattern: z.strictObject({ Regex: z.enum(["", ".", "[\\s\\S]"]) }),
    behavior: z.literal("Isolated"),
  }),
]);

/** By their place in tokenizer.json. */
const single = {
  normalizer: normalizers,
  pre_tokenizer: cutters,
  decoder: z.strictObject({ type: z.literal("Fuse") }),
};
const sequence = { type: z.literal("Sequence") };
const schemas = {
  normalizer: z.union([normalizers, z.strictObject({ ...sequence, normalizers: z.array(normalizers) })]),
  pre_tokenizer: z.union([cutters, z.strictObject({ ...sequence, pretokenizers: z.array(cutters).max(8) })]),
  decoder: single.decoder,
};
const known = {
  normalizer: "none, Lowercase, BertNormalizer with all that it does, or a Sequence of them",
  pre_tokenizer:
    "none, Whitespace, WhitespaceSplit, BertPreTokenizer, Punctuation (Isolated), CharDelimiterSplit, Split (a " +
    'character Removed, or each Isolated by "", "." or "[\\s\\S]"), or a Sequence of them',
  decoder: "none or Fuse",
};

/** As tokenizer.json has them; null: there is none. */
export type WordSteps = {
  readonly [Place in keyof typeof schemas]: z.infer<(typeof schemas)[Place]> | null;
};

/** @throws ConfigError naming the first step that is not read here */
export function readWordSteps(file: { readonly [Place in keyof WordSteps]?: unknown }, path: string): WordSteps {
  const read = <Place extends keyof WordSteps>(place: Place): WordSteps[Place] => {
    const said = file[place] ?? null;
    const result = z.nullable<z.ZodType>(schemas[place]).safeParse(said);
    if (result.success) return result.data as WordSteps[Place];
    const { normalizers, pretokenizers } = said as Record<string, unknown>;
    const steps = [normalizers ?? pretokenizers].flat();
    const unread = steps.find((step) => step && !single[place].safeParse(step).success) ?? said;
    throw new ConfigError(`${path}: ${place} ${brief(unread)}; Weft reads WordLevel with ${known[place]}`);
  };
  return { normalizer: read("normalizer"), pre_tokenizer: read("pre_tokenizer"), decoder: read("decoder") };
}

/** What a character is to a step that cuts: dropped, a word by itself, or one of a run of its kind. */
const [dropped, alone, run, otherRun] = [0, 1, 2, 3];

function kindOf(step: z.infer<typeof cutters>, code: number): number {
  switch (step.type) {
    case "Whitespace":
      return isSpace(code) ? dropped : wordCharacters.has(code) ? run : otherRun;
    case "WhitespaceSplit":
      return isSpace(code) ? dropped : run;
    case "BertPreTokenizer":
      return isSpace(code) ? dropped : bertSigns.has(code) ? alone : run;
    case "Punctuation":
      return bertSigns.has(code) ? alone : run;
    case "CharDelimiterSplit":
      return code === step.delimiter.codePointAt(0) ? dropped : run;
    case "Split":
      if ("String" in step.pattern) return code === step.pattern.String.codePointAt(0) ? dropped : run;
      return step.pattern.Regex === "." && code === 10 ? run : alone;
  }
}

/** The steps as functions of a text. */
export class WordCutter {
  readonly #normalizers: readonly ((text: string) => string)[];
  readonly #cutters: readonly z.infer<typeof cutters>[];
  /** Kinds of code points below 128, which are nearly all of them. */
  readonly #ascii: Uint16Array;

  constructor({ normalizer, pre_tokenizer: cutter }: WordSteps) {
    const normalizers = normalizer?.type === "Sequence" ? normalizer.normalizers : normalizer ? [normalizer] : [];
    this.#normalizers = normalizers.map(({ type }) => (type === "Lowercase" ? lowercase : clean));
    this.#cutters = cutter?.type === "Sequence" ? cutter.pretokenizers : cutter ? [cutter] : [];
    this.#ascii = Uint16Array.from({ length: 128 }, (_, code) => this.#combined(code));
  }

  normalize(text: string): string {
    return this.#normalizers.reduce((normalized, step) => step(normalized), text);
  }

  /** The words of a normalized text. */
  eachWord(text: string, visit: (word: string) => void): void {
    let [start, kind] = [0, dropped];
    for (let at = 0; at < text.length; ) {
      const code = text.codePointAt(at)!;
      const next = this.#kind(code);
      if (this.#parts(kind, next)) {
        if (kind !== dropped) visit(text.slice(start, at));
        start = at;
      }
      kind = next;
      at += code > 0xffff ? 2 : 1;
    }
    if (kind !== dropped) visit(text.slice(start));
  }

  /** The last place in (from, to] where no word of the text goes on; 0: there is none. */
  lastBoundary(text: string, from: number, to: number): number {
    for (let at = Math.min(to, text.length - 1); at > from; at--) {
      const low = text.charCodeAt(at);
      if (low >= 0xdc00 && low < 0xe000) continue;
      if (low >= 0xd800 && low < 0xdc00 && at === text.length - 1) continue; // its other half is yet to come
      const before = text.charCodeAt(at - 1);
      const start = before >= 0xdc00 && before < 0xe000 ? at - 2 : at - 1;
      // Characters that normalizing drops have no sides.
      const [left, right] = [text.codePointAt(start), low >= 0xd800 ? text.codePointAt(at) : low].map((code) =>
        [...this.normalize(String.fromCodePoint(code!))].map((part) => this.#kind(part.codePointAt(0)!)),
      ) as [number[], number[]];
      if (left.length > 0 && right.length > 0 && this.#parts(left.at(-1)!, right[0]!)) return at;
    }
    return 0;
  }

  #kind(code: number): number {
    return code < 128 ? this.#ascii[code]! : this.#combined(code);
  }

  /** One step cuts what the one before left together: dropped or alone for one is so for all, runs are runs of all. */
  #combined(code: number): number {
    let combined = run;
    for (const step of this.#cutters) {
      const kind = kindOf(step, code);
      if (kind === dropped) return dropped;
      combined = combined === alone || kind === alone ? alone : 2 * combined + (kind - run);
    }
    return combined;
  }

  #parts(left: number, right: number): boolean {
    return left !== right || left <= alone;
  }
}

/** Character by character, as Rust does it: the last sigma of a word stays one. */
function lowercase(text: string): string {
  let lower = "";
  for (const character of text) lower += character.toLowerCase();
  return lower;
}
