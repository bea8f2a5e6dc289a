// How much memory a run's coordinator takes at its worst moment, before the first vector exists: a checkpoint is being
// written from copies while two of the next step's gradients are added.
import type { Options } from "../shared/config.ts";

/** The process itself, whatever the model: Node, the page, tokens on their way. */
export const processBytes = 150 * 2 ** 20;

/** Vectors (P) that travel as one: with averaged moments of local steps, those too. */
export const vectorsSent = ({ localSteps, innerState }: Pick<Options, "localSteps" | "innerState">): 1 | 3 =>
  localSteps > 1 && innerState === "averaged" ? 3 : 1;

/**
 * An estimate from below: what every run of this size takes.
 * @param parameters P
 * @param sharing workers on this machine that share memory with it: the weights once, a gradient of each
 */
export function coordinatorBytes(
  parameters: number,
  sharing: number,
  options: Pick<Options, "localSteps" | "innerState" | "wire">,
): number {
  const sent = vectorsSent(options);
  const isSmall = options.wire !== "float32";
  // AdamW's moments, or the outer momentum and moments that are averaged; of a small wire what rounding lost.
  const state = (options.localSteps > 1 ? sent : 2) + (isSmall ? 1 : 0);
  const copied = 1 + state;
  const added = 2 * sent;
  // Weights as they travel with moments; weights before an update, and the update.
  const aside = (sent > 1 ? 1 : 0) + (isSmall ? 1 + sent : 0);
  const shared = sharing > 0 ? (1 + sharing) * sent : 0;
  return processBytes + 4 * parameters * (1 + state + copied + added + aside + shared);
}
