// Text from a prompt: the tokens that decoding gives become text piece by piece, up to a stop string, which is no part
// of the text.

import type { StreamDecoder, Tokenizer } from "../tokenizers/tokenizer.ts";
import { type Decodable, type SampleOptions, sample } from "./decode.ts";

export interface TextOptions extends Omit<SampleOptions, "finished" | "has"> {
  /** Where a sample ends early. */
  readonly stop: readonly string[];
}

/** Continue a text; what each sample gets comes as soon as it is certain. @throws ConfigError on an empty prompt */
export async function* continueText(
  engine: Decodable,
  tokenizer: Tokenizer,
  prompt: string,
  options: TextOptions,
): AsyncGenerator<{ sample: number; text: string }, void> {
  const { stop, samples } = options;
  const ids = tokenizer.encode(prompt);
  const texts = Array.from({ length: samples }, () => new StoppingText(decoderAfter(tokenizer, ids), stop));
  const finished = stopsAt(tokenizer, stop);
  const has = (id: number): boolean => tokenizer.has(id);
  for await (const drawn of sample(engine, ids, { ...options, finished, has }))
    yield { sample: drawn.sample, text: texts[drawn.sample]!.push(drawn.token) };
  for (const [i, text] of texts.entries()) yield { sample: i, text: text.end() };
}

/** A decoder that goes on behind these ids: words know what divides them from what stands before. */
export function decoderAfter(tokenizer: Tokenizer, ids: Iterable<number>): StreamDecoder {
  const decoder = tokenizer.decoder();
  for (const id of ids) decoder.push(id);
  return decoder;
}

/** The text of a whole continuation, up to the first stop string. @param prompt the ids before it */
export function textBefore(
  tokenizer: Tokenizer,
  prompt: Iterable<number>,
  continuation: readonly number[],
  stops: readonly string[],
): string {
  const text = new StoppingText(decoderAfter(tokenizer, prompt), stops);
  return continuation.map((token) => text.push(token)).join("") + text.end();
}

/** Does the end of a continuation complete a stop string? The `finished` of decoding. */
export function stopsAt(tokenizer: Tokenizer, stops: readonly string[]): (continuation: readonly number[]) => boolean {
  // A character is at most four bytes and a token at least one of them.
  const reach = 4 * longest(stops) + 4;
  return (continuation) => {
    if (stops.length === 0) return false;
    const text = tokenizer.decode(continuation.slice(-reach));
    return stops.some((stop) => text.includes(stop));
  };
}

/** Holds back what may turn out to begin a stop string. */
export class StoppingText {
  readonly #decoder: StreamDecoder;
  readonly #stops: readonly string[];
  #held = "";
  #stopped = false;

  constructor(decoder: StreamDecoder, stops: readonly string[]) {
    this.#decoder = decoder;
    this.#stops = stops;
  }

  /** The text that is now certain to be part of the sample. */
  push(token: number): string {
    return this.#release(this.#decoder.push(token), false);
  }

  /** What is left, once no more tokens come. */
  end(): string {
    return this.#release(this.#decoder.end(), true);
  }

  #release(text: string, last: boolean): string {
    if (this.#stopped) return "";
    const whole = this.#held + text;
    const ends = this.#stops.map((stop) => whole.indexOf(stop)).filter((at) => at >= 0);
    this.#stopped = ends.length > 0;
    const sure = this.#stopped ? Math.min(...ends) : last ? whole.length : this.#certain(whole);
    this.#held = whole.slice(sure);
    return whole.slice(0, sure);
  }

  /** How far a text goes before the longest of its ends that begins a stop string. */
  #certain(whole: string): number {
    for (let at = Math.max(0, whole.length - longest(this.#stops) + 1); at < whole.length; at++)
      if (this.#stops.some((stop) => stop.startsWith(whole.slice(at)))) return at;
    return whole.length;
  }
}

function longest(stops: readonly string[]): number {
  return Math.max(0, ...stops.map((stop) => stop.length));
}
