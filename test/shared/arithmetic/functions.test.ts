// Against values rounded from 60 digits (mpmath 1.2.1), and against V8's own functions where those are good to an ulp.
// The digests hold the very bits, as CPython computes the same formulas and draws: another machine, Node or compiler that gives others must be seen here.
import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { cosTurns, expOf, logOf, power } from "../../../shared/arithmetic/functions.ts";
import { PhiloxStream } from "../../../shared/arithmetic/philox.ts";

/** Distance to the neighbouring float64. */
function ulp(x: number): number {
  const word = new BigUint64Array(Float64Array.of(Math.abs(x)).buffer);
  word[0]!++;
  return new Float64Array(word.buffer)[0]! - Math.abs(x);
}

const draws = (count: number): number[] => {
  const random = new PhiloxStream(11, 77);
  return Array.from({ length: count }, () => random.uniform());
};
const digest = (values: readonly number[]): string =>
  createHash("sha256")
    .update(new Uint8Array(Float64Array.from(values).buffer))
    .digest("hex")
    .slice(0, 16);

test.each([
  [1e-16, -36.841361487904734],
  [1.1102230246251565e-16, -36.7368005696771],
  [0.1, -Math.LN10],
  [0.5, -Math.LN2],
  [0.7071067811865475, -0.34657359027997275],
  [0.7071067811865477, -0.3465735902799724],
  [0.9999999, -1.0000000494736474e-7],
  [0.9999999999999999, -1.1102230246251565e-16],
  [1, 0],
  [2, Math.LN2],
  [65, 4.174387269895637],
  [50_257, 10.82490511970208],
  [3e300, 691.8741401868818],
])("log %d is %d to 2 ulp", (x, wanted) => {
  expect(Math.abs(logOf(x) - wanted)).toBeLessThanOrEqual(2 * ulp(wanted));
});

test.each([
  [0, 1],
  [0.03, 0.9822872507286887],
  [0.125, Math.SQRT1_2],
  [0.1250001, 0.7071063368981141],
  [0.2, 0.30901699437494734],
  [0.25, 0],
  [0.3, -0.30901699437494734],
  [0.375, -Math.SQRT1_2],
  [0.5, -1],
  [0.61, -0.7705132427757893],
  [0.75, 0],
  [0.8751, 0.7075509298738509],
  [0.99, 0.9980267284282716],
  [1, 1],
])("cos of %d turns is %d to 2^-52", (v, wanted) => {
  expect(Math.abs(cosTurns(v) - wanted)).toBeLessThanOrEqual(2 ** -52);
});

test.each([
  [0, 1],
  [-1e-9, 0.999999999],
  [-0.3, 0.7408182206817179],
  [-1, 0.36787944117144233],
  [-5.5, 0.004086771438464067],
  [-32, 1.2664165549094176e-14],
  [1, Math.E],
  [88, 1.6516362549940018e38],
  [-700, 9.85967654375977e-305],
])("e^%d is %d to 2 ulp", (x, wanted) => {
  expect(Math.abs(expOf(x) - wanted)).toBeLessThanOrEqual(2 * ulp(wanted));
});

test.each([
  [0.9, 0, 1],
  [0.9, 1, 0.9],
  [0.9, 7, 0.4782969000000001],
  [0.95, 1000, 5.2918227477448005e-23],
  [0.99, 100, 0.3660323412732292],
  [0.999, 100_000, 3.5385276883431275e-44],
])("%d^%d is %d", (base, n, wanted) => {
  expect(Math.abs(power(base, n) - wanted)).toBeLessThanOrEqual(n * 2 ** -52 * wanted);
});

test("all agree with V8's over 20,000 draws, and give these bits", () => {
  const u = draws(20_000).map((x) => x || 0.5);
  const near = (mine: number, theirs: number, what: string, error = 3 * ulp(theirs)) =>
    expect(Math.abs(mine - theirs), what).toBeLessThanOrEqual(error);
  for (const x of u) {
    near(logOf(x), Math.log(x), `log ${x}`);
    near(cosTurns(x), Math.cos(2 * Math.PI * x), `cos ${x} turns`, 2 ** -50);
    near(expOf(-32 * x), Math.exp(-32 * x), `exp ${-32 * x}`);
  }
  expect([u.map(logOf), u.map(cosTurns), u.map((x) => expOf(-32 * x))].map(digest)).toEqual([
    "95e31f2c25b34c9f",
    "0631cd1d9fc8369e",
    "91e98e054e877ff3",
  ]);
});
