// Local training: H steps of AdamW that a replica takes by itself, from weights and moments that it is given (DiLoCo,
// Douillard et al. 2023, arXiv:2311.08105). A replica is a unit of work like a shard: its result is a function of what
// is given here, whoever computes it, and it can be handed over between any two steps with its state.
import { type AdamWState, adamwUpdate } from "../../shared/arithmetic/adamw.ts";
import { bestOps } from "../../shared/arithmetic/native.ts";
import type { VectorOps } from "../../shared/arithmetic/vector.ts";
import { EngineError } from "../../shared/errors.ts";
import { decayStretches, layoutOf } from "../../shared/family/layout.ts";
import { checkLength } from "./check.ts";
import type { Engine, LocalResult, LocalSteps, LocalWatch, TrainLocally } from "./contract.ts";

/**
 * Local training on any engine: by its own loop where it has one, else by its gradients and the vector arithmetic. Same
 * bits where both have the same arithmetic.
 */
export function localTraining(engine: Engine, ops?: VectorOps): TrainLocally {
  if (engine.train) return engine.train.bind(engine);
  const stretches = decayStretches(layoutOf(engine.model));
  const arithmetic = ops ?? bestOps();
  return stepByStep(engine, async (state, sum, update) => adamwUpdate(arithmetic, stretches, state, sum, update));
}

/** adamwUpdate wherever it is computed. */
export type ComputeUpdate = (
  state: AdamWState,
  sum: Float32Array,
  update: Parameters<typeof adamwUpdate>[4],
) => Promise<number>;

/** Local training of an engine by its gradients, with this way to update. */
export function stepByStep(engine: Omit<Engine, "train">, compute: ComputeUpdate): TrainLocally {
  const layout = layoutOf(engine.model);
  let sum: Float32Array | undefined;
  return async (tokens, targets, steps, state, watch = {}) => {
    const ids = checkLocal(layout.size, tokens, targets, steps, state);
    const { at, rows, learningRates, updates, optimizer } = steps;
    sum ??= new Float32Array(layout.size);
    const result: LocalResult = { losses: [], gradientNorms: [] };
    for (const [h, learningRate] of learningRates.entries()) {
      await engine.setWeights(state.weights);
      const part = (x: Int32Array) => x.subarray(h * ids, (h + 1) * ids);
      const position = { ...at, step: at.step + h };
      const cancelled = watched(watch, h, at.count);
      const losses = await engine.gradient(part(tokens), part(targets), rows, position, sum, cancelled);
      if (!losses) return result;
      const update = { ...optimizer, units: at.count, learningRate, count: updates + h + 1 };
      const norm = await compute(state, sum, update);
      result.losses.push(losses.reduce((total, loss) => total + loss, 0) / at.count);
      result.gradientNorms.push(norm);
      watch.progress?.(h + 1);
    }
    await engine.setWeights(state.weights);
    return result;
  };
}

/** What an engine asks before each of the `count` shards of step h: those before it are done. */
export function watched({ progress, stopped }: LocalWatch, h: number, count: number): () => boolean {
  let asked = 0;
  return () => {
    if (asked > 0 && asked < count) progress?.(h + asked / count);
    asked++;
    return stopped?.() ?? false;
  };
}

/**
 * Do the windows divide into H steps, and is the state of this model?
 * @returns ids of one step
 * @throws EngineError with the numbers
 */
export function checkLocal(
  size: number,
  tokens: Int32Array,
  targets: Int32Array,
  { at, rows, learningRates, updates }: LocalSteps,
  state: AdamWState,
): number {
  const H = learningRates.length;
  const ids = tokens.length / H;
  if (H < 1 || ids < 1 || !Number.isInteger(ids / at.count / rows))
    throw new EngineError(
      `tokens: ${tokens.length} ids do not make ${H} local steps of ${at.count} shards of ${rows} rows`,
    );
  checkLength("targets", targets.length, tokens.length);
  if (!Number.isSafeInteger(updates) || updates < 0)
    throw new EngineError(`local steps after ${updates} updates: expected a count`);
  for (const [name, vector] of Object.entries(state)) checkLength(name, vector.length, size);
  return ids;
}
