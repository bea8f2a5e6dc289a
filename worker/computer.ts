// Who computes what a session is told to: an engine of this process, or the workers of a relay.
import type { VectorPool } from "../shared/arithmetic/tree.ts";
import { layoutOf } from "../shared/family/layout.ts";
import type { Frame } from "../shared/wire/frame.ts";
import type { WeightsUpdate, Welcome } from "../shared/wire/protocol.ts";
import type { Engine } from "./engine/contract.ts";
import { type Assignment, type Outcome, tasks } from "./task/task.ts";

export interface Computer {
  /** As Engine's. */
  readonly arithmetic: string;
  readonly device: string;
  readonly plannedBytes: number;
  /** Weights and gradients may go through memory that the coordinator shares, where it does. */
  readonly sharesMemory: boolean;
  /** It goes on with what others have begun, and leaves what it has begun to others. */
  readonly takesOver: boolean;
  /** Of vectors like those that travel, where it has one: what it answers with goes back there. */
  readonly pool?: VectorPool;
  /**
   * Compute with these from now on.
   * @param sent   (vectors P) the weights, and what follows them; lent until the next
   * @param update lent for the call: what made them, where that is known
   */
  setWeights(step: number, sent: Float32Array, update: WeightsUpdate | undefined): Promise<void>;
  /** Weights still arrive; see Engine.foresee. @param sent (vectors P) */
  foresee?(sent: Float32Array, known: number): void;
  /** Hears each frame of weights, or of what changes them, before they are whole. @param from of an update: the step that it leads from */
  passOn?(frame: Frame, from: number | undefined): void;
  /** @returns undefined where it was told to stop @throws EngineError; Deserted */
  compute(assignment: Assignment): Promise<Outcome | undefined>;
}

/** Who would compute is gone: the coordinator is left, so that it gives the work to others, until somebody comes. */
export class Deserted extends Error {}

/** The coordinator has its work from us: to work for it would be to wait for ourselves. */
export class Below extends Error {}

/** What opens a computer for a run, and keeps it over the sessions that ask for the same. */
export interface Computers {
  /** @param signal nobody waits for it any more @param tell of another device than that it had @throws Below */
  for(welcome: Welcome, signal: AbortSignal, tell: (device: string) => void): Promise<Computer>;
}

export function computerOf(engine: Engine): Computer {
  const { size } = layoutOf(engine.model);
  return {
    arithmetic: engine.arithmetic,
    device: engine.device,
    plannedBytes: engine.plannedBytes,
    sharesMemory: true,
    takesOver: true,
    async setWeights(_step, sent, update) {
      const weights = sent.subarray(0, size);
      // They were made here, in an array that others may have begun to arrive in.
      if (update) engine.foresee?.(weights, 0);
      await engine.setWeights(weights);
    },
    foresee: (sent, known) => engine.foresee?.(sent.subarray(0, size), Math.min(known, size)),
    compute: (assignment) => tasks[assignment.order.round](engine, assignment),
  };
}
