import { expect, test } from "vitest";
import { dropoutMask, PhiloxStream, philox, stream } from "../../../shared/arithmetic/philox.ts";

// Known answers of the authors' own distribution (Random123, kat_vectors: philox 4x32 10 rounds).
test.each([
  [
    [0, 0, 0, 0],
    [0, 0],
    [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
  ],
  [Array(4).fill(0xffffffff), Array(2).fill(0xffffffff), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]],
  [
    [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
    [0xa4093822, 0x299f31d0],
    [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
  ],
])("counter %j under key %j gives the published words", (counter, key, words) => {
  const out = new Uint32Array(4);
  philox(out, ...(counter as [number, number, number, number]), ...(key as [number, number]));
  expect([...out]).toEqual(words);
});

test("a normal stream has mean 0 and deviation 1", () => {
  const random = new PhiloxStream(1337, stream.init);
  const draws = Array.from({ length: 20_000 }, () => random.normal());
  const mean = draws.reduce((a, b) => a + b) / draws.length;
  const variance = draws.reduce((a, b) => a + (b - mean) ** 2, 0) / draws.length;
  expect(Math.abs(mean)).toBeLessThan(0.03);
  expect(Math.abs(variance - 1)).toBeLessThan(0.05);
});

// Numbers of the same generator and formulas in CPython.
test("normal numbers go on beyond 2^32 words and 2^32 counters, and none comes twice", () => {
  const seed = 2 ** 40 + 3;
  const from = (first: number, count: number) => {
    const random = new PhiloxStream(seed, stream.init, 7, 0, first);
    return Array.from({ length: count }, () => Math.fround(0.02 * random.normal()));
  };
  expect(from(0, 3)).toEqual([-0.00690826028585434, -0.01578003168106079, -0.007880807854235172]);
  expect(from(2 ** 32 - 4, 3)).toEqual([0.01881919428706169, 0.022925276309251785, -0.007698361296206713]);
  expect(from(4 * (2 ** 32 - 2), 4)).toEqual([
    -0.006121358834207058, 0.020871981978416443, -0.00890171155333519, -0.010484492406249046,
  ]);
});

test("a dropout mask keeps 1 - p, scales what it keeps, and differs by site, shard and step", () => {
  const draw = (site: number, shard: number, step: number) => {
    const out = new Float32Array(10_001);
    dropoutMask(out, 0.2, { seed: 1, step, shard, site });
    return out;
  };
  const mask = draw(1, 2, 3);
  const kept = mask.filter((x) => x !== 0).length / mask.length;
  expect(Math.abs(kept - 0.8)).toBeLessThan(0.02);
  expect(new Set(mask)).toEqual(new Set([0, 1.25]));
  expect(draw(1, 2, 3)).toEqual(mask);
  for (const other of [draw(0, 2, 3), draw(1, 0, 3), draw(1, 2, 4)]) expect(other).not.toEqual(mask);
});
