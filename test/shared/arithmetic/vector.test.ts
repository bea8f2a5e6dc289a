// The native twins against the definition in shared/arithmetic/vector.ts, bit for bit: any length, any instruction set, any number
// of threads, from the smallest denormal to infinity. Which NaN comes out is not part of the promise, only that one does.
import { readdir } from "node:fs/promises";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { bestOps, nativeAddon, nativeOps, nativeStatus } from "../../../shared/arithmetic/native.ts";
import { type AdamWStep, scalarOps, type VectorOps } from "../../../shared/arithmetic/vector.ts";

const addon = nativeAddon();
const sets = addon?.instructionSets() ?? [];
const step: AdamWStep = {
  learningRate: 6e-4,
  beta1: 0.9,
  beta2: 0.99,
  eps: 1e-8,
  weightDecay: 0.1,
  count: 3,
  gradientScale: 0.125,
};

const specials = [0, -0, 1.4e-45, -1.4e-45, 1e-40, -1.1754942e-38, 1.1754944e-38, 3.4028235e38, -3.4028235e38, 1, -1];

/** Floats of every size, some denormal, some special, from a seed. */
function mixed(length: number, seed: number, extra: readonly number[] = []): Float32Array {
  const pool = [...specials, ...extra];
  let state = (seed | 0) + 0x6d2b79f5;
  const random = () => {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9;
    return ((state ^ (state >>> 13)) >>> 0) / 2 ** 32;
  };
  return Float32Array.from({ length }, () =>
    random() < 0.1 ? pool[Math.floor(random() * pool.length)]! : (random() - 0.5) * 2 ** Math.floor(random() * 60 - 45),
  );
}

function expectSameBits(got: Float32Array, wanted: Float32Array, what: string): void {
  const a = new Uint32Array(got.buffer, got.byteOffset, got.length);
  const b = new Uint32Array(wanted.buffer, wanted.byteOffset, wanted.length);
  const at = a.findIndex((word, i) => word !== b[i] && !(Number.isNaN(got[i]) && Number.isNaN(wanted[i])));
  expect(at, `${what}: element ${at} of ${a.length} is ${got[at]}, expected ${wanted[at]}`).toBe(-1);
}

function expectTwins(ops: VectorOps, length: number, seed: number, extra: readonly number[]): void {
  const draw = (k: number) => mixed(length, seed * 8 + k, extra);
  const sum = [draw(0), draw(0)] as const;
  ops.add(sum[0], draw(1));
  scalarOps.add(sum[1], draw(1));
  expectSameBits(sum[0], sum[1], "add");

  expect(ops.sumOfSquares(draw(2)), "sumOfSquares").toBe(scalarOps.sumOfSquares(draw(2)));
  expect(ops.digest(draw(3)), "digest").toBe(scalarOps.digest(draw(3)));

  const difference = [draw(0), draw(0)] as const;
  ops.subtract(difference[0], draw(1));
  scalarOps.subtract(difference[1], draw(1));
  expectSameBits(difference[0], difference[1], "subtract");

  const [drawn, wantedDrawn] = [new Float32Array(length), new Float32Array(length)];
  const line = { seed: 2 ** 40 + seed, purpose: 1, a: seed & 7, b: 3 };
  ops.normal(drawn, 0.02, line);
  scalarOps.normal(wantedDrawn, 0.02, line);
  expectSameBits(drawn, wantedDrawn, "normal");

  const moving = () => [draw(4), draw(5), draw(6)] as const;
  const [moved, wantedMoved] = [moving(), moving()];
  ops.nesterov(...moved, { learningRate: 0.7, momentum: 0.9, gradientScale: 0.25 });
  scalarOps.nesterov(...wantedMoved, { learningRate: 0.7, momentum: 0.9, gradientScale: 0.25 });
  for (const [i, name] of ["w", "g", "b"].entries()) expectSameBits(moved[i]!, wantedMoved[i]!, `nesterov ${name}`);

  const state = () => [draw(4), draw(5), draw(6), draw(7).map(Math.abs)] as const;
  const got = state();
  const wanted = state();
  ops.adamw(...got, step);
  scalarOps.adamw(...wanted, step);
  for (const [i, name] of ["w", "g", "m", "v"].entries()) expectSameBits(got[i]!, wanted[i]!, `adamw ${name}`);
}

if (!addon && process.env.CI) test("the native addon is there", () => expect.fail(nativeStatus().why));

describe.skipIf(!addon)(`native vector arithmetic${addon ? "" : ` (skipped: ${nativeStatus().why})`}`, () => {
  test.each(sets.flatMap((isa) => [1, 3].map((threads) => ({ isa, threads }))))(
    "$isa with $threads threads gives JavaScript's bits",
    async ({ isa, threads }) => {
      const ops = nativeOps(new addon!.Vectors(threads, isa));
      await fc.assert(
        fc.property(fc.integer({ min: 0, max: 300 }), fc.integer(), (length, seed) => {
          expectTwins(ops, length, seed, []);
        }),
        { numRuns: 60, seed: 1 },
      );
      expectTwins(ops, 3 * 65_536 + 17, 11, []);
      expectTwins(ops, 70_001, 12, [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]);
    },
  );

  test("views that start between two vectors work", () => {
    const ops = bestOps(2);
    const left = mixed(1001, 1);
    const right = mixed(1001, 2);
    const wanted = left.slice();
    scalarOps.add(wanted.subarray(3), right.subarray(1, 999));
    ops.add(left.subarray(3), right.subarray(1, 999));
    expectSameBits(left, wanted, "add");
  });

  test("200 reconnects make no new threads", async () => {
    const threads = async () => (await readdir("/proc/self/task").catch(() => [])).length;
    bestOps(3).sumOfSquares(mixed(200_000, 3));
    const before = await threads();
    for (let i = 0; i < 200; i++) bestOps(3).sumOfSquares(mixed(100, i));
    expect(await threads()).toBeLessThanOrEqual(before + 2);
    expect(bestOps(3)).toBe(bestOps(3));
    expect(bestOps(2)).not.toBe(bestOps(3));
  });

  test("Node's own arithmetic keeps its denormals", () => {
    bestOps(2).sumOfSquares(mixed(200_000, 3));
    expect(Math.fround(1e-40) * 0.5).toBeGreaterThan(0);
    expect(2 ** -1074).toBeGreaterThan(0);
  });

  // Expected values by hand from the format: 1 + 2^-8 is a tie and goes to the even 1, 1 + 3 * 2^-8 to 1 + 2^-6.
  test("bf16 rounds to nearest, ties to even, and back is exact", () => {
    const vectors = new addon!.Vectors(2, "auto");
    const cases: readonly [number, number][] = [
      [0, 0x0000],
      [-0, 0x8000],
      [1, 0x3f80],
      [1 + 2 ** -8, 0x3f80],
      [1 + 2 ** -8 + 2 ** -20, 0x3f81],
      [1 + 3 * 2 ** -8, 0x3f82],
      [-2.5, 0xc020],
      [3.4028235e38, 0x7f80],
      [Number.POSITIVE_INFINITY, 0x7f80],
      [Number.NEGATIVE_INFINITY, 0xff80],
      [1e-40, 0x0001],
      [1.4e-45, 0x0000],
    ];
    const out = new Uint16Array(cases.length);
    vectors.toBf16(
      out,
      Float32Array.from(cases, ([x]) => x),
    );
    expect([...out]).toEqual(cases.map(([, bits]) => bits));
    const back = new Float32Array(cases.length);
    vectors.fromBf16(back, out);
    expect([...new Uint32Array(back.buffer)]).toEqual(cases.map(([, bits]) => bits * 65_536));
    vectors.toBf16(out.subarray(0, 1), Float32Array.of(Number.NaN));
    expect(out[0]! & 0x7fff).toBeGreaterThan(0x7f80);
  });

  test("a wrong argument is refused before memory is touched", () => {
    const vectors = new addon!.Vectors(1, "auto");
    const x = new Float32Array(4);
    expect(() => vectors.add(x, new Float32Array(3))).toThrow("right: 3 values, expected 4");
    expect(() => vectors.add(x, new Float64Array(4) as never)).toThrow("right: expected a Float32Array");
    expect(() => vectors.add(x, undefined as never)).toThrow("right: expected a Float32Array");
    expect(() => vectors.adamw(x, x, x, x, new Float32Array(8))).toThrow("scalars: 8 values, expected 9");
    expect(() => new addon!.Vectors(0, "auto")).toThrow("threads: expected an integer from 1 to 1024");
    expect(() => new addon!.Vectors(1, "sse9")).toThrow('instruction set "sse9" does not run on this machine');
    expect(() => vectors.add.call({} as never, x, x)).toThrow();
  });
});
