// A text that a person and a model write by turns. What both wrote stays in the engine's cache: a turn computes its own
// tokens alone, however long the text has become.
import { PhiloxStream, stream } from "../arithmetic/philox.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import { Continuations, type Decodable, draw, penalise } from "./decode.ts";
import { decoderAfter, StoppingText, stopsAt, type TextOptions } from "./text.ts";

export class Conversation {
  readonly #engine: Decodable;
  readonly #tokenizer: Tokenizer;
  readonly #options: Omit<TextOptions, "samples">;
  readonly #random: PhiloxStream;
  readonly #scratch: Float32Array;
  #rows: Continuations | undefined;

  /** The engine is the conversation's until reset(). With one seed the first turn is what `continueText` gives. */
  constructor(engine: Decodable, tokenizer: Tokenizer, options: Omit<TextOptions, "samples">) {
    this.#engine = engine;
    this.#tokenizer = tokenizer;
    this.#options = options;
    this.#random = new PhiloxStream(options.seed, stream.decode, 0);
    this.#scratch = new Float32Array(engine.model.vocabSize);
  }

  /** Has anybody written anything yet? */
  get isEmpty(): boolean {
    return this.#rows === undefined;
  }

  /**
   * Write on after `text`, which may be empty once something is there.
   * @param isStopped asked after every token
   * @throws ConfigError where the text cannot be encoded, or is empty at the beginning; nothing has changed then
   */
  async *goOn(text: string, isStopped: () => boolean = () => false): AsyncGenerator<string, void> {
    const ids = this.#tokenizer.encode(text, 0, { first: this.isEmpty, last: false });
    const has = (id: number): boolean => this.#tokenizer.has(id);
    if (this.#rows === undefined) this.#rows = await Continuations.start(this.#engine, ids, 1, has);
    else {
      for (const id of ids) this.#rows.append(0, id);
      await this.#rows.compute([0]);
    }
    const { tokens, stop, repetitionPenalty } = this.#options;
    const shown = new StoppingText(decoderAfter(this.#tokenizer, this.#rows.sequence(0)), stop);
    const ends = stopsAt(this.#tokenizer, stop);
    const drawn: number[] = [];
    while (true) {
      const logits = this.#rows.logits(0);
      penalise(logits, this.#rows.sequence(0), repetitionPenalty);
      const token = draw(logits, this.#options, this.#random, this.#scratch);
      this.#rows.append(0, token);
      drawn.push(token);
      yield shown.push(token);
      if (drawn.length === tokens || ends(drawn) || isStopped()) break;
      await this.#rows.compute([0]);
    }
    yield shown.end();
  }

  /** Forget all that was written. */
  reset(): void {
    this.#rows?.dispose();
    this.#rows = undefined;
  }
}
