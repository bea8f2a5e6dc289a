// Tokens that are found in a text as a whole, before anything else: what Hugging Face calls added tokens, with its rules
// for the white space and words around them (tokenizers, added_vocabulary.rs).
import { brief } from "../check.ts";
import { ConfigError } from "../errors.ts";
import { isSpace, wordCharacters } from "./unicode.ts";

export interface AddedToken {
  /** Undefined where the files and Hugging Face's library disagree about it: no text may have the token. */
  readonly id: number | undefined;
  /** Then the id that the files give it, which no other token has. */
  readonly said?: number;
  readonly content: string;
  /** Takes the white space before it, or after it, with it. */
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  /** Found only where no letter, digit or mark touches it. */
  readonly singleWord: boolean;
  /** Looked for in the normalized text, after the others. */
  readonly normalized: boolean;
  /** A mark of the format rather than text: decoding may leave it out. */
  readonly special: boolean;
}

/** The most common kind. */
export function specialToken(id: number, content: string): AddedToken {
  return { id, content, lstrip: false, rstrip: false, singleWord: false, normalized: false, special: true };
}

/** A piece of text, or the token that stands in its place. */
export interface Part {
  readonly text: string;
  readonly token?: AddedToken;
  /** Place in the text that was split. */
  readonly at: number;
}

interface Match {
  readonly start: number;
  readonly stop: number;
  readonly token: AddedToken;
  /** Is it a match by all rules? Others still hide what begins inside them. */
  readonly taken: boolean;
}

/** A set of tokens as a tree of their UTF-16 units. */
class Finder {
  readonly size: number;
  /** Length of the longest. */
  readonly longest: number;
  readonly #root: Node = { next: new Map() };
  readonly #begins = new Uint8Array(0x10000);
  /** What every token begins with, where that is one: nearly always "<", which is found much faster. */
  readonly #begin: string | undefined;

  constructor(tokens: readonly (readonly [spelled: string, token: AddedToken])[]) {
    this.size = tokens.length;
    this.longest = tokens.reduce((most, [spelled]) => Math.max(most, spelled.length), 0);
    for (const [spelled, token] of tokens) {
      let node = this.#root;
      for (let i = 0; i < spelled.length; i++) {
        const unit = spelled.charCodeAt(i);
        let child = node.next.get(unit);
        if (!child) {
          child = { next: new Map() };
          node.next.set(unit, child);
        }
        node = child;
      }
      // Of two tokens that are normalized to the same text, Hugging Face finds the first.
      node.token ??= token;
      this.#begins[spelled.charCodeAt(0)] = 1;
    }
    const [first, ...others] = this.#root.next.keys();
    if (first !== undefined && others.length === 0) this.#begin = String.fromCharCode(first);
  }

  /** All places where a token stands, the leftmost and then the longest first, none inside another. */
  *matches(text: string): Generator<Match> {
    let taken = 0;
    for (let at = 0; at < text.length; ) {
      if (this.#begin !== undefined) {
        at = text.indexOf(this.#begin, at);
        if (at < 0) return;
      } else if (this.#begins[text.charCodeAt(at)] === 0) {
        at++;
        continue;
      }
      let found: AddedToken | undefined;
      let end = at;
      let node: Node | undefined = this.#root;
      for (let i = at; node && i <= text.length; i++) {
        if (node.token) [found, end] = [node.token, i];
        node = node.next.get(text.charCodeAt(i));
      }
      if (!found) {
        at++;
        continue;
      }
      let [start, stop] = [at, end];
      at = end;
      if (found.singleWord && (endsInWord(text, start) || beginsInWord(text, stop))) {
        yield { start, stop, token: found, taken: false };
        continue;
      }
      if (found.lstrip) {
        while (start > 0 && isSpace(text.charCodeAt(start - 1))) start--;
        start = Math.max(start, taken);
      }
      if (found.rstrip) while (stop < text.length && isSpace(text.charCodeAt(stop))) stop++;
      // Nothing is left of a token whose white space the one before has taken.
      yield { start, stop, token: found, taken: start < stop };
      taken = stop;
    }
  }
}

interface Node {
  readonly next: Map<number, Node>;
  token?: AddedToken;
}

function endsInWord(text: string, end: number): boolean {
  if (end === 0) return false;
  const unit = text.charCodeAt(end - 1);
  const low = unit >= 0xdc00 && unit < 0xe000 && end > 1;
  return wordCharacters.has(low ? text.codePointAt(end - 2)! : unit);
}

function beginsInWord(text: string, start: number): boolean {
  return start < text.length && wordCharacters.has(text.codePointAt(start)!);
}

const asItIs = (text: string): string => text;

export class AddedTokens {
  readonly all: readonly AddedToken[];
  readonly #plain: Finder;
  readonly #normalized: Finder;
  readonly #normalize: (text: string) => string;

  /** @param normalize what the tokenizer does to a text before it is cut into words */
  constructor(all: readonly AddedToken[], normalize: (text: string) => string = asItIs) {
    this.all = all;
    this.#normalize = normalize;
    const spelled = (normalized: boolean): [string, AddedToken][] =>
      all
        .filter((token) => token.normalized === normalized)
        .map((token) => [normalized ? normalize(token.content) : token.content, token]);
    const empty = all.find((token) => (token.normalized ? normalize(token.content) : token.content) === "");
    if (empty) throw new ConfigError(`the added token ${brief(empty.content)} is empty once it is normalized`);
    this.#plain = new Finder(spelled(false));
    this.#normalized = new Finder(spelled(true));
  }

  /** A text as tokens and normalized pieces between them; no piece is empty. */
  *split(text: string): Generator<Part> {
    for (const part of splitBy(this.#plain, text))
      if (part.token) yield part;
      else
        for (const inner of splitBy(this.#normalized, this.#normalize(part.text)))
          yield { ...inner, at: part.at + inner.at };
  }

  /**
   * The last place in (from, text.length) that `candidate` offers and no token stands across or can be changed by.
   * @param candidate the last place in (from, to] where the text between tokens may be cut, 0 where there is none
   */
  cut(text: string, from: number, candidate: (from: number, to: number) => number): number {
    const longest = Math.max(this.#plain.longest, this.#normalized.longest);
    // In normalized text, what takes white space with it may come from any distance.
    const reaches = this.all.some(({ normalized, lstrip, rstrip }) => normalized && (lstrip || rstrip));
    if (reaches && this.#normalize !== asItIs) return 0;
    const low = Math.max(0, from - longest);
    const finds = longest === 0 ? [] : this.#matches(text);
    let at = text.length - longest;
    while (at > low) {
      const place = candidate(low, at);
      if (place <= low) return 0;
      let clear = place;
      for (const matches of finds) {
        // From the end: what begins behind this place cannot stand across an earlier one.
        while (matches.length > 0 && matches.at(-1)!.start > place) matches.pop();
        // One may begin at this place and the one before it end there.
        for (const { start, stop, token } of matches.slice(-2)) {
          if (start < place && place <= stop) clear = Math.min(clear, start);
          else if (start === place && token.singleWord) clear = Math.min(clear, place - 1);
        }
      }
      if (this.#isHidden(text, place)) clear = Math.min(clear, place - 1);
      if (clear === place) return place;
      at = clear;
    }
    return 0;
  }

  /** May a token stand across this place, or be changed by a cut there, that is seen only in the normalized text? */
  #isHidden(text: string, place: number): boolean {
    if (this.#normalized.size === 0 || this.#normalize === asItIs) return false;
    const enough = this.#normalized.longest + 1;
    const beside = (piece: (reach: number) => string): string => {
      for (let reach = 2 * enough; ; reach *= 2) {
        const normalized = this.#normalize(piece(reach));
        if (normalized.length >= enough || reach >= text.length) return normalized;
      }
    };
    const before = beside((reach) => text.slice(Math.max(0, place - reach), place));
    const after = beside((reach) => text.slice(place, place + reach));
    // What it would end with is yet to come.
    if (after.length < enough) return true;
    for (const { start, stop, token } of this.#normalized.matches(before + after))
      if (start <= before.length && before.length <= stop && (start < before.length || token.singleWord)) return true;
    return false;
  }

  /** Everything that is found first, and what is found between those tokens; each in order. */
  #matches(text: string): Match[][] {
    const plain = [...this.#plain.matches(text)];
    const between: Match[] = [];
    for (const part of this.#normalized.size === 0 ? [] : splitBy(this.#plain, text))
      if (!part.token)
        for (const match of this.#normalized.matches(part.text))
          between.push({ ...match, start: part.at + match.start, stop: part.at + match.stop });
    return [plain, between];
  }
}

function* splitBy(finder: Finder, text: string): Generator<Part> {
  let done = 0;
  if (finder.size > 0)
    for (const { start, stop, token, taken } of finder.matches(text)) {
      if (!taken) continue;
      if (done < start) yield { text: text.slice(done, start), at: done };
      yield { text: text.slice(start, stop), token, at: start };
      done = stop;
    }
  if (done < text.length) yield { text: text.slice(done), at: done };
}
