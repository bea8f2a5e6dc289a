// Initial weights, a pure function of (model, seed): each family says what its parameters start as.

import { PhiloxStream, stream } from "../arithmetic/philox.ts";
import type { Layout } from "./layout.ts";

/** @returns (P) weights in the layout's order */
export function initialWeights(layout: Layout, seed: number): Float32Array {
  const weights = new Float32Array(layout.size);
  layout.parameters.forEach(({ offset, size, start }, index) => {
    const target = weights.subarray(offset, offset + size);
    if (typeof start === "number") {
      target.fill(start);
      return;
    }
    const random = new PhiloxStream(seed, stream.init, index);
    for (let i = 0; i < target.length; i++) target[i] = start.deviation * random.normal();
  });
  return weights;
}
