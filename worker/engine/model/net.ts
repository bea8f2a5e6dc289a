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
export function linearBackward({ ops, weights, model }: Net, pass: Pass, role: Role, x: Tensor, dy: Tensor): Tensor {
  if (model.bias) pass.emit(`${role}.bias`, ops.columnSum(dy));
  pass.emit(`${role}.weight`, ops.matMul(x, dy, true, false));
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
