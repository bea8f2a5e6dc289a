// Whether memory grows: what V8 and malloc keep for later comes in leaps, a leak grows all the time.
import { expect } from "vitest";

/** @param bytes resident, after equal amounts of work */
export function expectNoGrowth(bytes: readonly number[]): void {
  const growth = bytes.slice(1).map((now, i) => (now - bytes[i]!) / 2 ** 20);
  expect(Math.min(...growth), `MiB of growth in each part: ${growth.map(Math.round)}`).toBeLessThan(4);
}
