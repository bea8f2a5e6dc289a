// Elementary functions of our own, where their values reach the weights: V8's and libm's differ between versions and
// machines in the last bit, IEEE's + - * / and square root do not. Errors stated are the largest seen against 60 digits
// (test/shared/arithmetic/functions.test.ts); nothing may be fused or reordered. Twins: log_of, cos_turns in
// worker/engine/native/core/functions.h, the same bits.

const number = new Float64Array(1);
const words = new Uint32Array(number.buffer); // little-endian: [low, high], as every machine that Node runs on

/** ln 2 in two parts: products of the first with exponents are exact. */
const ln2High = 0.6931471803691238;
const ln2Low = 1.9082149292705877e-10;

/** base^n for an integer n >= 0, by repeated squaring; relative error below n * 2^-52. */
export function power(base: number, n: number): number {
  let result = 1;
  let square = base;
  for (let rest = n; rest > 0; rest = Math.floor(rest / 2)) {
    if (rest % 2 === 1) result *= square;
    square *= square;
  }
  return result;
}

/** Natural logarithm of a normal positive number: 2 atanh((m - 1) / (m + 1)) by its series, + e ln 2; within 2 ulp. */
export function logOf(x: number): number {
  number[0] = x;
  const high = words[1]!;
  let exponent = (high >>> 20) - 1023;
  words[1] = (high & 0xfffff) | 0x3ff00000;
  let m = number[0]!; // [1, 2)
  if (m > Math.SQRT2) {
    m *= 0.5;
    exponent += 1;
  }
  const s = (m - 1) / (m + 1);
  const z = s * s;
  let p = 2 / 23;
  p = p * z + 2 / 21;
  p = p * z + 2 / 19;
  p = p * z + 2 / 17;
  p = p * z + 2 / 15;
  p = p * z + 2 / 13;
  p = p * z + 2 / 11;
  p = p * z + 2 / 9;
  p = p * z + 2 / 7;
  p = p * z + 2 / 5;
  p = p * z + 2 / 3;
  return exponent * ln2High + (exponent * ln2Low + (2 * s + s * (z * p)));
}

/** cos(2 pi v) for v in [0, 1]: exact reduction to an eighth of a turn, then Taylor's series; within 2^-52. */
export function cosTurns(v: number): number {
  const quarter = Math.floor(4 * v + 0.5);
  const r = (v - quarter * 0.25) * 6.283185307179586;
  const z = r * r;
  let c = -1 / 6402373705728000;
  c = c * z + 1 / 20922789888000;
  c = c * z - 1 / 87178291200;
  c = c * z + 1 / 479001600;
  c = c * z - 1 / 3628800;
  c = c * z + 1 / 40320;
  c = c * z - 1 / 720;
  c = c * z + 1 / 24;
  c = c * z - 0.5;
  c = c * z + 1;
  let s = 1 / 355687428096000;
  s = s * z - 1 / 1307674368000;
  s = s * z + 1 / 6227020800;
  s = s * z - 1 / 39916800;
  s = s * z + 1 / 362880;
  s = s * z - 1 / 5040;
  s = s * z + 1 / 120;
  s = s * z - 1 / 6;
  s = s * z + 1;
  const value = quarter % 2 === 1 ? r * s : c;
  return (quarter + 1) & 2 ? -value : value;
}

/** e^x for |x| <= 700: 2^k times Taylor's series of the rest; within 2 ulp. */
export function expOf(x: number): number {
  const k = Math.floor(x * Math.LOG2E + 0.5);
  const r = x - k * ln2High - k * ln2Low;
  let p = 1 / 87178291200;
  p = p * r + 1 / 6227020800;
  p = p * r + 1 / 479001600;
  p = p * r + 1 / 39916800;
  p = p * r + 1 / 3628800;
  p = p * r + 1 / 362880;
  p = p * r + 1 / 40320;
  p = p * r + 1 / 5040;
  p = p * r + 1 / 720;
  p = p * r + 1 / 120;
  p = p * r + 1 / 24;
  p = p * r + 1 / 6;
  p = p * r + 0.5;
  p = p * r + 1;
  p = p * r + 1;
  words[0] = 0;
  words[1] = (1023 + k) << 20;
  return p * number[0]!;
}
