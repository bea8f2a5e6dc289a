// One update of AdamW over a whole model: global-norm clip (Pascanu et al. 2013), decay on matrices only (Loshchilov &
// Hutter 2019, arXiv:1711.05101). The coordinator takes it once a step, replicas H times by themselves.
import type { VectorOps } from "./vector.ts";

export interface AdamWOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  /** Largest global norm of a gradient; 0 never clips. */
  readonly gradientClip: number;
}

/** Neighbouring elements of one kind of decay (decayStretches in shared/family/layout.ts). */
export interface DecayStretch {
  readonly offset: number;
  readonly size: number;
  readonly decay: boolean;
}

/** What training changes, (P) each: the weights and AdamW's first and second moments. */
export interface AdamWState {
  readonly weights: Float32Array;
  readonly m: Float32Array;
  readonly v: Float32Array;
}

/** The factor that brings a gradient of this norm under the clip. */
export const clipFactor = (gradientNorm: number, gradientClip: number): number =>
  gradientClip > 0 ? Math.min(1, gradientClip / (gradientNorm + 1e-6)) : 1;

/** Norm of the mean gradient before the clip, and what the sum over the units is multiplied by. */
export function gradientOf(
  sumOfSquares: number,
  units: number,
  gradientClip: number,
): { gradientNorm: number; gradientScale: number } {
  const gradientNorm = Math.sqrt(sumOfSquares) / units;
  return { gradientNorm, gradientScale: clipFactor(gradientNorm, gradientClip) / units };
}

/**
 * @param state updated in place
 * @param sum   (P) over the units of their mean gradients
 * @param units a power of two, so that dividing by it is exact
 * @param count 1-based number of this update
 * @returns norm of the mean gradient before the clip
 */
export function adamwUpdate(
  ops: VectorOps,
  stretches: readonly DecayStretch[],
  { weights, m, v }: AdamWState,
  sum: Float32Array,
  { gradientClip, ...options }: AdamWOptions & { units: number; learningRate: number; count: number },
): number {
  const { gradientNorm, gradientScale } = gradientOf(ops.sumOfSquares(sum), options.units, gradientClip);
  for (const { offset, size, decay } of stretches) {
    const part = (x: Float32Array) => x.subarray(offset, offset + size);
    const weightDecay = decay ? options.weightDecay : 0;
    ops.adamw(part(weights), part(sum), part(m), part(v), { ...options, weightDecay, gradientScale });
  }
  return gradientNorm;
}
