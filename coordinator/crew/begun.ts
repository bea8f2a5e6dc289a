// Replicas that a worker left before their end, with what another needs to go on: weights and moments after a whole step, in
// float32.
import type { VectorOps } from "../../shared/arithmetic/vector.ts";
import type { Uploads } from "./uploads.ts";

/** What a worker hands over with a lease that it gives back. */
export interface HandedOver {
  /** Of each step that is done, in their order. */
  readonly losses: readonly number[];
  /** Weights, m and v, in room that was set aside (uploads.ts). */
  readonly state: readonly Float32Array[];
}

/** Steps of a unit, and who took them. */
export interface Share {
  readonly worker: string;
  readonly steps: number;
}

export interface Begun extends HandedOver {
  readonly unit: number;
  readonly arithmetic: string;
  /** In the order of the steps. */
  readonly by: readonly Share[];
}

/** Steps that are done where a lease goes on from this. */
export const stepsOf = (begun: Begun | undefined): number => begun?.losses.length ?? 0;

export class BegunUnits {
  readonly all = new Map<number, Begun>();
  readonly #uploads: Uploads;
  readonly #ops: Pick<VectorOps, "sumOfSquares">;

  constructor(uploads: Uploads, ops: Pick<VectorOps, "sumOfSquares">) {
    this.#uploads = uploads;
    this.#ops = ops;
  }

  /** Taken over. @returns why it is of no use, where it is not kept */
  keep(begun: Begun): string | undefined {
    const { unit, state } = begun;
    const why = this.#whyNot(begun);
    if (why !== undefined) this.#uploads.giveBack(state);
    else {
      this.drop(unit);
      this.all.set(unit, begun);
    }
    return why;
  }

  #whyNot({ unit, losses, state }: Begun): string | undefined {
    const before = stepsOf(this.all.get(unit));
    if (before >= losses.length) return `one after ${before} steps is here already`;
    const isSound =
      losses.every(Number.isFinite) && state.every((vector) => Number.isFinite(this.#ops.sumOfSquares(vector)));
    return isSound ? undefined : "it holds what is no number";
  }

  /** Nobody goes on from it any more. */
  drop(unit: number): void {
    const begun = this.all.get(unit);
    if (!begun) return;
    this.all.delete(unit);
    this.#uploads.giveBack(begun.state);
  }

  clear(): void {
    for (const unit of [...this.all.keys()]) this.drop(unit);
  }
}
