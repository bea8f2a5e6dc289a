// AdamW on the device, for local training: the arithmetic of shared/arithmetic/vector.ts, bit for bit. Compilers contract a
// product and the sum behind it into one operation with one rounding; what keeps them from it is said below.
import { squaresChunk } from "../../../shared/arithmetic/vector.ts";
import { decayStretches, layoutOf } from "../../../shared/family/layout.ts";
import type { ModelConfig } from "../../../shared/model.ts";
import { Program, type Value } from "./program.ts";
import { weightsOf } from "./trace.ts";

/** Rows of lanes that one turn of a loop adds. */
const rowsPerTurn = 64;
const lanes = 8;

/** (P) -> sums of squares of its chunks, float64. VectorOps.sumOfSquares is their sum, one after another. */
export function squaresProgram(model: ModelConfig): string {
  const { shape, type } = weightsOf(model);
  const chunks = Math.ceil(shape[0]! / squaresChunk);
  const rows = squaresChunk / lanes;
  return Program.write([{ shape, type }], (p, x) => {
    const add = (a: Value, b: Value) => p.binary("add", a, b);
    const whole = p.reshape(p.pad(x!, chunks * squaresChunk), [chunks, rows, lanes]);
    const nothing = p.constant(0, [chunks, lanes], "f64");
    const [sums] = p.loop(rows / rowsPerTurn, [whole], [nothing], (i, [all], [before]) => {
      const zero = p.constant(0, [], "i32");
      const at = [zero, p.binary("multiply", i, rowsPerTurn), zero];
      const part = p.convert(p.dynamicSlice(all!, at, [chunks, rowsPerTurn, lanes]), "f64");
      const squares = p.binary("multiply", part, part);
      let sum = before!;
      for (let row = 0; row < rowsPerTurn; row++) {
        const ranges = [
          [0, chunks],
          [row, row + 1],
        ] as const;
        sum = add(sum, p.reshape(p.slice(squares, ranges), [chunks, lanes]));
      }
      return [sum];
    });
    const lane = (i: number) => {
      const ranges = [
        [0, chunks],
        [i, i + 1],
      ] as const;
      return p.reshape(p.slice(sums!, ranges), [chunks]);
    };
    const pair = (i: number) => add(lane(i), lane(i + 4));
    return [add(add(pair(0), pair(2)), add(pair(1), pair(3)))];
  });
}

/** -> (P) whether an element's weight decays */
export function decayProgram(model: ModelConfig): string {
  return Program.write([], (p) => {
    const parts = decayStretches(layoutOf(model)).map(({ size, decay }) => p.constant(decay ? 1 : 0, [size], "i1"));
    return [p.concatenate(parts, 0)];
  });
}

/**
 * (P) weights, m, v, all in place; (P) sum of gradients, (P) of decayProgram, (9) of adamwScalars for those that decay,
 * (1) of ui32: zero
 * -> weights, m, v
 */
export function updateProgram(model: ModelConfig): string {
  const { shape, type } = weightsOf(model);
  const state = [0, 1, 2].map((becomes) => ({ shape, type, becomes }));
  const read = [
    { shape, type },
    { shape, type: "i1" },
    { shape: [9], type },
    { shape: [1], type: "ui32" },
  ] as const;
  return Program.write([...state, ...read], (p, weights, m, v, sum, decays, scalars, zero) => {
    const at = (i: number) => p.element(scalars!, i);
    const add = (a: Value, b: Value) => p.binary("add", a, b);
    const nothing = { f32: p.element(zero!, 0), f64: p.convert(p.element(zero!, 0), "ui64") };
    /** x: no compiler knows that it is, and so none takes what comes before and after it together. */
    const alone = (x: Value) => {
      const type = x.type as "f32" | "f64";
      return p.bits(p.binary("xor", p.bits(x, type === "f32" ? "ui32" : "ui64"), nothing[type]), type);
    };
    const mul = (a: Value, b: Value) => alone(p.binary("multiply", a, b));
    const gradient = mul(sum!, at(0));
    const nextM = add(mul(m!, at(1)), mul(gradient, at(2)));
    const nextV = add(mul(v!, at(3)), mul(mul(gradient, gradient), at(4)));
    /**
     * A float64 result as float32. On a GPU XLA's float32 division and root are not IEEE's (PTX div.full, sqrt.approx);
     * float64 is, and so long that to round twice is to round once. Alone, lest LLVM make float32 of it again.
     */
    const exact = (result: Value) => alone(p.convert(alone(result), "f32"));
    const long = (x: Value) => p.convert(x, "f64");
    const spread = add(mul(exact(p.unary("sqrt", long(nextV))), at(7)), at(8));
    const change = mul(exact(p.binary("divide", long(nextM), long(spread))), at(6));
    const kept = mul(weights!, p.select(decays!, at(5), 1));
    return [p.binary("subtract", kept, change), nextM, nextV];
  });
}
