// What goes wrong in a world, drawn from its seed. Worker 0 is the honest one: nothing befalls it but what happens to its
// connections and to its coordinator.
import { between, oneOf, type Random, whole } from "./random.ts";

export const workerFaults = ["crash", "freeze", "mute", "slow", "nan", "absurd", "loss", "broken", "leave"] as const;
export const wireFaults = [
  "delay",
  "lose",
  "repeat",
  "swap",
  "flip",
  "reset",
  "half-open",
  "cut-up",
  "cut-down",
] as const;
export const runFaults = ["kill", "stop", "freeze-coordinator", "disk", "storm", "stranger"] as const;

export interface Fault {
  readonly kind: (typeof workerFaults)[number] | (typeof wireFaults)[number] | (typeof runFaults)[number];
  /** Virtual milliseconds after the world's beginning. */
  readonly at: number;
  readonly forMs: number;
  /** The worker that it befalls; of a storm how many come. */
  readonly worker: number;
}

/** @param workers of the world, the honest one included @param spanMs within which the faults begin */
export function drawFaults(random: Random, workers: number, spanMs: number): Fault[] {
  const count = whole(random, 0, 9);
  return Array.from({ length: count }, (): Fault => {
    const at = Math.round(between(random, 0, spanMs));
    const forMs = Math.round(between(random, 5, oneOf(random, [50, 500, 5000])));
    const which = random();
    if (which < 0.4 && workers > 1)
      return { kind: oneOf(random, workerFaults), at, forMs, worker: whole(random, 1, workers - 1) };
    if (which < 0.75) return { kind: oneOf(random, wireFaults), at, forMs, worker: whole(random, 0, workers - 1) };
    return { kind: oneOf(random, runFaults), at, forMs, worker: whole(random, 1, 12) };
  }).sort((a, b) => a.at - b.at);
}

/** Does it keep the honest worker and its coordinator from speaking with each other? */
export function excuses({ kind, worker }: Fault): boolean {
  return (
    (worker === 0 && (wireFaults as readonly string[]).includes(kind)) ||
    ["kill", "stop", "freeze-coordinator"].includes(kind)
  );
}
