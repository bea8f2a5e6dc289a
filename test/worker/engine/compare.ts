// Comparison of vectors that says where they differ most, and both values.
import { expect } from "vitest";

/** Largest absolute difference of two vectors and where it is. */
export function worst(got: ArrayLike<number>, expected: ArrayLike<number>): { difference: number; text: string } {
  if (got.length !== expected.length) throw new Error(`${got.length} values, expected ${expected.length}`);
  let difference = 0;
  let index = 0;
  for (let i = 0; i < got.length; i++) {
    const d = Math.abs(got[i]! - expected[i]!);
    // A NaN on either side is the worst there is.
    if (!(d <= difference)) {
      difference = Number.isNaN(d) ? Number.POSITIVE_INFINITY : d;
      index = i;
      if (Number.isNaN(d)) break;
    }
  }
  return { difference, text: `worst at ${index}: got ${got[index]}, expected ${expected[index]}` };
}

export function expectClose(
  what: string,
  got: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
): void {
  const { difference, text } = worst(got, expected);
  expect(difference, `${what}: ${text}, tolerance ${tolerance}`).toBeLessThanOrEqual(tolerance);
}

/** The largest absolute value. */
export function largest(x: ArrayLike<number>): number {
  let result = 0;
  for (let i = 0; i < x.length; i++) result = Math.max(result, Math.abs(x[i]!));
  return result;
}
