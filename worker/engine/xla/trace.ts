// The programs of a model: the one description in engine/model/ read with symbolic operations. Weights and gradients are
// one flat vector each, as everywhere else in Weft.
import type { ParameterKey } from "../../../shared/family/family.ts";
import { layoutOf } from "../../../shared/family/layout.ts";
import type { ModelConfig } from "../../../shared/model.ts";
import * as network from "../model/model.ts";
import type { Net, Pass } from "../model/net.ts";
import { type MaskPosition, mask } from "./dropout.ts";
import { type Lowering, symbolicOps } from "./ops.ts";
import { type Argument, Program, type Value } from "./program.ts";

export interface Traced extends Lowering {
  readonly model: ModelConfig;
  readonly recompute: boolean;
}

/** Activations of one pass, as width times layers times tokens, that a device holds without trouble. */
const passSize = 2 ** 28;

/**
 * Rows of a shard that are computed in one pass, a divisor of `rows`; their gradients are added one pass after another.
 * From the model alone: whatever a machine's memory is, the bits are the same.
 */
export function rowsPerPass({ nEmbd, nLayer, vocabSize, family }: ModelConfig, rows: number, T: number): number {
  const perRow = T * (family === "bigram" ? vocabSize : nEmbd * nLayer);
  let most = Math.min(rows, Math.max(1, Math.floor(passSize / perRow)));
  while (rows % most > 0) most--;
  return most;
}

export const weightsOf = (model: ModelConfig): Argument => ({ shape: [layoutOf(model).size], type: "f32" });
const idsOf = (rows: number, T: number): Argument => ({ shape: [rows * T], type: "i32" });

/** The parameters, cut out of the flat vector. */
export function netOf(p: Program, traced: Traced, flat: Value): Net {
  const { model } = traced;
  const weights = layoutOf(model).parameters.map(({ key, offset, size, shape }) => [
    key,
    p.reshape(p.slice(flat, [[offset, offset + size]]), shape),
  ]);
  return { model, ops: symbolicOps(p, traced), weights: Object.fromEntries(weights) as Net["weights"] };
}

export function headsOf({ nHead: H, nEmbd }: ModelConfig, B: number, T: number): Pass["heads"] {
  return { B, T, H, D: H === 0 ? 0 : nEmbd / H };
}

/** A pass without dropout and gradients. */
export function reading(model: ModelConfig, B: number, T: number): Pass {
  const emit = (name: string): never => {
    throw new Error(`a gradient of ${name} from a forward pass`);
  };
  return { heads: headsOf(model, B, T), mask: () => undefined, emit };
}

/**
 * One shard. (P) weights, (rows * T) tokens, targets, (4) of ui32: dropout key, step, shard
 * -> (rows * T) losses, (P) gradient of their mean
 */
export function gradientProgram(traced: Traced, rows: number, T: number): string {
  const { model } = traced;
  const B = rowsPerPass(model, rows, T);
  const args: Argument[] = [weightsOf(model), idsOf(rows, T), idsOf(rows, T), { shape: [4], type: "ui32" }];
  return Program.write(args, (p, weights, tokens, targets, position) => {
    if (B === rows) return onePass(p, traced, [weights!, tokens!, targets!, position!], B, T, undefined);
    const passes = rows / B;
    const losses = p.constant(0, [rows * T]);
    const sum = p.constant(0, weights!.shape);
    return p.loop(passes, [weights!, tokens!, targets!, position!], [losses, sum], (i, fixed, [before, total]) => {
      const [w, ids, wanted, at] = fixed as [Value, Value, Value, Value];
      const first = p.binary("multiply", i, B * T);
      const part = (x: Value) => p.dynamicSlice(x, [first], [B * T]);
      const [lossesHere, gradient] = onePass(p, traced, [w, part(ids), part(wanted), at], B, T, i);
      return [
        p.dynamicUpdate(before!, lossesHere, [first]),
        p.binary("add", total!, p.binary("multiply", gradient, 1 / passes)),
      ];
    });
  });
}

/** @param part which pass of the shard, where there are several */
function onePass(
  p: Program,
  traced: Traced,
  [weights, tokens, targets, position]: readonly [Value, Value, Value, Value],
  B: number,
  T: number,
  part: Value | undefined,
): [Value, Value] {
  const { model } = traced;
  const [key0, key1, step, shard] = [0, 1, 2, 3].map((i) => p.element(position, i)) as [Value, Value, Value, Value];
  const at: MaskPosition = { key: [key0, key1], step, shard, part };
  const losses: Value[] = [];
  const gradients = new Map<ParameterKey, Value>();
  const pass: Pass = {
    heads: headsOf(model, B, T),
    mask: (site, shape) => (model.dropout > 0 ? mask(p, model.dropout, site, shape, at) : undefined),
    emit: (key, gradient) => {
      gradients.set(key, gradient as Value);
    },
  };
  network.gradient(netOf(p, traced, weights), pass, tokens, targets, traced.recompute, (x) => losses.push(x as Value));
  return [p.concatenate(losses, 0), flatten(p, model, gradients)];
}

/** Elements that are put together by one kernel at least: it asks of each which parameter it is of. */
const stretchSize = 2 ** 22;

/** The flat vector (P) of all gradients. */
function flatten(p: Program, model: ModelConfig, gradients: ReadonlyMap<ParameterKey, Value>): Value {
  const { parameters, size } = layoutOf(model);
  let flat = p.constant(0, [size]);
  let parts: Value[] = [];
  let start = 0;
  for (const { key, offset, size: count } of parameters) {
    parts.push(p.reshape(gradients.get(key)!, [count]));
    const end = offset + count;
    if (end - start < stretchSize && end < size) continue;
    flat = p.dynamicUpdate(flat, p.concatenate(parts, 0), [p.constant(start, [], "i32")]);
    [parts, start] = [[], end];
  }
  return flat;
}

/** Calls `each` with the logits of every slice of positions. @returns what it makes of them, one after another */
function eachLogits(
  net: Net,
  [rows, T]: readonly [number, number],
  tokens: Value,
  each: (logits: Value, from: number, count: number) => Value,
): Value[] {
  const parts: Value[] = [];
  network.logits(net, reading(net.model, rows, T), tokens, (logits, from, count) => {
    parts.push(each(logits as Value, from, count));
  });
  return parts;
}

/** (P) weights, (rows * T) tokens, targets -> (rows * T) losses */
export function lossesProgram(traced: Traced, rows: number, T: number): string {
  const args = [weightsOf(traced.model), idsOf(rows, T), idsOf(rows, T)];
  return Program.write(args, (p, weights, tokens, targets) => {
    const net = netOf(p, traced, weights!);
    const parts = eachLogits(net, [rows, T], tokens!, (logits, from, count) => {
      return net.ops.crossEntropy(logits, targets!.subarray(from, from + count), 1).losses as Value;
    });
    return [p.concatenate(parts, 0)];
  });
}

/** (P) weights, (rows * T) tokens -> (rows * T, V) */
export function logitsProgram(traced: Traced, rows: number, T: number): string {
  return Program.write([weightsOf(traced.model), idsOf(rows, T)], (p, weights, tokens) => {
    return [
      p.concatenate(
        eachLogits(netOf(p, traced, weights!), [rows, T], tokens!, (logits) => logits),
        0,
      ),
    ];
  });
}

/** (P) weights, (rows * T) tokens -> (rows * T, C): what enters the head */
export function hiddenProgram(traced: Traced, rows: number, T: number): string {
  return Program.write([weightsOf(traced.model), idsOf(rows, T)], (p, weights, tokens) => {
    return [network.hidden(netOf(p, traced, weights!), reading(traced.model, rows, T), tokens!) as Value];
  });
}

/** Vectors of these sizes -> one, in which they follow one another */
export function joinProgram(sizes: readonly number[]): string {
  return Program.write(
    sizes.map((size) => ({ shape: [size], type: "f32" })),
    (p, ...parts) => [p.concatenate(parts, 0)],
  );
}

/** (P) left, (P) right -> (P) left + right, in left's memory */
export function sumProgram(model: ModelConfig): string {
  const { shape, type } = weightsOf(model);
  return Program.write(
    [
      { shape, type, becomes: 0 },
      { shape, type },
    ],
    (p, left, right) => [p.binary("add", left!, right!)],
  );
}
