// Chance from a seed: the same world for the same number.

/** In [0, 1). */
export type Random = () => number;

/** mulberry32 (Tommy Ettinger, public domain): small, and good enough to draw faults. */
export function randomFrom(seed: number): Random {
  let state = (seed * 0x9e3779b1) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export const between = (random: Random, low: number, high: number): number => low + random() * (high - low);
export const whole = (random: Random, low: number, high: number): number => Math.floor(between(random, low, high + 1));
export const oneOf = <T>(random: Random, values: readonly T[]): T => values[Math.floor(random() * values.length)]!;
