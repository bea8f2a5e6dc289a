// Arithmetic over whole flat vectors, for the sum, the optimizer and the digest. This is the definition, in JavaScript;
// the native core has vectorised twins that give the same bits (test/shared/arithmetic/vector.test.ts). Every operation is one
// IEEE float32 operation unless it says float64; nothing is fused.

import { createHash } from "node:crypto";
import { power } from "./functions.ts";
import { keyOf, PhiloxStream } from "./philox.ts";

export interface AdamWStep {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  /** 1-based count of updates, for the bias corrections. */
  readonly count: number;
  /** The gradient is multiplied by this first: the clip factor over the number of shards. */
  readonly gradientScale: number;
}

export interface NesterovStep {
  readonly learningRate: number;
  readonly momentum: number;
  /** The gradient is multiplied by this first: one over the number of units. */
  readonly gradientScale: number;
}

/** A line of random numbers: PhiloxStream(seed, purpose, a, b). */
export interface RandomLine {
  readonly seed: number;
  readonly purpose: number;
  readonly a: number;
  readonly b: number;
}

export interface VectorOps {
  readonly name: string;
  /** left += right, element by element. */
  add(left: Float32Array, right: Float32Array): void;
  /** Sum of squares in float64, in a fixed order; NaN or infinity if any element is not finite. */
  sumOfSquares(x: Float32Array): number;
  /**
   * AdamW (Loshchilov & Hutter 2019, algorithm 2, as torch.optim.AdamW orders it) over one stretch:
   *   g *= scale; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g g
   *   w = w (1 - lr decay) - (lr / (1 - b1^t)) * (m / (sqrt(v) * (1 / sqrt(1 - b2^t)) + eps))
   * The scalars are computed in float64 and rounded to float32 once. All (n), w, m and v updated in place.
   */
  adamw(w: Float32Array, g: Float32Array, m: Float32Array, v: Float32Array, step: AdamWStep): void;
  /**
   * Momentum as torch.optim.SGD(nesterov=True) has it: g *= scale; b = mu b + g; w = w - lr (g + mu b). All (n), w and
   * b updated in place.
   */
  nesterov(w: Float32Array, g: Float32Array, b: Float32Array, step: NesterovStep): void;
  /** out[i] = deviation * the line's normal number i, rounded to float32 once. */
  normal(out: Float32Array, deviation: number, line: RandomLine): void;
  /** left -= right, element by element. */
  subtract(left: Float32Array, right: Float32Array): void;
  /** 32 hexadecimal digits that name the bits of x; see `digestOf`. */
  digest(x: Float32Array): string;
}

/** Elements summed before the partial sums are folded: threads of the native twin take whole chunks. */
export const squaresChunk = 65_536;

function add(left: Float32Array, right: Float32Array): void {
  const n = left.length;
  const whole = n - (n % 4);
  let i = 0;
  for (; i < whole; i += 4) {
    left[i]! += right[i]!;
    left[i + 1]! += right[i + 1]!;
    left[i + 2]! += right[i + 2]!;
    left[i + 3]! += right[i + 3]!;
  }
  for (; i < n; i++) left[i]! += right[i]!;
}

function normal(out: Float32Array, deviation: number, { seed, purpose, a, b }: RandomLine): void {
  const random = new PhiloxStream(seed, purpose, a, b);
  for (let i = 0; i < out.length; i++) out[i] = deviation * random.normal();
}

/** What the native twin takes of a line. */
export const lineWords = ({ seed, purpose, a, b }: RandomLine): Uint32Array =>
  Uint32Array.of(...keyOf(seed, purpose), a, b);

function subtract(left: Float32Array, right: Float32Array): void {
  for (let i = 0; i < left.length; i++) left[i]! -= right[i]!;
}

/**
 * Chunks of 65,536 elements in order; in a chunk element i goes to float64 lane i % 8, and the lanes fold as
 * ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)). The product of two float32 is exact in float64, so a fused multiply-add
 * gives the same bits.
 */
function sumOfSquares(x: Float32Array): number {
  let total = 0;
  for (let start = 0; start < x.length; start += squaresChunk) {
    const end = Math.min(start + squaresChunk, x.length);
    let [a, b, c, d, e, f, g, h] = [0, 0, 0, 0, 0, 0, 0, 0];
    let i = start;
    for (; i + 8 <= end; i += 8) {
      a += x[i]! * x[i]!;
      b += x[i + 1]! * x[i + 1]!;
      c += x[i + 2]! * x[i + 2]!;
      d += x[i + 3]! * x[i + 3]!;
      e += x[i + 4]! * x[i + 4]!;
      f += x[i + 5]! * x[i + 5]!;
      g += x[i + 6]! * x[i + 6]!;
      h += x[i + 7]! * x[i + 7]!;
    }
    const tail = [a, b, c, d, e, f, g, h];
    for (let lane = 0; i < end; i++, lane++) tail[lane]! += x[i]! * x[i]!;
    total += tail[0]! + tail[4]! + (tail[2]! + tail[6]!) + (tail[1]! + tail[5]! + (tail[3]! + tail[7]!));
  }
  return total;
}

/** The float32 scalars of one AdamW step, computed in float64 and rounded once: both twins take them from here. */
export function adamwScalars(step: AdamWStep): Float32Array {
  return Float32Array.of(
    step.gradientScale,
    step.beta1,
    1 - step.beta1,
    step.beta2,
    1 - step.beta2,
    1 - step.learningRate * step.weightDecay,
    step.learningRate / (1 - power(step.beta1, step.count)),
    1 / Math.sqrt(1 - power(step.beta2, step.count)),
    step.eps,
  );
}

function adamw(w: Float32Array, g: Float32Array, m: Float32Array, v: Float32Array, step: AdamWStep): void {
  const round = Math.fround;
  const scalars = adamwScalars(step);
  const scale = scalars[0]!;
  const beta1 = scalars[1]!;
  const rest1 = scalars[2]!;
  const beta2 = scalars[3]!;
  const rest2 = scalars[4]!;
  const keep = scalars[5]!;
  const stepSize = scalars[6]!;
  const correction2 = scalars[7]!;
  const eps = scalars[8]!;
  for (let i = 0; i < w.length; i++) {
    const gi = round(g[i]! * scale);
    const mi = round(round(beta1 * m[i]!) + round(rest1 * gi));
    const vi = round(round(beta2 * v[i]!) + round(rest2 * round(gi * gi)));
    const denominator = round(round(round(Math.sqrt(vi)) * correction2) + eps);
    m[i] = mi;
    v[i] = vi;
    w[i] = round(round(w[i]! * keep) - round(stepSize * round(mi / denominator)));
  }
}

/** The float32 scalars of a NesterovStep. */
export const nesterovScalars = (step: NesterovStep): Float32Array =>
  Float32Array.of(step.gradientScale, step.momentum, step.learningRate);

function nesterov(w: Float32Array, g: Float32Array, b: Float32Array, step: NesterovStep): void {
  const round = Math.fround;
  const [scale, momentum, learningRate] = nesterovScalars(step) as unknown as [number, number, number];
  for (let i = 0; i < w.length; i++) {
    const gi = round(g[i]! * scale);
    const bi = round(round(momentum * b[i]!) + gi);
    b[i] = bi;
    w[i] = round(w[i]! - round(learningRate * round(gi + round(momentum * bi))));
  }
}

const prime1 = 0x9e3779b1;
const prime2 = 0x85ebca77;

/**
 * Fingerprint of a vector's bits: word i (little-endian uint32) feeds lane i % 16 by xxHash32's round,
 * h = rotl(h + w * P2, 13) * P1, from h = P1 * (lane + 1); the digest is the first 16 bytes of the SHA-256 of the 16
 * lanes followed by the number of words as uint64. Sixteen lanes are one AVX-512 register: memory speed, and every
 * single-word change is seen for certain. Against forgery use the SHA-256 in the manifest.
 */
export function digestOf(x: Float32Array): string {
  const words = new Uint32Array(x.buffer, x.byteOffset, x.length);
  const lanes = new Uint32Array(16);
  for (let lane = 0; lane < 16; lane++) lanes[lane] = Math.imul(prime1, lane + 1);
  const whole = words.length - (words.length % 16);
  for (let lane = 0; lane < 16; lane += 4) {
    let a = lanes[lane]! | 0;
    let b = lanes[lane + 1]! | 0;
    let c = lanes[lane + 2]! | 0;
    let d = lanes[lane + 3]! | 0;
    for (let i = lane; i < whole; i += 16) {
      a = (a + Math.imul(words[i]!, prime2)) | 0;
      a = Math.imul((a << 13) | (a >>> 19), prime1);
      b = (b + Math.imul(words[i + 1]!, prime2)) | 0;
      b = Math.imul((b << 13) | (b >>> 19), prime1);
      c = (c + Math.imul(words[i + 2]!, prime2)) | 0;
      c = Math.imul((c << 13) | (c >>> 19), prime1);
      d = (d + Math.imul(words[i + 3]!, prime2)) | 0;
      d = Math.imul((d << 13) | (d >>> 19), prime1);
    }
    lanes[lane] = a;
    lanes[lane + 1] = b;
    lanes[lane + 2] = c;
    lanes[lane + 3] = d;
  }
  for (let i = whole; i < words.length; i++) {
    const h = (lanes[i % 16]! + Math.imul(words[i]!, prime2)) | 0;
    lanes[i % 16] = Math.imul((h << 13) | (h >>> 19), prime1);
  }
  return finishDigest(lanes, words.length);
}

/** The last step of `digestOf`, shared with the native twin, which returns its 16 lanes. */
export function finishDigest(lanes: Uint32Array, words: number): string {
  const bytes = new DataView(new ArrayBuffer(72));
  lanes.forEach((lane, i) => {
    bytes.setUint32(4 * i, lane, true);
  });
  bytes.setBigUint64(64, BigInt(words), true);
  return createHash("sha256").update(new Uint8Array(bytes.buffer)).digest("hex").slice(0, 32);
}

/** The definition, on every machine. */
export const scalarOps: VectorOps = {
  name: "javascript",
  add,
  subtract,
  sumOfSquares,
  adamw,
  nesterov,
  normal,
  digest: digestOf,
};
