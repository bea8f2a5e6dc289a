// Small wires: what a vector becomes when it travels in fewer bits, and stays the same bits wherever it is computed.
//
//   const codec = bestCodec("int8");                  // or float32, bf16, int4
//   codec.round(sum, at);                             // a node's value, in worker, relay and coordinator alike
//   codec.encode(bytes, sum, at);                     // bytes.length === codec.bytes(sum.length)
//   codec.decode(vector, bytes);                      // the bits of `sum` after round()
//   codec.roundCarrying(update, carried, at);         // updates down: what rounding lost is carried into the next
//
// The rule that keeps the bits: every node of the tree is rounded as soon as it is summed, whether it travels or not.
// Rounding twice is rounding once, so that whoever holds a rounded value may encode it again. A vector may be worked on
// in pieces that begin at multiples of `blockSize` elements (`at.first`): block k stands at byte k * codec.bytes(256).
//
// bf16 rounds up or down by chance, without bias: element i adds the 16-bit half i % 8 (low half of a word first) of
// Philox's counter (floor(i / 8) low, high, node, step), under the key of (seed, stream.codec), to its lower 16 bits
// and drops them; it never leaves the finite. int8 and int4 share one scale among 256 elements: the largest magnitude
// over 127 or 7, rounded up to 17 significant bits (down at the end of the range), so that every product with it is exact; rounded to the nearest, ties
// to even. A block whose magnitudes are all below 2^-100 becomes zeros, one with a value that is not finite becomes NaN.
// This is the definition; the native core has vectorised twins (codec.cpp) with the same bits on every instruction set.
import { ProtocolError } from "../errors.ts";
import { keyOf, philox, stream } from "./philox.ts";
import type { NodeRounding } from "./tree.ts";
import type { VectorOps } from "./vector.ts";

export const wireFormats = ["float32", "bf16", "int8", "int4"] as const;
export type WireFormat = (typeof wireFormats)[number];

/** Elements that share a scale. */
export const blockSize = 256;

/** What, beside the values, decides how they are rounded. */
export interface CodecPosition {
  readonly seed: number;
  /** Of the run, or round. */
  readonly step: number;
  /** uint32: of the tree, the root 1 and the children of n 2n and 2n + 1 (`heapIndex`); 0 is free for updates down. */
  readonly node: number;
  /** Index of the first element in the whole vector, a multiple of 256. Default: 0. */
  readonly first?: number;
}

/** The number of a node in a tree over `units` units, as CodecPosition wants it. */
export const heapIndex = ({ first, count }: { first: number; count: number }, units: number): number =>
  units / count + first / count;

/** What the nodes of a step's tree over `units` units become; undefined where the format keeps every bit. */
export function nodeRounding(
  codec: Codec,
  { seed, step, units }: { seed: number; step: number; units: number },
): NodeRounding | undefined {
  if (codec.format === "float32") return undefined;
  return (node, sum, first = 0) => codec.round(sum, { seed, step, node: heapIndex(node, units), first });
}

/** [first, first + length) of a vector. */
export interface Stretch {
  readonly first: number;
  readonly length: number;
  readonly codec: Codec;
}

export interface Codec {
  readonly format: WireFormat;
  /** Bytes of n encoded values. */
  bytes(n: number): number;
  /** Each value becomes what the other side of the wire would see. */
  round(x: Float32Array, at: CodecPosition): void;
  /** @param out bytes(x.length) */
  encode(out: Uint8Array, x: Float32Array, at: CodecPosition): void;
  /** Of one whose vectors have stretches in formats of their own: one after another, the first (P). */
  readonly stretches?: readonly Stretch[];
  /** @throws ProtocolError where there are not bytes(out.length) bytes */
  decode(out: Float32Array, bytes: Uint8Array): void;
  /**
   * Error feedback (Seide et al. 2014; Karimireddy et al. 2019, arXiv:1901.09847): rounds x + carried in place, and
   * carried becomes what that lost. Both (n).
   */
  roundCarrying(x: Float32Array, carried: Float32Array, at: CodecPosition): void;
}

/** The work of a codec, scalar here and vectorised in the native core. Lengths have been checked. */
export interface CodecKernels {
  /** words: key0, key1, node, step, floor(first / 8) low and high */
  roundBf16(x: Float32Array, words: Uint32Array): void;
  encodeBf16(out: Uint8Array, x: Float32Array, words: Uint32Array): void;
  decodeBf16(out: Float32Array, bytes: Uint8Array): void;
  roundBlocks(x: Float32Array, bits: number): void;
  encodeBlocks(out: Uint8Array, x: Float32Array, bits: number): void;
  decodeBlocks(out: Float32Array, bytes: Uint8Array, bits: number): void;
}

function wordsOf({ seed, step, node, first = 0 }: CodecPosition): Uint32Array {
  if (first % blockSize !== 0) throw new Error(`a codec works on whole blocks of ${blockSize}, not from ${first} on`);
  const counter = first / 8;
  return Uint32Array.of(...keyOf(seed, stream.codec), node, step, counter, Math.floor(counter / 2 ** 32));
}

/** A format over these kernels; `bestCodec` (native.ts) takes the fastest here. */
export function codecOver(format: WireFormat, kernels: CodecKernels, ops: VectorOps): Codec {
  const { bytes, round, encode, decode } = formatOver(format, kernels);
  const check = (n: number, got: number): void => {
    if (got !== bytes(n))
      throw new ProtocolError(`${n.toLocaleString("en")} values in ${format}: ${got} bytes, expected ${bytes(n)}`);
  };
  return {
    format,
    bytes,
    round,
    encode(out, x, at) {
      check(x.length, out.length);
      encode(out, x, at);
    },
    decode(out, from) {
      check(out.length, from.length);
      decode(out, from);
    },
    roundCarrying(x, carried, at) {
      ops.add(x, carried);
      carried.set(x);
      round(x, at);
      ops.subtract(carried, x);
    },
  };
}

/**
 * Of what a run's workers are sent and give: `vectors` times P. Behind the first come moments: they lose their small
 * values in blocks that share a scale, and travel in bf16 where the wire is smaller.
 */
export function codecOf(wire: WireFormat, vectors: number, P: number, codecs: (format: WireFormat) => Codec): Codec {
  const codec = codecs(wire);
  if (wire === "float32" || vectors === 1) return codec;
  const stretches = Array.from({ length: vectors }, (_, i) => ({
    first: i * P,
    length: P,
    codec: i === 0 ? codec : codecs("bf16"),
  }));
  const padded = Math.ceil(P / blockSize) * blockSize;
  return {
    ...codec,
    stretches,
    bytes: () => stretches.reduce((sum, each) => sum + each.codec.bytes(each.length), 0),
    round(x, at) {
      const { first: from = 0 } = at;
      for (const [i, { first, length, codec }] of stretches.entries()) {
        const [start, end] = [Math.max(from, first), Math.min(from + x.length, first + length)];
        // Each draws its own numbers.
        if (start < end)
          codec.round(x.subarray(start - from, end - from), { ...at, first: i * padded + start - first });
      }
    },
  };
}

export const stretchesOf = (codec: Codec, length: number): readonly Stretch[] =>
  codec.stretches ?? [{ first: 0, length, codec }];

function formatOver(format: WireFormat, kernels: CodecKernels): Pick<Codec, "bytes" | "round" | "encode" | "decode"> {
  if (format === "float32")
    return {
      bytes: (n) => 4 * n,
      round: () => {},
      encode: (out, x) => out.set(new Uint8Array(x.buffer, x.byteOffset, x.byteLength)),
      decode: (out, bytes) => new Uint8Array(out.buffer, out.byteOffset, out.byteLength).set(bytes),
    };
  if (format === "bf16")
    return {
      bytes: (n) => 2 * n,
      round: (x, at) => kernels.roundBf16(x, wordsOf(at)),
      encode: (out, x, at) => kernels.encodeBf16(out, x, wordsOf(at)),
      decode: (out, bytes) => kernels.decodeBf16(out, bytes),
    };
  const bits = format === "int8" ? 8 : 4;
  return {
    bytes: (n) => 4 * Math.ceil(n / blockSize) + Math.ceil((n * bits) / 8),
    round: (x) => kernels.roundBlocks(x, bits),
    encode: (out, x) => kernels.encodeBlocks(out, x, bits),
    decode: (out, bytes) => kernels.decodeBlocks(out, bytes, bits),
  };
}

// ---- the definition ----

const bitsOf = (x: Float32Array): Uint32Array => new Uint32Array(x.buffer, x.byteOffset, x.length);

/** Upper 16 bits of each value, rounded by chance. */
function* halves(x: Float32Array, words: Uint32Array): Generator<number> {
  const [key0, key1, node, step, low, high] = words as unknown as [number, number, number, number, number, number];
  const bits = bitsOf(x);
  const random = new Uint32Array(4);
  for (let i = 0; i < bits.length; i++) {
    if (i % 8 === 0) {
      const counter = low + i / 8;
      philox(random, counter, high + Math.floor(counter / 2 ** 32), node, step, key0, key1);
    }
    const half = (random[(i % 8) >> 1]! >>> (i % 2 === 0 ? 0 : 16)) & 0xffff;
    const word = bits[i]!;
    const magnitude = word & 0x7fffffff;
    if (magnitude > 0x7f800000)
      yield ((word | 0x400000) >>> 16) & 0xffff; // a NaN stays one
    else if (magnitude >= 0x7f7f0000)
      yield word >>> 16; // infinity, and what could become it
    else yield ((word + half) >>> 16) & 0xffff;
  }
}

function roundBf16(x: Float32Array, words: Uint32Array): void {
  const bits = bitsOf(x);
  let i = 0;
  for (const half of halves(x, words)) bits[i++] = half * 65_536;
}

function encodeBf16(out: Uint8Array, x: Float32Array, words: Uint32Array): void {
  let i = 0;
  for (const half of halves(x, words)) {
    out[i++] = half;
    out[i++] = half >>> 8;
  }
}

function decodeBf16(out: Float32Array, bytes: Uint8Array): void {
  const bits = bitsOf(out);
  for (let i = 0; i < bits.length; i++) bits[i] = (bytes[2 * i]! | (bytes[2 * i + 1]! << 8)) * 65_536;
}

const tiniest = 2 ** -100;
const magic = 12_582_912; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits

/** The scale of up to 256 values; NaN where one is not finite. */
function scaleOf(block: Float32Array, levels: number): number {
  let largest = 0;
  for (const x of block) {
    if (!Number.isFinite(x)) return Number.NaN;
    largest = Math.max(largest, Math.abs(x));
  }
  if (largest < tiniest) return 0;
  const scale = Float32Array.of(largest / levels);
  const word = bitsOf(scale);
  word[0] = ((word[0]! + 127) & ~127) >>> 0;
  // Up, but not beyond the largest float.
  if (Math.fround(scale[0]! * levels) === Number.POSITIVE_INFINITY) word[0] -= 128;
  return scale[0]!;
}

/** Which multiple of the scale x is nearest to. */
function quantum(x: number, scale: number): number {
  if (!(scale > 0)) return 0;
  return Math.fround(Math.fround(Math.fround(x / scale) + magic) - magic) | 0;
}

/** Calls `each` with every block of x, its scale, and its first byte in the encoding. */
function eachBlock(x: Float32Array, bits: number, each: (block: Float32Array, at: number) => void): void {
  const whole = 4 + (blockSize * bits) / 8;
  for (let from = 0; from < x.length; from += blockSize)
    each(x.subarray(from, Math.min(x.length, from + blockSize)), (from / blockSize) * whole);
}

const levelsOf = (bits: number): number => 2 ** (bits - 1) - 1;

function roundBlocks(x: Float32Array, bits: number): void {
  eachBlock(x, bits, (block) => {
    const scale = scaleOf(block, levelsOf(bits));
    for (let i = 0; i < block.length; i++) block[i] = quantum(block[i]!, scale) * scale;
  });
}

function encodeBlocks(out: Uint8Array, x: Float32Array, bits: number): void {
  const view = new DataView(out.buffer, out.byteOffset, out.byteLength);
  eachBlock(x, bits, (block, at) => {
    const scale = scaleOf(block, levelsOf(bits));
    view.setFloat32(at, scale, true);
    for (let i = 0; i < block.length; i++) {
      const q = quantum(block[i]!, scale);
      if (bits === 8) out[at + 4 + i] = q;
      else if (i % 2 === 0) out[at + 4 + i / 2] = q & 15;
      else out[at + 4 + (i - 1) / 2]! |= (q & 15) << 4;
    }
  });
}

function decodeBlocks(out: Float32Array, bytes: Uint8Array, bits: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  eachBlock(out, bits, (block, at) => {
    const scale = view.getFloat32(at, true);
    for (let i = 0; i < block.length; i++) {
      const byte = bits === 8 ? bytes[at + 4 + i]! << 24 : bytes[at + 4 + (i >> 1)]! << (i % 2 === 0 ? 28 : 24);
      block[i] = (byte >> (32 - bits)) * scale;
    }
  });
}

/** The definition, on every machine. */
export const scalarCodec: CodecKernels = {
  roundBf16,
  encodeBf16,
  decodeBf16,
  roundBlocks,
  encodeBlocks,
  decodeBlocks,
};
