// What the parts of a network share: its parameters, the operations, and one call's shape, dropout and destination.
import type { ParameterKey, Role } from "../../../shared/family/family.ts";
import type { ModelConfig } from "../../../shared/model.ts";
import type { Heads, NormSaved, Ops, Tensor } from "./ops.ts";

/** A model whose weights lie on a device. */
export interface Net {
  readonly model: ModelConfig;
  readonly ops: Ops;
  /** Parameters by their keys in the layout. */
  readonly weights: Readonly<Partial<Record<ParameterKey, Tensor>>>;
}

/** One call. */
export interface Pass {
  readonly heads: Heads;
  /** Dropout factors of a site (shared/arithmetic/philox.ts), or none. */
  mask(site: number, shape: readonly number[]): Tensor | undefined;
  /** Hand over the gradient of a parameter; the tensor is consumed. */
  emit(key: ParameterKey, gradient: Tensor): void;
  /** In generation: attention of block l from qkv (N, 3C) to (N, C) over what earlier calls left. */
  cached?(l: number, qkv: Tensor): Tensor;
}

/** x (N, I) through the linear layer `role` of (I, O) weights. */
export function linear({ ops, weights }: Net, role: Role, x: Tensor): Tensor {
  return ops.linear(x, weights[`${role}.weight`]!, weights[`${role}.bias`]);
}

/** @returns the gradient of x; x is what the forward pass was given */
export function linearBackward({ ops, weights, model }: Net, pass: Pass, role: Role, x: Tensor, d: Tensor): Tensor {
  const dy = ops.forProducts(d);
  if (model.bias) pass.emit(`${role}.bias`, ops.columnSum(dy));
  pass.emit(`${role}.weight`, ops.weightGradient(x, dy));
  return ops.matMul(dy, weights[`${role}.weight`]!, false, true);
}

export function norm({ ops, weights, model }: Net, role: Role, x: Tensor): { y: Tensor; saved: NormSaved } {
  return ops.layerNorm(x, weights[`${role}.weight`]!, weights[`${role}.bias`], model.layerNormEps);
}

export function normBackward(
  { ops, weights, model }: Net,
  pass: Pass,
  role: Role,
  saved: NormSaved,
  dy: Tensor,
): Tensor {
  const { dx, dWeight, dBias } = ops.layerNormBackward(dy, saved, weights[`${role}.weight`]!);
  pass.emit(`${role}.weight`, dWeight);
  if (model.bias) pass.emit(`${role}.bias`, dBias);
  return dx;
}

/** x times the mask, if there is one: dropout forward and backward alike. */
export function drop({ ops }: Net, x: Tensor, mask: Tensor | undefined): Tensor {
  return mask ? ops.mul(x, mask) : x;
}

export interface EntrySaved {
  /** What the product took. */
  readonly x: Tensor;
  readonly norm: NormSaved | undefined;
}

/**
 * The linear layer `role` at the entry of a branch, and the norm before it, if there is one.
 *
 * Where the operations fold norms, n = (x - mean) / deviation is all that is stored: with w, b of the norm and W, c of the
 * layer, (n w + b) W + c = n (w W) + (b W + c). Backward, with G = n^T dy and s the sum of dy's rows, what is left beside
 * products is as small as W: dW = w G + b s, dw = rowSum(W G), db = rowSum(W s).
 */
export function entry(
  net: Net,
  pass: Pass,
  role: Role,
  normRole: Role | undefined,
  x: Tensor,
): { y: Tensor; saved: EntrySaved } {
  const { ops, weights, model } = net;
  if (!normRole) return { y: linear(net, role, x), saved: { x, norm: undefined } };
  const folding = foldingOf(net, pass);
  if (!folding) {
    const { y, saved } = norm(net, normRole, x);
    return { y: linear(net, role, y), saved: { x: y, norm: saved } };
  }
  const { W, w, b } = foldedOf(net, role, normRole);
  const saved = folding.normalize(x, model.layerNormEps);
  const bias = weights[`${role}.bias`];
  const y = ops.linear(saved[0]!, ops.mul(W, w), b && bias ? ops.add(ops.columnSum(ops.mul(W, b)), bias) : undefined);
  return { y, saved: { x: saved[0]!, norm: saved } };
}

/** @returns the gradient of what `entry` was given */
export function entryBackward(
  net: Net,
  pass: Pass,
  role: Role,
  normRole: Role | undefined,
  { x, norm }: EntrySaved,
  d: Tensor,
): Tensor {
  if (!normRole) return linearBackward(net, pass, role, x, d);
  const folding = foldingOf(net, pass);
  if (!folding) return normBackward(net, pass, normRole, norm!, linearBackward(net, pass, role, x, d));
  const { ops } = net;
  const dy = ops.forProducts(d);
  const { W, w, b } = foldedOf(net, role, normRole);
  const G = ops.weightGradient(x, dy);
  pass.emit(`${normRole}.weight`, folding.rowSum(ops.mul(W, G)));
  const scaled = ops.mul(G, w);
  if (b) {
    const s = ops.columnSum(dy);
    pass.emit(`${normRole}.bias`, folding.rowSum(ops.mul(W, s)));
    pass.emit(`${role}.weight`, ops.add(scaled, ops.mul(b, s)));
    pass.emit(`${role}.bias`, s);
  } else pass.emit(`${role}.weight`, scaled);
  return folding.normalizeBackward(ops.matMul(dy, ops.mul(W, w), false, true), norm!);
}

/** In generation every token would fold anew. */
const foldingOf = ({ ops }: Net, pass: Pass): Ops["folding"] => (pass.cached ? undefined : ops.folding);

/** W (I, O); w and b, of the norm, (I, 1). */
function foldedOf({ ops, weights }: Net, role: Role, normRole: Role): { W: Tensor; w: Tensor; b: Tensor | undefined } {
  const column = (x: Tensor) => ops.reshape(x, [...x.shape, 1]);
  const b = weights[`${normRole}.bias`];
  return { W: weights[`${role}.weight`]!, w: column(weights[`${normRole}.weight`]!), b: b && column(b) };
}
