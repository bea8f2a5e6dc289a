// The small wires against their own promises, and the native twins against the definition, bit for bit.
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type Codec,
  type CodecKernels,
  type CodecPosition,
  codecOver,
  heapIndex,
  scalarCodec,
  type WireFormat,
  wireFormats,
} from "../../../shared/arithmetic/codec.ts";
import { bestCodec, nativeAddon, nativeStatus } from "../../../shared/arithmetic/native.ts";
import { PhiloxStream } from "../../../shared/arithmetic/philox.ts";
import { scalarOps } from "../../../shared/arithmetic/vector.ts";
import { testWhere } from "../../where.ts";

const addon = nativeAddon();
const sets = addon?.instructionSets() ?? [];
const testNative = testWhere(addon !== undefined, `the native engine: ${nativeStatus().why}`);

const at: CodecPosition = { seed: 2 ** 40 + 7, step: 12, node: 5 };
const scalar = (format: WireFormat): Codec => codecOver(format, scalarCodec, scalarOps);

/** Values of every size, with zeros, denormals, the largest, and what is asked for beside. */
function mixed(length: number, seed: number, extra: readonly number[] = []): Float32Array {
  const random = new PhiloxStream(seed >>> 0, 77);
  const specials = [0, -0, 1.4e-45, -1e-40, 3.4028235e38, -3.4028235e38, 3.3895314e38, 2 ** -100, 7.8e-31, 1, ...extra];
  const size = 2 ** (random.below(60) - 30);
  return Float32Array.from({ length }, () =>
    random.below(12) === 0 ? specials[random.below(specials.length)]! : size * (random.uniform() - 0.5),
  );
}

const words = (x: Float32Array): Uint32Array => new Uint32Array(x.buffer, x.byteOffset, x.length);

function expectSameBits(got: Float32Array, wanted: Float32Array, what: string): void {
  const [a, b] = [words(got), words(wanted)];
  const i = a.findIndex((word, k) => word !== b[k]);
  expect(i, `${what}: element ${i} of ${a.length} is ${got[i]}, expected ${wanted[i]}`).toBe(-1);
}

function encoded(codec: Codec, x: Float32Array, position = at): Uint8Array {
  const bytes = new Uint8Array(codec.bytes(x.length)).fill(255);
  codec.encode(bytes, x, position);
  return bytes;
}

function decoded(codec: Codec, bytes: Uint8Array, length: number): Float32Array {
  const out = new Float32Array(length).fill(Number.NaN);
  codec.decode(out, bytes);
  return out;
}

const rounded = (codec: Codec, x: Float32Array, position = at): Float32Array => {
  const out = x.slice();
  codec.round(out, position);
  return out;
};

/** Lengths around blocks and registers, any seed. */
const vectors = fc.record({
  length: fc.oneof(fc.integer({ min: 0, max: 700 }), fc.constantFrom(255, 256, 257, 512, 513)),
  seed: fc.nat(),
});
const nonFinite = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];

describe.each(wireFormats)("%s", (format) => {
  const codec = scalar(format);

  test("what arrives is what the sender's own copy becomes, and rounding again changes nothing", async () => {
    await fc.assert(
      fc.property(vectors, fc.boolean(), ({ length, seed }, wild) => {
        const x = mixed(length, seed, wild ? nonFinite : []);
        const own = rounded(codec, x);
        expectSameBits(decoded(codec, encoded(codec, x), length), own, "decoded");
        expectSameBits(rounded(codec, own, { ...at, node: 2 }), own, "rounded twice");
        expectSameBits(decoded(codec, encoded(codec, own, { ...at, step: 1 }), length), own, "sent on");
      }),
      { numRuns: 150, seed: 3 },
    );
  });

  test("pieces that begin at whole blocks are the same as the whole", () => {
    const x = mixed(1500, 4);
    const whole = encoded(codec, x);
    for (const [from, to] of [
      [0, 256],
      [256, 1024],
      [1024, 1500],
    ] as const) {
      const piece = encoded(codec, x.subarray(from, to), { ...at, first: from });
      expect(piece).toEqual(whole.subarray(codec.bytes(from), codec.bytes(to)));
      expectSameBits(decoded(codec, piece, to - from), rounded(codec, x).subarray(from, to), `${from} to ${to}`);
    }
  });

  test("what is not finite stays to be seen", () => {
    for (const value of nonFinite) {
      const x = mixed(300, 5);
      x[299] = value;
      expect(Number.isFinite(rounded(codec, x)[299])).toBe(false);
      expect(Number.isFinite(scalarOps.sumOfSquares(rounded(codec, x)))).toBe(false);
    }
  });

  test("error feedback loses nothing: what was applied and what is carried add up to all that was given", () => {
    const random = new PhiloxStream(6, 77);
    const carried = new Float32Array(300);
    const applied = new Float64Array(300);
    const given = new Float64Array(300);
    for (let step = 0; step < 50; step++) {
      const x = Float32Array.from({ length: 300 }, () => random.normal() * 0.01);
      for (const [i, value] of x.entries()) given[i]! += value;
      codec.roundCarrying(x, carried, { ...at, step, node: 0 });
      for (const [i, value] of x.entries()) applied[i]! += value;
    }
    const worst = Math.max(...given.map((g, i) => Math.abs(g - applied[i]! - carried[i]!)));
    expect(worst).toBeLessThan(1e-7);
    expect(Math.max(...carried.map(Math.abs))).toBeLessThan(0.01);
  });

  test("a wrong number of bytes is refused", () => {
    expect(() => codec.decode(new Float32Array(300), new Uint8Array(codec.bytes(300) - 1))).toThrow(
      `300 values in ${format}: ${codec.bytes(300) - 1} bytes, expected ${codec.bytes(300)}`,
    );
    expect(() => codec.encode(new Uint8Array(3), new Float32Array(300), at)).toThrow("3 bytes, expected");
  });

  test.each(sets.map((isa, i) => ({ isa, threads: 1 + (i % 3) })))(
    "$isa with $threads threads gives the definition's bits",
    async ({ isa, threads }) => {
      const twin = codecOver(format, new addon!.Vectors(threads, isa), scalarOps);
      const compare = (length: number, seed: number, extra: readonly number[], position: CodecPosition) => {
        const x = mixed(length, seed, extra);
        expectSameBits(rounded(twin, x, position), rounded(codec, x, position), "round");
        const bytes = encoded(codec, x, position);
        expect(encoded(twin, x, position)).toEqual(bytes);
        expectSameBits(decoded(twin, bytes, length), decoded(codec, bytes, length), "decode");
      };
      await fc.assert(
        fc.property(vectors, fc.nat({ max: 2 ** 31 }), fc.boolean(), ({ length, seed }, node, wild) => {
          compare(length, seed, wild ? nonFinite : [], { ...at, node, first: (seed % 9) * 256 });
        }),
        { numRuns: 25, seed: 5 },
      );
      compare(2 * 16_384 + 77, 8, [], at);
      // Where the counter's low word wraps in the middle of a register.
      compare(1000, 9, [], { ...at, first: 2 ** 35 - 512 });
    },
  );
});

test("bytes on the wire", () => {
  const bytes = (n: number) => wireFormats.map((format) => scalar(format).bytes(n));
  expect(bytes(256)).toEqual([1024, 512, 260, 132]);
  expect(bytes(257)).toEqual([1028, 514, 265, 137]);
  expect(bytes(124_439_808)).toEqual([497_759_232, 248_879_616, 126_384_180, 64_164_276]);
});

// By hand: scale 127 / 127 = 1; of 4 bits 7 / 7 = 1.
test("blocks take the largest magnitude as their scale and round to the nearest, ties to even", () => {
  const x = Float32Array.of(127, -127, 0.5, 1.5, -0.5, -2.5, 3.49, -0.49);
  const int8 = encoded(scalar("int8"), x);
  expect([...int8]).toEqual([0, 0, 128, 63, 127, 129, 0, 2, 0, 254, 3, 0]);
  expect([...rounded(scalar("int8"), x)]).toEqual([127, -127, 0, 2, 0, -2, 3, 0]);
  const y = Float32Array.of(7, -7, 0.5, 1.5, -0.5, -2.5, 3.49);
  expect([...encoded(scalar("int4"), y)]).toEqual([0, 0, 128, 63, 0x97, 0x20, 0xe0, 0x03]);
  expect([...rounded(scalar("int4"), y)]).toEqual([7, -7, 0, 2, 0, -2, 3]);
});

test("a block's error is at most half a step of its scale", () => {
  for (const [format, levels] of [
    ["int8", 127],
    ["int4", 7],
  ] as const) {
    const x = Float32Array.from(mixed(4096, 10)).map((v) => Math.max(-1, Math.min(1, v)));
    const y = rounded(scalar(format), x);
    for (let from = 0; from < 4096; from += 256) {
      const largest = Math.max(...x.subarray(from, from + 256).map(Math.abs));
      for (let i = from; i < from + 256; i++)
        expect(Math.abs(x[i]! - y[i]!)).toBeLessThanOrEqual((largest / levels / 2) * (1 + 2 ** -15) + 2 ** -100);
    }
  }
});

test("bf16 rounds up as often as a value is near to the upper one, and never from a value that it has", () => {
  const codec = bestCodec("bf16");
  const n = 65_536;
  for (const share of [0.125, 0.5, 0.9]) {
    const low = 1;
    const x = new Float32Array(n).fill(low + share * 2 ** -7);
    const y = rounded(codec, x);
    const ups = y.reduce((sum, v) => sum + (v > low ? 1 : 0), 0) / n;
    expect(Math.abs(ups - share)).toBeLessThan(5 * Math.sqrt((share * (1 - share)) / n));
    expect(new Set(y)).toEqual(new Set([low, low + 2 ** -7]));
  }
  // Another node, step or seed draws other numbers; the same ones draw the same.
  const x = new Float32Array(1000).fill(1 + 2 ** -8);
  const draws = [at, { ...at, node: 6 }, { ...at, step: 13 }, { ...at, seed: 1 }, { ...at, first: 1024 }];
  expect(new Set(draws.map((position) => rounded(codec, x, position).join())).size).toBe(draws.length);
});

test("nodes of a tree are numbered as in a heap", () => {
  expect(heapIndex({ first: 0, count: 8 }, 8)).toBe(1);
  expect([0, 4].map((first) => heapIndex({ first, count: 4 }, 8))).toEqual([2, 3]);
  expect([0, 1, 7].map((first) => heapIndex({ first, count: 1 }, 8))).toEqual([8, 9, 15]);
});

testNative("wrong arguments are refused before memory is touched", () => {
  const kernels: CodecKernels = new addon!.Vectors(1, "auto");
  const x = new Float32Array(10);
  expect(() => kernels.roundBf16(x, new Uint32Array(5))).toThrow("words: 5 values, expected 6");
  expect(() => kernels.encodeBf16(new Uint8Array(19), x, new Uint32Array(6))).toThrow("out: 19 values, expected 20");
  expect(() => kernels.roundBlocks(x, 5)).toThrow("bits: expected 4 or 8");
  expect(() => kernels.encodeBlocks(new Uint8Array(13), x, 8)).toThrow("out: 13 values, expected 14");
  expect(() => kernels.decodeBlocks(x, new Uint8Array(8), 4)).toThrow("bytes: 8 values, expected 9");
  expect(() => bestCodec("bf16").round(x, { ...at, first: 3 })).toThrow("whole blocks of 256, not from 3 on");
});
