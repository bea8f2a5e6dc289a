import fc from "fast-check";
import { expect, test } from "vitest";
import { heapIndex, wireFormats } from "../../../shared/arithmetic/codec.ts";
import { bestCodec } from "../../../shared/arithmetic/native.ts";
import { type NodeRounding, type TreeNode, TreeSum, VectorPool } from "../../../shared/arithmetic/tree.ts";
import { scalarOps } from "../../../shared/arithmetic/vector.ts";

/** The definition: a node's value is left + right in float32, rounded as the wire wants it. */
function reference(leaves: Float32Array[], first: number, count: number, round: NodeRounding): Float32Array {
  const half = count / 2;
  let value: Float32Array;
  if (count === 1) value = leaves[first]!.slice();
  else {
    const left = reference(leaves, first, half, round);
    const right = reference(leaves, first + half, half, round);
    value = left.map((x, i) => Math.fround(x + right[i]!));
  }
  round({ first, count }, value);
  return value;
}

test.each(wireFormats)(
  "any partition into nodes, in any order of arrival, gives the bits of the definition: %s",
  async (format) => {
    const codec = bestCodec(format);
    await fc.assert(
      fc.property(fc.integer({ min: 0, max: 4 }), fc.integer(), (depth, seed) => {
        const count = 2 ** depth;
        let state = seed >>> 0;
        const random = () => {
          state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
          return state / 2 ** 32;
        };
        const leaves = Array.from({ length: count }, () =>
          Float32Array.from({ length: 5 }, () => (random() - 0.5) * 10 ** (8 * random() - 4)),
        );
        const nodes: TreeNode[] = [];
        const cut = (first: number, size: number): void => {
          if (size === 1 || random() < 0.3) nodes.push({ first, count: size });
          else {
            cut(first, size / 2);
            cut(first + size / 2, size / 2);
          }
        };
        cut(0, count);
        const round: NodeRounding = (node, value) =>
          codec.round(value, { seed: 3, step: 1, node: heapIndex(node, count) });
        nodes.sort(() => random() - 0.5);

        const pool = new VectorPool(5);
        const sum = new TreeSum({ first: 0, count }, pool, scalarOps, round);
        for (const node of nodes) {
          const vector = pool.take();
          vector.set(reference(leaves, node.first, node.count, round));
          sum.add(node, vector);
        }
        expect(sum.take()).toEqual(reference(leaves, 0, count, round));
      }),
    );
  },
);

test("a sum that lacks a part says which parts it has", () => {
  const pool = new VectorPool(1);
  const sum = new TreeSum({ first: 0, count: 4 }, pool, scalarOps);
  sum.add({ first: 0, count: 2 }, pool.take());
  sum.add({ first: 3, count: 1 }, pool.take());
  expect(() => sum.take()).toThrow("the sum is not whole: it holds 0-1, 3 of 0-3");
});

test("a lease's own tree has its root where the lease begins", () => {
  const pool = new VectorPool(1);
  const sum = new TreeSum({ first: 6, count: 2 }, pool, scalarOps);
  for (const [first, value] of [
    [7, 2],
    [6, 1],
  ] as const) {
    const vector = pool.take();
    vector[0] = value;
    sum.add({ first, count: 1 }, vector);
  }
  expect([...sum.take()]).toEqual([3]);
});
