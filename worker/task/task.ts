// What a worker does with a lease of each kind of round: the twin of coordinator/round/. A task computes on the engine,
// which holds the weights of the lease's step, and stops soon after it is cancelled.
import type { NodeRounding, VectorPool } from "../../shared/arithmetic/tree.ts";
import type { LeaseMessage, RoundKind } from "../../shared/wire/protocol.ts";
import type { Engine } from "../engine/contract.ts";
import { evaluationTask } from "./evaluation.ts";
import { gradientTask } from "./gradient.ts";
import { localTask } from "./local.ts";
import { sampleTask } from "./sample.ts";

export interface Assignment {
  readonly order: LeaseMessage;
  /** (order.windows, T + 1) */
  readonly windows: Uint16Array | Uint32Array;
  /** The run's. */
  readonly seed: number;
  /** (vectors P) of the lease's step: the weights, which the engine has, and moments behind them. */
  readonly sent: Float32Array;
  /** Of vectors (vectors P). */
  readonly pool: VectorPool;
  /** Of the pool, the task's: weights, m and v after the steps of the replica that others took. */
  readonly state?: readonly Float32Array[];
  /** What the sum of every node of the round's tree becomes, where the run's wire is small. */
  readonly round: NodeRounding | undefined;
  /** So many of the answer's losses are known. */
  readonly progress: (losses: number) => void;
  /** Asked after so many whole steps of the first replica: is it to be left there? */
  readonly leaves?: (steps: number) => boolean;
  /** Begin to send the answer's vector before it is whole. */
  readonly send?: (vector: GrowingVector) => void;
  /** Aborted: nobody wants the answer any more. */
  readonly signal: AbortSignal;
}

/** A vector that becomes known from its beginning on. */
export interface GrowingVector {
  /** Of the pool; its values are read as they become known. */
  readonly values: Float32Array;
  /** @returns once the values before `end` are known; false when they will not be */
  until(end: number): Promise<boolean>;
}

export interface Outcome {
  readonly losses: number[];
  /** Of the pool, the caller's; none where the round asks for none. */
  readonly vector?: Float32Array;
  /** Of the vector: it is on its way already. */
  readonly isSent?: boolean;
  /** Of the pool, the caller's: the lease was left in its first replica, after the steps whose losses these are. */
  readonly state?: readonly Float32Array[];
  /** What of its time grew with the lease, where that is not all of it. */
  readonly computeMs?: number;
}

/** @returns undefined when it was cancelled @throws EngineError */
export type Task = (engine: Engine, assignment: Assignment) => Promise<Outcome | undefined>;

export const tasks: Readonly<Record<RoundKind, Task>> = {
  gradient: gradientTask,
  local: localTask,
  evaluation: evaluationTask,
  sample: sampleTask,
};
