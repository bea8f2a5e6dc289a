import { expect, test } from "vitest";
import { type Lease, nextLease, type StepView, untilLate, type WorkerView } from "../../../coordinator/crew/plan.ts";

const step = (units: number, leases: Lease[] = [], done: number[] = []): StepView => ({
  units,
  largest: units,
  done: Array.from({ length: units }, (_, i) => done.includes(i)),
  leases,
  graceMs: 100,
});
const lease = (id: number, first: number, count: number, worker: string, grantedAt = 0): Lease => ({
  id,
  first,
  count,
  worker,
  grantedAt,
});
const worker = (name: string, unitsPerSecond?: number): WorkerView => ({ name, unitsPerSecond });

test("one worker gets the whole step, two get a half each, four a quarter", () => {
  for (const [count, size] of [
    [1, 8],
    [2, 4],
    [4, 2],
    [8, 1],
  ] as const) {
    const workers = Array.from({ length: count }, (_, i) => worker(`w${i}`, 10));
    const { grant } = nextLease(step(8), workers[0]!, workers, 0);
    expect(grant).toEqual({ first: 0, count: size });
  }
});

test("noise in the speeds of two equal workers leaves their halves whole", () => {
  const workers = [worker("a", 9), worker("b", 11)];
  expect(nextLease(step(8), workers[0]!, workers, 0).grant).toEqual({ first: 0, count: 4 });
});

test("the slowest worker still gets a part, or it would never be measured again", () => {
  const workers = [worker("fast", 1000), worker("slow", 1)];
  expect(nextLease(step(4), workers[0]!, workers, 0).grant).toEqual({ first: 0, count: 2 });
  expect(nextLease(step(4, [lease(1, 0, 2, "fast")]), workers[1]!, workers, 0).grant).toEqual({ first: 2, count: 1 });
});

test("leases are aligned nodes of the tree, whatever is open", () => {
  const workers = [worker("a", 1)];
  const view = step(8, [lease(1, 0, 1, "gone")], [2, 3]);
  expect(nextLease(view, workers[0]!, workers, 0).grant).toEqual({ first: 4, count: 4 });
  expect(nextLease(step(8, [lease(1, 4, 4, "b")], [2, 3]), workers[0]!, workers, 0).grant).toEqual({
    first: 0,
    count: 2,
  });
});

test("a third lease waits, with the reason", () => {
  const workers = [worker("a", 1), worker("b", 1)];
  const decision = nextLease(step(8, [lease(1, 0, 2, "a"), lease(2, 2, 2, "a")]), workers[0]!, workers, 0);
  expect(decision).toEqual({ why: "a holds 2 leases" });
});

test("a late lease is hedged by an idle worker, once, and not by its holder", () => {
  const workers = [worker("a", 10), worker("b", 10)];
  const held = lease(1, 0, 2, "a");
  const view = step(2, [held]);
  // Two units at ten a second: late from 2 x 200 ms + 100 ms grace.
  expect(nextLease(view, workers[1]!, workers, 499).grant).toBeUndefined();
  expect(nextLease(view, workers[1]!, workers, 499).why).toBe("waiting for 0-1 at a");
  expect(nextLease(view, workers[1]!, workers, 510)).toEqual({
    grant: { first: 0, count: 2, hedgeOf: held },
    why: "hedging 0-1: 10 ms behind at a",
  });
  expect(nextLease(view, workers[0]!, workers, 510).grant).toBeUndefined();
  const hedged = step(2, [held, lease(2, 0, 2, "b", 510)]);
  expect(nextLease(hedged, worker("c", 10), [...workers, worker("c", 10)], 9000).grant).toBeUndefined();
  expect(untilLate(view, workers, 100)).toBe(400);
});

test("a much faster idle worker does not wait until the slow one is late", () => {
  const workers = [worker("slow", 1), worker("fast", 100)];
  const view = step(4, [lease(1, 3, 1, "slow")], [0, 1, 2]);
  expect(nextLease(view, workers[1]!, workers, 50).grant?.hedgeOf?.id).toBe(1);
  // With equal speeds what remains is never worth doing twice.
  const equal = [worker("slow", 100), worker("fast", 100)];
  expect(nextLease(view, equal[1]!, equal, 5).grant).toBeUndefined();
});

test("without any measured speed nothing is late", () => {
  const workers = [worker("a"), worker("b")];
  expect(nextLease(step(1, [lease(1, 0, 1, "a")]), workers[1]!, workers, 1e9).grant).toBeUndefined();
  expect(untilLate(step(1, [lease(1, 0, 1, "a")]), workers, 0)).toBe(Number.POSITIVE_INFINITY);
});
