// Room for vectors on their way in: whoever sends what, in whatever order, the sum becomes whole in the least room.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { roomFor, type Sender, type Upload, Uploads } from "../../../coordinator/crew/uploads.ts";
import { type TreeNode, TreeSum, VectorPool } from "../../../shared/arithmetic/tree.ts";
import { scalarOps } from "../../../shared/arithmetic/vector.ts";

/** A round of `units` whose nodes are sent by senders that each send one after another. */
function gather(units: number, first: number, lines: readonly (readonly TreeNode[])[], turn: (open: number) => number) {
  const pool = new VectorPool(1);
  const uploads = new Uploads(pool, () => 0, 0);
  const sum = new TreeSum({ first: 0, count: units }, pool, scalarOps);
  const done = new Set<number>();
  const missing = () => {
    let unit = 0;
    while (done.has(unit)) unit++;
    return first + unit;
  };
  const kept = () => sum.nodes.map((node) => ({ first: node.first + first, count: node.count }));
  uploads.gathering = { first, units, kept, missing };
  let waits = 0;
  const queues = lines.map((line) => [...line]);
  const open: { upload: Upload; node: TreeNode; queue: TreeNode[] }[] = [];
  const begin = (queue: TreeNode[]): void => {
    const node = queue.shift();
    if (!node) return;
    const sender: Sender = {
      ...node,
      holdsUp: () => false,
      again: () => enter(),
      giveWay: () => {},
    };
    const enter = () => {
      const upload = uploads.begin(sender);
      if (!upload) waits++;
      else open.push({ upload, node, queue });
    };
    enter();
  };
  for (const queue of queues) begin(queue);
  while (open.length > 0) {
    const [{ upload, node, queue }] = open.splice(turn(open.length), 1) as [(typeof open)[number]];
    sum.add({ first: node.first - first, count: node.count }, uploads.finish(upload));
    for (let unit = node.first; unit < node.first + node.count; unit++) done.add(unit - first);
    begin(queue);
    uploads.look();
  }
  return { done: done.size, peak: uploads.peak, waits };
}

test("one worker that takes half of what is left each time never waits", () => {
  const halves = [0, 16, 8, 4, 2, 1].map((first) => ({ first, count: Math.max(1, first) }));
  expect(gather(32, 0, [halves], () => 0)).toEqual({ done: 32, peak: 6, waits: 0 });
});

test("nodes of any size from any number of senders, in any order that each keeps ascending: the sum becomes whole", () => {
  const cut = (node: TreeNode, cuts: Iterator<boolean>): TreeNode[] => {
    if (node.count === 1 || !cuts.next().value) return [node];
    const half = node.count / 2;
    return [...cut({ first: node.first, count: half }, cuts), ...cut({ first: node.first + half, count: half }, cuts)];
  };
  void fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 6 }),
      fc.integer({ min: 0, max: 3 }),
      fc.infiniteStream(fc.boolean()),
      fc.infiniteStream(fc.nat()),
      fc.integer({ min: 1, max: 70 }),
      (levels, part, cuts, numbers, senders) => {
        const units = 2 ** levels;
        const first = part * units;
        const next = (below: number) => numbers.next().value % below;
        const lines = Array.from({ length: senders }, (): TreeNode[] => []);
        for (const node of cut({ first, count: units }, cuts)) lines[next(senders)]!.push(node);
        const { done, peak } = gather(units, first, lines, next);
        expect(done).toBe(units);
        expect(peak).toBeLessThanOrEqual(roomFor(units, 1, 0));
      },
    ),
    { numRuns: 2000 },
  );
});

test("one state has room of its own; what is set aside beside it takes none that the sum cannot do without", () => {
  const pool = new VectorPool(1);
  const least = new Uploads(pool, () => 0, 0);
  const own = least.setAside(3)!;
  expect([own.length, least.aside, least.most, least.peak]).toEqual([3, 3, roomFor(1, 1, 0), 3]);
  expect(least.setAside(3)).toBeUndefined();
  least.giveBack(own);
  expect([least.aside, least.setAside(3)?.length]).toEqual([0, 3]);
  // Six vectors are the least for 8 units; there are eight.
  const uploads = new Uploads(pool, () => 0, 4 * 8);
  uploads.gathering = { first: 0, units: 8, kept: () => [], missing: () => 0 };
  expect(uploads.most).toBe(8);
  const first = uploads.setAside(2)!;
  expect(uploads.most).toBe(8);
  expect(uploads.setAside(3)).toBeUndefined();
  const two = uploads.setAside(2)!;
  expect([two.length, uploads.most, uploads.peak]).toEqual([2, 6, 4]);
  expect(uploads.setAside(1)).toBeUndefined();
  // Whichever is left has that room.
  uploads.giveBack(first);
  expect(uploads.most).toBe(8);
  // When the sum has come up to unit 5 it takes four, and the three that are here are still there.
  const behind = [5, 6, 7].map((first) => ({
    first,
    count: 1,
    holdsUp: () => false,
    again: () => {},
    giveWay: () => {},
  }));
  for (const sender of behind) expect(uploads.begin(sender)).toBeDefined();
  expect(uploads.setAside(2)).toBeUndefined();
  expect(uploads.setAside(1)).toHaveLength(1);
});
