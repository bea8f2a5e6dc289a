// Dropout masks on the device: Philox4x32-10 from the counter, the very numbers of shared/arithmetic/philox.ts.
import type { Program, Value } from "./program.ts";

const multipliers = [0xd2511f53, 0xcd9e8d57] as const;
const weyl = [0x9e3779b9, 0xbb67ae85] as const;

/** Where a mask stands: key and counter, all scalars of type ui32. */
export interface MaskPosition {
  readonly key: readonly [Value, Value];
  readonly step: Value;
  readonly shard: Value;
  /** Elements of the shard's mask before this one: this part of a shard is number `part` of those of this size. */
  readonly part: Value | undefined;
}

/** The four words of each of the counters (first + i, site, shard, step), i < count: (count, 4) of ui32. */
function words(p: Program, first: Value | undefined, count: number, site: number, at: MaskPosition): Value {
  const whole = (x: Value) => p.broadcast(x, [count]);
  const low = (x: Value) => p.convert(x, "ui32");
  const high = (x: Value) => p.convert(p.binary("shift_right_logical", x, 32), "ui32");
  const product = (x: Value, factor: number) => p.binary("multiply", p.convert(x, "ui64"), factor);
  const numbers = p.iota([count], 0, "ui32");
  let [x0, x1, x2, x3] = [
    first ? p.binary("add", numbers, first) : numbers,
    p.constant(site, [count], "ui32"),
    whole(at.shard),
    whole(at.step),
  ] as [Value, Value, Value, Value];
  let [k0, k1] = at.key;
  for (let round = 0; round < 10; round++) {
    const [a, b] = [product(x0, multipliers[0]), product(x2, multipliers[1])];
    const xor = (...values: [Value, Value, Value]) => p.binary("xor", p.binary("xor", values[0], values[1]), values[2]);
    [x0, x1, x2, x3] = [xor(high(b), x1, k0), low(b), xor(high(a), x3, k1), low(a)];
    [k0, k1] = [p.binary("add", k0, weyl[0]), p.binary("add", k1, weyl[1])];
  }
  return p.concatenate(
    [x0, x1, x2, x3].map((x) => p.reshape(x, [count, 1])),
    1,
  );
}

/** Factors of a dropout site: 0 with probability `rate`, else 1 / (1 - rate). See dropoutMask. */
export function mask(p: Program, rate: number, site: number, shape: readonly number[], at: MaskPosition): Value {
  const size = shape.reduce((product, n) => product * n, 1);
  // A part of a shard may begin in the middle of a counter's four words.
  const blocks = Math.ceil(size / 4) + (at.part && size % 4 > 0 ? 1 : 0);
  const start = at.part && p.binary("multiply", p.convert(at.part, "ui32"), size);
  const first = start && p.binary("divide", start, 4);
  const flat = p.reshape(words(p, first, blocks, site, at), [4 * blocks]);
  const drawn = start
    ? p.dynamicSlice(flat, [p.convert(p.binary("remainder", start, 4), "i32")], [size])
    : p.slice(flat, [[0, size]]);
  const kept = p.compare("GE", drawn, Math.floor(rate * 2 ** 32));
  return p.reshape(p.select(kept, 1 / (1 - rate), 0), shape);
}
