// A model that has learned long positions, cut to shorter ones, to fine-tune it on shorter windows than it was trained
// on: the first blockSize rows of its position embedding, everything else unchanged.

import { layoutOf } from "../family/layout.ts";
import type { Pretrained } from "./pretrained.ts";

/** The same model where blockSize is not below its own. */
export function cropPositions(pretrained: Pretrained, blockSize: number): Pretrained {
  const { model, layout, weights } = pretrained;
  if (blockSize >= model.blockSize) return pretrained;
  const shorter = { ...model, blockSize };
  const target = layoutOf(shorter);
  const cropped = new Float32Array(target.size);
  for (const { key, offset, size } of target.parameters) {
    const start = layout.byKey.get(key)!.offset;
    // Rows of positions follow each other, so that the first ones are the first elements.
    cropped.set(weights.subarray(start, start + size), offset);
  }
  return { model: shorter, layout: target, weights: cropped };
}
