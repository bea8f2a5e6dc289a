// Learning rate of a step: linear warm-up, then cosine (Loshchilov & Hutter 2017, arXiv:1608.03983), linear or constant.
import { cosTurns } from "../../shared/arithmetic/functions.ts";
import type { Options } from "../../shared/config.ts";

/**
 * @param step 0-based
 * @returns learning rate; in the warm-up peak * (step + 1) / (warmup + 1), as nanoGPT has it
 */
export function learningRateAt(
  step: number,
  o: Pick<Options, "schedule" | "learningRate" | "minLearningRate" | "warmupSteps" | "decaySteps" | "steps">,
): number {
  if (step < o.warmupSteps) return (o.learningRate * (step + 1)) / (o.warmupSteps + 1);
  if (o.schedule === "constant") return o.learningRate;
  const end = o.decaySteps || o.steps;
  if (step >= end) return o.minLearningRate;
  const progress = (step - o.warmupSteps) / (end - o.warmupSteps);
  const share = o.schedule === "cosine" ? 0.5 * (1 + cosTurns(progress / 2)) : 1 - progress;
  return o.minLearningRate + share * (o.learningRate - o.minLearningRate);
}
