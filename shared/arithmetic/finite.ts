// NaN and infinity have no place in weights, logits or losses: whoever reads or computes numbers for people looks first.

/** Index of the first element that is NaN or infinite, -1 where there is none. */
export function firstNonFinite(x: Float32Array): number {
  // x - x is 0 for every finite number and NaN for all others; a block without one is the rule.
  for (let start = 0; start < x.length; start += 4096) {
    const end = Math.min(start + 4096, x.length);
    let sum = 0;
    for (let i = start; i < end; i++) sum += x[i]! - x[i]!;
    if (sum === 0) continue;
    for (let i = start; i < end; i++) if (!Number.isFinite(x[i]!)) return i;
  }
  return -1;
}
