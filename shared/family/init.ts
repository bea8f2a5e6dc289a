// Initial weights, a pure function of (model, seed): each family says what its parameters start as.

import { bestOps } from "../arithmetic/native.ts";
import { stream } from "../arithmetic/philox.ts";
import type { Layout } from "./layout.ts";

/** @returns (P) weights in the layout's order */
export function initialWeights(layout: Layout, seed: number, ops = bestOps()): Float32Array {
  const weights = new Float32Array(layout.size);
  layout.parameters.forEach(({ offset, size, start }, index) => {
    const target = weights.subarray(offset, offset + size);
    if (typeof start === "number") target.fill(start);
    else ops.normal(target, start.deviation, { seed, purpose: stream.init, a: index, b: 0 });
  });
  return weights;
}
