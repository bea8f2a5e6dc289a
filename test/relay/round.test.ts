// What a relay sends upwards before it has the whole: the bits of the whole, however the vectors below arrive.
import { expect, test } from "vitest";
import { LeasedRound } from "../../relay/round.ts";
import { codecOf, nodeRounding, wireFormats } from "../../shared/arithmetic/codec.ts";
import { bestCodec, bestOps } from "../../shared/arithmetic/native.ts";
import { TreeSum, VectorPool } from "../../shared/arithmetic/tree.ts";
import { frameEnds } from "../../shared/wire/frame.ts";
import type { LeaseMessage } from "../../shared/wire/protocol.ts";
import type { Assignment, GrowingVector } from "../../worker/task/task.ts";

const P = 2 ** 19 + 300;
const [first, count, units] = [4, 4, 8];
const order = { round: "gradient", step: 7, units, first, count, rows: 1, windows: count } as LeaseMessage;

test.each(wireFormats.flatMap((wire) => [[wire, 1] as const, [wire, 3] as const]))(
  "%s, %d vectors: frames leave as soon as their part of every vector is there",
  (wire, vectors) => {
    const codec = codecOf(wire, vectors, P, bestCodec);
    const length = vectors * P;
    const pool = new VectorPool(length);
    const rounding = nodeRounding(codec, { seed: 3, step: 7, units });
    const leaf = (unit: number) => {
      const vector = Float32Array.from({ length }, (_, i) => Math.sin(i * (unit + 1)) / (1 + (i % 7)));
      rounding?.({ first: first + unit, count: 1 }, vector);
      return vector;
    };
    const leaves = [0, 1, 2, 3].map(leaf);
    const whole = new TreeSum({ first, count }, pool, bestOps(), rounding);
    for (const [unit, vector] of leaves.entries()) whole.add({ first: first + unit, count: 1 }, vector.slice());
    const expected = whole.take();

    let growing: GrowingVector | undefined;
    const assignment = {
      order,
      pool,
      round: rounding,
      send: (vector: GrowingVector) => (growing = vector),
      progress: () => {},
    } as unknown as Assignment;
    const round = new LeasedRound(assignment, bestOps(), codec);
    const ends = frameEnds(length, codec);
    const uploadOf = (unit: number) => ({
      node: { first: unit, count: 1 },
      vector: leaves[unit]!.slice(),
      known: 0,
      isOver: false,
    });
    const comes = (upload: ReturnType<typeof uploadOf>, known: number) => {
      upload.known = known;
      round.arrives(upload.node, upload);
    };
    const isTaken = (upload: ReturnType<typeof uploadOf>) => {
      upload.isOver = true;
      round.take(upload.node, [1], upload.vector);
    };
    const [a, b, c, d] = [0, 1, 2, 3].map(uploadOf);
    const sent = (end: number) =>
      expect(
        Buffer.from(growing!.values.buffer, growing!.values.byteOffset, 4 * end).equals(
          Buffer.from(expected.buffer, 0, 4 * end),
        ),
      ).toBe(true);
    comes(a!, length);
    isTaken(a!);
    comes(b!, ends[0]!);
    comes(c!, ends[0]!);
    expect(growing).toBeUndefined();
    comes(d!, ends[0]!);
    if (ends.length > 1) sent(ends[0]!);
    else expect(growing).toBeUndefined();
    // One that has gone takes its memory with it; another gives the same from the beginning.
    b!.isOver = true;
    b!.vector.fill(9);
    const again = uploadOf(1);
    for (const end of ends) {
      comes(c!, end);
      comes(d!, end);
    }
    for (const end of ends) comes(again, end);
    if (ends.length > 1) sent(ends.at(-2)!);
    for (const upload of [c!, again, d!]) isTaken(upload);
    const { vector, isSent = false } = round.outcome();
    expect(isSent).toBe(ends.length > 1);
    expect(Buffer.from(vector!.buffer).equals(Buffer.from(expected.buffer))).toBe(true);
    expect(round.kept).toEqual([]);
  },
);

test("the beginning of an answer that did not count is not sent on as if it did", () => {
  const codec = codecOf("float32", 1, P, bestCodec);
  const pool = new VectorPool(P);
  let growing: GrowingVector | undefined;
  const send = (vector: GrowingVector) => (growing = vector);
  const one = { ...order, count: 1, windows: 1 };
  const assignment = { order: one, pool, send, progress: () => {} } as unknown as Assignment;
  const round = new LeasedRound(assignment, bestOps(), codec);
  const [end] = frameEnds(P, codec);
  const node = { first: 0, count: 1 };
  const wrong = { vector: pool.take().fill(1000), known: end!, isOver: false };
  round.arrives(node, wrong);
  expect(growing!.values[0]).toBe(1000);
  expect(round.hasBegun).toBe(true);
  wrong.isOver = true;
  pool.give(wrong.vector);
  round.take(node, [1], pool.take().fill(1));
  expect(() => round.outcome()).toThrow(/of an answer that did not count/);
  round.giveUp();
  // All of it is back: two vectors were enough.
  expect(new Set([pool.take(), pool.take()]).has(wrong.vector)).toBe(true);
});
