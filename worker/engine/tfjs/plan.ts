// How much memory a model takes in training, before the first tensor exists: the wasm heap ends at 4 GB, and a full
// heap or card in the middle of a run is a lost run.
import { familyOf } from "../../../shared/family/families.ts";
import { layoutOf } from "../../../shared/family/layout.ts";
import type { ModelConfig } from "../../../shared/model.ts";

/** Most logits that exist at once, in floats. */
export const headSlice = 2 ** 24;

/** WebAssembly has 32-bit addresses; the last page is never handed out. */
export const heapEnd = 2 ** 32 - 65_536;

/**
 * Bytes at the worst moment of gradient() over `rows` sequences of blockSize tokens: a block's backward pass, or the
 * head's. An estimate from above; test/worker/engine/plan.test.ts holds it against the heap.
 * @param productBytes see Backend
 */
export function plannedBytes(
  model: ModelConfig,
  rows: number,
  recompute: boolean,
  productBytes: (weightFloats: number) => number,
): number {
  const { vocabSize: V, blockSize: T, nEmbd: C, nLayer: L, nHead: H, dropout } = model;
  const weights = 4 * layoutOf(model).size;
  const N = rows * T;
  if (familyOf(model).architecture === "table") return weights + 4 * V * V + 8 * N * V;

  const masks = dropout > 0 ? 1 : 0;
  const scores = rows * H * T * T;
  // block.ts: two norms, x, qkv, attended, x, slope, active; probabilities, with dropout twice; its two masks.
  const block = N * (2 * C + C + 3 * C + C + C + 4 * C + 4 * C + 2 * masks * C + 2) + scores * (1 + masks);
  const kept = recompute ? L * N * C + block : L * (N * C + block);
  // Backward of a block: gradients of scores with their transposed copies; of the wide activations with theirs.
  const working = 4 * scores + masks * scores + 24 * N * C;
  const slice = Math.min(N * V, Math.max(V, headSlice));
  const headWorking = 3 * slice + 3 * N * C;
  const table = V * C;
  return Math.ceil(
    weights +
      4 * (kept + Math.max(working, headWorking) + 3 * table) +
      productBytes(Math.max(table, slice, 4 * C * C, 4 * N * C)),
  );
}
