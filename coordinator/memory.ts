// How much memory a run's coordinator takes at its worst moment, before the first vector exists: a checkpoint is being
// written while the next step's gradients come in.
import type { WireFormat } from "../shared/arithmetic/codec.ts";

/** Weights and AdamW's two moments; their copies that a checkpoint is written from; two gradients that are added. */
const vectors = 3 + 3 + 2;
/** Of a small wire: what rounding lost, and its copy; the weights before an update, and the update. */
const wireVectors = 2 + 2;
/** The process itself, whatever the model: Node, the page, tokens on their way. */
export const processBytes = 150 * 2 ** 20;

/**
 * An estimate from below: what every run of this size takes.
 * @param parameters P
 * @param sharing workers on this machine that share memory with it: the weights once, a gradient of each
 */
export function coordinatorBytes(parameters: number, sharing: number, wire: WireFormat): number {
  const shared = sharing > 0 ? 1 + sharing : 0;
  const small = wire === "float32" ? 0 : wireVectors;
  return processBytes + 4 * parameters * (vectors + small + shared);
}
