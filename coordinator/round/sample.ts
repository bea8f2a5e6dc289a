// A sample's work: how the weights of a step go on with a prompt, drawn by one worker for people to read. Nothing of it
// reaches the weights. The seed is the run's, so the text is the same whoever draws it.
import type { TreeNode } from "../../shared/arithmetic/tree.ts";
import type { SampleTerms } from "../../shared/wire/protocol.ts";
import { type Round, roundName, type Windows } from "./round.ts";

export interface SampleWork extends SampleTerms {
  /** Updates applied to the weights. */
  readonly step: number;
  /** (T + 1) ids, of which the first `prompt` are what the sample begins with. */
  readonly window: Windows;
}

export class SampleRound implements Round {
  readonly kind = "sample";
  readonly name: string;
  readonly step: number;
  readonly units = 1;
  readonly largest = 1;
  readonly rows = 1;
  readonly shards = 0;
  readonly steps = 0;
  readonly sample: SampleTerms;
  readonly #window: Windows;
  #drawn: readonly number[] = [];

  constructor({ step, window, prompt, tokens, ids }: SampleWork) {
    this.name = roundName("sample", step);
    this.step = step;
    this.sample = { prompt, tokens, ids };
    this.#window = window;
  }

  windows() {
    return { count: 1, read: () => this.#window };
  }

  expects() {
    return { losses: this.sample.tokens, vector: false };
  }

  /** Ids come as losses do; from the first -1 on there are none. */
  refusal(_: TreeNode, drawn: readonly number[]): string | undefined {
    const bad = drawn.find((id) => !Number.isInteger(id) || id < -1 || id >= this.sample.ids);
    return bad === undefined ? undefined : `an id of ${bad}`;
  }

  take(_: TreeNode, drawn: readonly number[]): void {
    const end = drawn.indexOf(-1);
    this.#drawn = end < 0 ? drawn : drawn.slice(0, end);
  }

  abandon(): void {}

  /** Ids after the prompt; fewer than asked for where the engine could not go on. */
  result(): readonly number[] {
    return this.#drawn;
  }
}
