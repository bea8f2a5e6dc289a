// What every engine demands of its callers, in one place, so that a wrong call gets the same answer from each of them.
import { nodeName, type TreeNode } from "../../shared/arithmetic/tree.ts";
import { EngineError } from "../../shared/errors.ts";
import { layoutOf } from "../../shared/family/layout.ts";
import type { ModelConfig } from "../../shared/model.ts";

/**
 * Are these (B, T) ids of this model, or `count` times so many?
 * @returns T
 * @throws EngineError with the numbers
 */
export function checkTokens(
  model: ModelConfig,
  maxRows: number,
  what: string,
  ids: Int32Array,
  rows: number,
  count = 1,
): number {
  if (!Number.isInteger(rows) || rows < 1 || rows > maxRows)
    throw new EngineError(`${rows} rows, but this engine was planned for 1 to ${maxRows}`);
  const T = ids.length / count / rows;
  if (!Number.isInteger(T) || T < 1 || T > model.blockSize)
    throw new EngineError(
      `${what}: ${ids.length / count} ids do not make ${rows} rows of 1 to ${model.blockSize} (the model's blockSize)`,
    );
  checkIds(model, what, ids);
  return T;
}

/** @throws EngineError on the first id outside the vocabulary */
export function checkIds(model: ModelConfig, what: string, ids: Int32Array): void {
  for (let i = 0; i < ids.length; i++)
    if (ids[i]! < 0 || ids[i]! >= model.vocabSize)
      throw new EngineError(`${what}: id ${ids[i]} at position ${i} is outside the vocabulary of ${model.vocabSize}`);
}

/** @throws EngineError where a flat vector is not as long as it must be */
export function checkLength(what: string, got: number, expected: number): void {
  if (got !== expected)
    throw new EngineError(
      `${what}: ${got.toLocaleString("en")} values, expected ${expected.toLocaleString("en")}; is it of another model?`,
    );
}

/** Targets must match the tokens one for one. */
export function checkTargets(model: ModelConfig, tokens: Int32Array, targets: Int32Array): void {
  checkLength("targets", targets.length, tokens.length);
  checkIds(model, "targets", targets);
}

/** What Engine.gradient is given. */
interface Lease extends TreeNode {
  readonly tokens: Int32Array;
  readonly targets: Int32Array;
  readonly rows: number;
  /** Where it goes to the host. */
  readonly out?: Float32Array;
}

/**
 * @returns T
 * @throws EngineError where the lease is no node of a tree, or anything else is not as Engine.gradient says
 */
export function checkLease(model: ModelConfig, maxRows: number, lease: Lease): number {
  const { first, count, tokens, targets, rows, out } = lease;
  if (!Number.isInteger(Math.log2(count)) || !(first >= 0) || first % count !== 0)
    throw new EngineError(`a lease of ${count} shards from ${first} (${nodeName(lease)}) is no node of a tree`);
  if (tokens.length % count !== 0)
    throw new EngineError(`tokens: ${tokens.length} ids do not divide into ${count} shards`);
  const T = checkTokens(model, maxRows, "tokens", tokens, rows, count);
  checkTargets(model, tokens, targets);
  if (out) checkLength("gradient", out.length, layoutOf(model).size);
  return T;
}
