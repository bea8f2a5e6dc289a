import { expect, test } from "vitest";
import { densityTable, geluExact, phiTable } from "../../../worker/engine/tfjs/wasm/normal.ts";

// Published values of the distribution function (Abramowitz & Stegun, table 26.1, with more digits).
test.each([
  [0, 0.5],
  [0.5, 0.6914624612740131],
  [1, 0.84134474606854293],
  [2, 0.97724986805182079],
  [3.5, 0.99976737092096446],
  [-3, 1.3498980316300946e-3],
  [-5, 2.8665157187919391e-7],
  [-7, 1.279812543885835e-12],
])("Phi(%f) = %f", (x, expected) => {
  expect(Math.abs(phiTable[(x + 8) * 64]! - expected) / expected).toBeLessThan(1e-13);
});

test("gelu and its slope are right to float32 between the nodes", () => {
  const density = (x: number) => Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);
  // From the node below by Simpson's rule over 64 stretches: an error below 1e-16.
  const phi = (x: number) => {
    const node = Math.floor((x + 8) * 64);
    const a = node / 64 - 8;
    const h = (x - a) / 128;
    let sum = 0;
    for (let i = 0; i < 64; i++)
      sum += density(a + 2 * i * h) + 4 * density(a + (2 * i + 1) * h) + density(a + (2 * i + 2) * h);
    return phiTable[node]! + (sum * h) / 3;
  };
  const x = Float32Array.from({ length: 20_000 }, (_, i) => -7.99 + i * 0.00079901);
  const y = new Float32Array(x.length);
  const slope = new Float32Array(x.length);
  geluExact(x, y, slope);
  let worstValue = 0;
  let worstSlope = 0;
  x.forEach((v, i) => {
    worstValue = Math.max(worstValue, Math.abs(y[i]! - v * phi(v)) / Math.max(1, Math.abs(v)));
    worstSlope = Math.max(worstSlope, Math.abs(slope[i]! - (phi(v) + v * density(v))));
  });
  expect(worstValue).toBeLessThan(6.1e-8);
  expect(worstSlope).toBeLessThan(6.1e-8);
});

test("the ends, zero and NaN", () => {
  const x = Float32Array.of(8, 100, Number.POSITIVE_INFINITY, -8, -100, Number.NEGATIVE_INFINITY, 0, Number.NaN);
  const y = new Float32Array(8);
  const slope = new Float32Array(8);
  geluExact(x, y, slope);
  expect([...y]).toEqual([8, 100, Number.POSITIVE_INFINITY, 0, 0, 0, 0, Number.NaN]);
  expect([...slope]).toEqual([1, 1, 1, 0, 0, 0, 0.5, Number.NaN]);
  expect(densityTable[8 * 64]).toBeCloseTo(0.3989422804014327, 15);
});
