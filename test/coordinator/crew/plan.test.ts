import { expect, test } from "vitest";
import type { Begun } from "../../../coordinator/crew/begun.ts";
import { Openings } from "../../../coordinator/crew/openings.ts";
import { type Pace, paceAfter, secondsOf } from "../../../coordinator/crew/pace.ts";
import { type Lease, planRound, type RoundView, type WorkerView } from "../../../coordinator/crew/plan.ts";

const round = (units: number, leases: Lease[] = [], done: number[] = [], more: Partial<RoundView> = {}): RoundView => ({
  units,
  largest: units,
  done: Array.from({ length: units }, (_, i) => done.includes(i)),
  awaited: [],
  leases,
  refusals: new Map(),
  begun: new Map(),
  leaving: new Set(),
  graceMs: 100,
  unmeasuredMs: 3000,
  ...more,
});
const lease = (id: number, first: number, count: number, worker: string, grantedAt = 0): Lease => ({
  id,
  first,
  count,
  worker,
  grantedAt,
  arithmetic: "native plain float32",
  isDrawn: false,
});
const worker = (name: string, unitsPerSecond?: number, more: Partial<WorkerView> = {}): WorkerView => ({
  name,
  arithmetic: "native plain float32",
  able: true,
  pace: unitsPerSecond === undefined ? undefined : { unitsPerSecond, overheadSeconds: 0 },
  ...more,
});
/** "a 0-3, b 4" */
const granted = (...[view, workers, now]: Parameters<typeof planRound>): string =>
  planRound(view, workers, now)
    .grants.map(({ worker, first, count }) => `${worker} ${count === 1 ? first : `${first}-${first + count - 1}`}`)
    .join(", ");

test("openings: the leftmost node of a size, or of the largest that there is", () => {
  const openings = new Openings(6, (unit) => unit !== 1);
  expect(openings.find(4)).toEqual({ first: 2, count: 2 });
  expect(openings.find(1)).toEqual({ first: 0, count: 1 });
  openings.take({ first: 2, count: 2 });
  expect(openings.find(4)).toEqual({ first: 4, count: 2 });
  openings.take({ first: 4, count: 2 });
  openings.take({ first: 0, count: 1 });
  expect(openings.any).toBe(false);
  expect(openings.find(1)).toBeUndefined();
});

test("openings agree with a search by hand, whatever is taken", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const units = 1 + (seed % 37);
    const open = Array.from({ length: units }, (_, i) => ((seed * 2654435761 + i * 40503) >>> 7) % 3 !== 0);
    const openings = new Openings(units, (unit) => open[unit]!);
    for (const size of [8, 4, 2, 1, 16]) {
      let expected: { first: number; count: number } | undefined;
      for (let count = size; count >= 1 && !expected; count /= 2)
        for (let first = 0; first + count <= units && !expected; first += count)
          if (!open.slice(first, first + count).includes(false)) expected = { first, count };
      expect(openings.find(size), `seed ${seed}, size ${size}`).toEqual(expected);
      if (!expected) continue;
      openings.take(expected);
      open.fill(false, expected.first, expected.first + expected.count);
    }
  }
});

test("one worker gets the whole round, two get a half each, four a quarter", () => {
  for (const [count, all] of [
    [1, "a 0-7"],
    [2, "a 0-3, b 4-7"],
    [4, "a 0-1, b 2-3, c 4-5, d 6-7"],
  ] as const) {
    const workers = ["a", "b", "c", "d"].slice(0, count).map((name) => worker(name, 10));
    expect(granted(round(8), workers, 0)).toBe(all);
  }
});

test("a worker that was never measured gets one unit, and nothing more before it has answered", () => {
  expect(granted(round(64), [worker("a"), worker("b")], 0)).toBe("a 0, b 1");
  expect(granted(round(64, [lease(1, 0, 1, "a"), lease(2, 1, 1, "b")]), [worker("a"), worker("b")], 0)).toBe("");
});

test("a first lease for everyone, the fastest first, before a second for anyone", () => {
  expect(granted(round(16), [worker("slow", 3), worker("fast", 5)], 0)).toBe("fast 0-7, slow 8-11, fast 12-15");
});

test("noise in the speeds of two equal workers leaves their halves whole", () => {
  expect(granted(round(8), [worker("a", 9), worker("b", 11)], 0)).toBe("b 0-3, a 4-7");
});

test("over a slow link the way is no reason to divide a round into more answers", () => {
  const far = (name: string, overheadSeconds: number) =>
    worker(name, undefined, { pace: { overheadSeconds, unitsPerSecond: 100 } });
  expect(granted(round(8), [far("a", 1.3), far("b", 0.7)], 0)).toBe("b 0-3, a 4-7");
  expect(granted(round(8), [far("a", 1.2), far("b", 0.9), far("c", 1), far("d", 1.1)], 0)).toBe(
    "b 0-1, c 2-3, d 4-5, a 6-7",
  );
  // Where computing is most of it, who is far gets less.
  const slow = (name: string, overheadSeconds: number) =>
    worker(name, undefined, { pace: { overheadSeconds, unitsPerSecond: 1 } });
  expect(granted(round(8), [slow("a", 6), slow("b", 0)], 0)).toBe("b 0-3, a 4-5, b 6-7");
  // Two units of ten are late from 2 x (1 s + 200 ms) + 100 ms grace.
  const [a, b] = ["a", "b"].map((name) =>
    worker(name, undefined, { pace: { overheadSeconds: 1, unitsPerSecond: 10 } }),
  );
  expect(planRound(round(2, [lease(1, 0, 2, "a")]), [a!, b!], 0)).toMatchObject({ grants: [], nextLateMs: 2500 });
});

test("who was given little of a round is given more again, though each answer takes as long", () => {
  let [a, b]: (Pace | undefined)[] = [];
  for (const [units, of] of [
    [4, 2],
    [4, 2],
    [2, 2],
    [4, 1],
  ] as const) {
    a = paceAfter(a, units, 1 + units / 50, units / 50);
    b = paceAfter(b, of, 1 + of / 50, of / 50);
  }
  const workers = [worker("a", undefined, { pace: a }), worker("b", undefined, { pace: b })];
  expect(granted(round(8), workers, 0)).toBe("a 0-3, b 4-7");
});

test("more workers than units: who is done with one first goes first", () => {
  const [near, far] = [
    worker("near", undefined, { pace: { overheadSeconds: 0.05, unitsPerSecond: 1 } }),
    worker("far", undefined, { pace: { overheadSeconds: 0.3, unitsPerSecond: 10 } }),
  ];
  const others = Array.from({ length: 6 }, (_, i) => worker(`w${i}`, 0.5));
  expect(granted(round(2), [near!, far!, ...others], 0)).toBe("far 0, near 1");
});

test("where all are on probation each has a part", () => {
  const all = ["a", "b"].map((name) => worker(name, 1, { onProbation: true }));
  expect(granted(round(8), all, 0)).toBe("a 0-3, b 4-7");
});

test("a worker's word divides what its answer took, and adds nothing to it", () => {
  expect(paceAfter(undefined, 4, 2, 0.5)).toEqual({ overheadSeconds: 1.5, unitsPerSecond: 8 });
  expect(paceAfter(undefined, 4, 2, 9)).toEqual({ overheadSeconds: 0, unitsPerSecond: 2 });
  expect(paceAfter(undefined, 4, 2, 0)).toMatchObject({ unitsPerSecond: 40_000 });
  const pace = { overheadSeconds: 1.5, unitsPerSecond: 8 };
  expect(paceAfter(pace, 8, 2.5)).toEqual(pace);
  // What was cancelled before its answer was sent: shorter than the way alone.
  const cancelled = paceAfter(pace, 8, 0.5);
  expect(cancelled.unitsPerSecond).toBeLessThan(2.5 * pace.unitsPerSecond);
  expect(secondsOf(cancelled, 8)).toBeGreaterThan(1);
  expect(paceAfter({ overheadSeconds: 30, unitsPerSecond: 0.025 }, 0.5, 0.01).unitsPerSecond).toBeLessThan(0.06);
});

test("a stall is not waited for again, a pace that has changed is learned", () => {
  const pace = { overheadSeconds: 0.5, unitsPerSecond: 8 };
  expect(secondsOf(paceAfter(pace, 4, 900, 0.5), 4)).toBeLessThan(2);
  expect(secondsOf(paceAfter(pace, 4, 900, 899), 4)).toBeGreaterThan(1);
  // Late twice at twice the pace, then no more: a third time would be probation.
  let slower: Pace = pace;
  for (let i = 0; i < 2; i++) slower = paceAfter(slower, 4, 60, 0.5);
  expect(2 * secondsOf(slower, 4)).toBeGreaterThan(60);
});

test("the slowest worker still gets a part, or it would never be measured again", () => {
  expect(granted(round(4), [worker("fast", 1000), worker("slow", 1)], 0)).toBe("fast 0-1, slow 2, fast 3");
});

test("leases are aligned nodes of the tree, whatever is open", () => {
  expect(granted(round(8, [lease(1, 4, 4, "b")], [2, 3]), [worker("a", 1), worker("b", 1)], 0)).toBe("a 0-1");
});

test("a second lease leaves their part to those whose weights are still on their way", () => {
  const [a, b, late] = [worker("a", 1), worker("b", 1), worker("b", 1, { able: false })];
  expect(granted(round(8), [a, late], 0)).toBe("a 0-3");
  expect(granted(round(8, [lease(1, 0, 4, "a")]), [a, late], 0)).toBe("");
  expect(granted(round(8, [lease(1, 0, 4, "a")]), [a, b], 0)).toBe("b 4-7");
  // Free hands wait for nobody, and of many parts a second is nobody's loss.
  expect(granted(round(8, [], [0, 1, 2, 3]), [a, late], 0)).toBe("a 4-7");
  expect(granted(round(16, [], [], { largest: 4 }), [a, late], 0)).toBe("a 0-3, a 4-7");
  // Of a newcomer one unit is wanted.
  expect(granted(round(8), [a, worker("new", undefined, { able: false })], 0)).toBe("a 0-3, a 4-5");
});

test("a third lease waits", () => {
  const workers = [worker("a", 1), worker("b", 1, { able: false })];
  expect(granted(round(8, [lease(1, 0, 2, "a"), lease(2, 2, 2, "a")]), workers, 0)).toBe("");
});

test("a late lease is taken by an idle worker, and its holder gets nothing more", () => {
  const workers = [worker("a", 10), worker("b", 10)];
  const view = round(2, [lease(1, 0, 2, "a")]);
  // Two units at ten a second: late from 2 x 200 ms + 100 ms grace.
  expect(planRound(view, workers, 499)).toMatchObject({ grants: [], waitingFor: null, nextLateMs: 1, overdue: [] });
  expect(planRound(view, workers, 510)).toMatchObject({
    grants: [{ worker: "b", first: 0, count: 2, repeats: true, why: "0-1 is late at a" }],
    overdue: [{ id: 1 }],
  });
  const open = round(4, [lease(1, 0, 2, "a")]);
  expect(granted(open, workers, 510)).toBe("b 2-3");
});

test("when the repeater is late too, the next one repeats", () => {
  const workers = [worker("a", 10), worker("b", 10), worker("c", 10)];
  const twice = round(1, [lease(1, 0, 1, "a"), lease(2, 0, 1, "b", 400)]);
  expect(granted(twice, workers, 600)).toBe("");
  expect(granted(twice, workers, 710)).toBe("c 0");
});

test("several idle workers share what is late", () => {
  const workers = ["a", "b", "c"].map((name) => worker(name, 10));
  expect(granted(round(4, [lease(1, 0, 4, "a")]), workers, 9000)).toBe("b 0-1, c 2-3");
});

test("a much faster idle worker does not wait until the slow one is late", () => {
  const view = round(4, [lease(1, 3, 1, "slow")], [0, 1, 2]);
  expect(granted(view, [worker("slow", 1), worker("fast", 100)], 50)).toBe("fast 3");
  // With equal speeds what remains is never worth doing twice.
  expect(granted(view, [worker("slow", 100), worker("fast", 100)], 5)).toBe("");
});

test("without any measured speed a lease is late after a fixed time", () => {
  const workers = [worker("a"), worker("b")];
  const view = round(1, [lease(1, 0, 1, "a")]);
  expect(granted(view, workers, 2999)).toBe("");
  expect(planRound(view, workers, 2999).nextLateMs).toBe(1);
  expect(granted(view, workers, 3001)).toBe("b 0");
});

test("one that was never measured may be honest and slow: its lease is taken soon, and counts against it late", () => {
  const workers = [worker("fast", 100), worker("new")];
  const view = round(1, [lease(1, 0, 1, "new")]);
  expect(planRound(view, workers, 130)).toMatchObject({ grants: [{ worker: "fast" }], overdue: [] });
  expect(planRound(view, workers, 3001).overdue).toHaveLength(1);
});

test("on probation only copies are given, unless nobody else is there", () => {
  const bad = worker("bad", 100, { onProbation: true });
  expect(granted(round(4), [worker("good", 10), bad], 0)).toBe("good 0-3");
  expect(granted(round(4, [lease(1, 0, 4, "good")]), [worker("good", 10), bad], 0)).toBe("bad 0");
  expect(granted(round(4), [bad], 0)).toBe("bad 0-3");
});

test("what only those on probation hold is open to the others, and they copy nothing of each other", () => {
  const bad = ["x", "y"].map((name) => worker(name, 100, { onProbation: true }));
  const view = round(1, [lease(1, 0, 1, "x")]);
  expect(granted(view, [...bad, worker("good", 1)], 1)).toBe("good 0");
  expect(granted(round(1, [lease(1, 0, 1, "x"), lease(2, 0, 1, "good")]), [...bad, worker("good", 1)], 1)).toBe("y 0");
});

test("who owes an answer of an earlier round gets nothing", () => {
  const mute = worker("mute", 100, { owesSince: 0 });
  expect(granted(round(4), [mute, worker("good", 1)], 50)).toBe("good 0-3");
  expect(planRound(round(4), [mute], 9000).waitingFor).toBe("no answer from mute for 9 s, and nobody else can compute");
});

test("who gave an answer that could not count is not asked for the same unit again", () => {
  const view = round(2, [], [], { refusals: new Map([[0, new Set(["nan"])]]) });
  expect(granted(view, [worker("nan", 10)], 0)).toBe("nan 1");
  expect(granted(view, [worker("nan", 10), worker("other", 1)], 0)).toBe("nan 1, other 0");
});

test("the plan says why nothing moves, and only then", () => {
  expect(planRound(round(1), [], 0).waitingFor).toBe("no worker is connected");
  expect(planRound(round(1), [worker("a", 1, { able: false })], 0).waitingFor).toBe(
    "none of 1 connected workers has the weights of this step yet",
  );
  const mute = round(1, [lease(1, 0, 1, "a")]);
  expect(planRound(mute, [worker("a", 10)], 40_000).waitingFor).toBe(
    "no answer from a for 40 s, and nobody else can compute",
  );
});

test("256 workers and 1,024 units are planned for in milliseconds, not in half a second", () => {
  const workers = Array.from({ length: 256 }, (_, i) => worker(`w${i}`, 1 + (i % 7)));
  const view = round(1024);
  const before = process.cpuUsage();
  const { grants } = planRound(view, workers, 0);
  expect(grants.length).toBeGreaterThan(256);
  const all = grants.map((grant, id) => ({ ...grant, id, grantedAt: 0 }));
  for (let i = 0; i < 20; i++) planRound(round(1024, all), workers, 1);
  // Processor time: who else uses the machine does not count.
  expect(process.cpuUsage(before).user / 1000 / 21).toBeLessThan(60);
});

/** A lease of minutes, whose holder says from time to time how far it is. */
const told = (of: Lease, at: number, share: number): Lease => {
  const tookMs = at - of.grantedAt;
  const leftMs = (tookMs * (1 - share)) / share;
  return { ...of, heard: { at, beganAt: of.grantedAt, share, leftMs, nextMs: 12_000 } };
};

test("who says how far it is with a long lease is overdue only when it stops saying so", () => {
  const going = round(4, [told(lease(1, 0, 1, "a"), 60_000, 0.2)]);
  const overdue = (now: number) => planRound(going, [worker("a")], now).overdue.map(({ id }) => id);
  expect(overdue(84_000)).toEqual([]);
  expect(overdue(84_101)).toEqual([1]);
  expect(planRound(round(4, [lease(1, 0, 1, "a")]), [worker("a")], 60_000).overdue).toHaveLength(1);
});

test("what waits behind a long lease that goes on is not overdue either", () => {
  const behind = lease(2, 1, 1, "a");
  const slow = round(2, [told(lease(1, 0, 1, "a"), 60_000, 0.9), behind]);
  expect(planRound(slow, [worker("a", 0.1)], 60_000).overdue).toEqual([]);
  expect(planRound(round(2, [lease(1, 0, 1, "a"), behind]), [worker("a", 0.1)], 60_000).overdue).toHaveLength(2);
});

test("a long lease is taken by who would be done long before its holder says that it is, or is not known yet", () => {
  const far = [told(lease(1, 0, 1, "a"), 60_000, 0.2)];
  const near = [told(lease(1, 0, 1, "a"), 60_000, 0.99)];
  const measured = [worker("a", 1 / 70), worker("b", 1 / 70)];
  expect(granted(round(1, far), measured, 60_000)).toBe("b 0");
  expect(granted(round(1, near), measured, 60_000)).toBe("");
  expect(granted(round(1, far), [worker("a"), worker("b")], 60_000)).toBe("b 0");
});

test("where all wait for room, one of them takes the first missing unit, open or late, beyond its turn", () => {
  const waiting = (of: Lease): Lease => ({ ...of, waits: true });
  const crew = [worker("a", 10), worker("b", 5), worker("mute", 10)];
  const theirs = [waiting(lease(1, 2, 1, "a")), lease(2, 3, 1, "a"), waiting(lease(3, 4, 1, "b")), lease(4, 5, 1, "b")];
  // Its holder has gone: unit 1 is open.
  expect(granted(round(6, theirs, [0]), crew.slice(0, 2), 60_000)).toBe("a 1");
  // Its holder is mute.
  const late = round(6, [lease(0, 1, 1, "mute"), ...theirs], [0]);
  expect(granted(late, crew, 100)).toBe("");
  expect(granted(late, crew, 60_000)).toBe("a 1");
  // Once somebody has it, the others go on waiting.
  expect(granted(round(6, [...theirs, lease(5, 1, 1, "a", 60_000)], [0]), crew.slice(0, 2), 60_050)).toBe("");
});

test("where all wait for room, one of them says what it thinks of what keeps the first unit out of the sum", () => {
  const waiting = (of: Lease): Lease => ({ ...of, waits: true });
  const awaited = { first: 0, count: 1, arithmetic: "native plain float32", heard: new Set(["a"]), wanted: 1 as const };
  const view = (leases: Lease[]) => round(4, leases, [0], { awaited: [awaited], draws: () => false });
  const [a, b, c] = [waiting(lease(1, 1, 1, "a")), waiting(lease(2, 2, 1, "b")), waiting(lease(3, 3, 1, "c"))];
  const crew = ["a", "b", "c"].map((name) => worker(name, 1));
  // Whoever gave the first opinion gives no second one; one more is enough.
  expect(granted(view([a, b, c]), crew, 0)).toBe("b 0");
  expect(granted(view([a, b, c, lease(4, 0, 1, "b")]), crew, 0)).toBe("");
});

test("what is drawn is given to two at once, and what it leaves over in pieces to free hands", () => {
  const crew = ["a", "b", "c", "d"].map((name) => worker(name, 10));
  const drawsFirst = { draws: (i: number) => i === 0 };
  // Without a draw: a node each. With one: the same for two, and nobody gets a second lease that would tell of it.
  expect(granted(round(16, [], [], { draws: () => false }), crew, 0)).toBe("a 0-3, b 4-7, c 8-11, d 12-15");
  const view = round(16, [], [], drawsFirst);
  expect(granted(view, crew, 0)).toBe("a 0-3, b 0-3, c 4-7, d 8-11");
  expect(planRound(view, crew, 0).grants.map(({ isDrawn }) => isDrawn)).toEqual([true, true, false, false]);
  // The first answer is in: the rest goes to whoever is free, a unit at a time.
  const rest = round(16, [lease(2, 0, 4, "b"), lease(3, 4, 4, "c"), lease(4, 8, 4, "d")], [0, 1, 2, 3], {
    draws: () => false,
    awaited: [{ first: 0, count: 4, arithmetic: "native plain float32", heard: new Set(["a"]), wanted: 1 }],
  });
  expect(granted(rest, crew, 400)).toBe("a 12");
});

test("two opinions are wanted of what nobody has answered; a late one is no opinion, another arithmetic has none", () => {
  const drawn = { ...lease(1, 0, 4, "a"), isDrawn: true };
  const node = { first: 0, count: 4, arithmetic: "native plain float32", heard: new Set<string>(), wanted: 2 as const };
  const view = (leases: Lease[]) => round(4, leases, [], { awaited: [node], draws: () => false, graceMs: 1000 });
  const second = { ...lease(2, 0, 4, "b"), isDrawn: true };
  expect(granted(view([drawn]), [worker("a", 10), worker("b", 10)], 0)).toBe("b 0-3");
  expect(granted(view([drawn]), [worker("a", 10), worker("b", 10, { arithmetic: "other" })], 0)).toBe("");
  expect(
    granted(
      view([drawn, second]),
      ["a", "b", "c"].map((name) => worker(name, 10)),
      0,
    ),
  ).toBe("");
  expect(
    granted(
      view([drawn, second]),
      ["a", "b", "c"].map((name) => worker(name, 10)),
      2000,
    ),
  ).toBe("c 0-3");
});

test("what a worker holds that leaves is given to others once it is late, not at once", () => {
  const leases = [lease(1, 0, 1, "goes")];
  const left = round(1, leases, [], { leaving: new Set(["goes"]) });
  const stays = worker("stays", 0.1);
  // At the slowest speed that is known it takes 10 s: late after 20, at which the other is done long before.
  expect(granted(left, [stays], 1000)).toBe("");
  expect(planRound(left, [stays], 1000).overdue).toEqual([]);
  expect(granted(left, [stays], 20_100)).toBe("stays 0");
  expect(granted(round(1, leases), [stays], 1000)).toBe("stays 0");
});

test("what others have begun goes by itself, and first, to who can go on with it", () => {
  const unit = (unit: number, arithmetic = "native plain float32"): [number, Begun] => [
    unit,
    { unit, losses: [1], state: [], arithmetic, by: [{ worker: "gone", steps: 1 }] },
  ];
  const begun = new Map([unit(2), unit(3, "native avx2 float32")]);
  const relay = worker("relay", 1);
  const other = worker("other", 1, { takesOver: true });
  const view = round(4, [], [], { begun });
  expect(granted(view, [other], 0)).toBe("other 2, other 0-1");
  expect(planRound(view, [other], 0).grants[0]!.why).toBe("2 was begun by gone");
  expect(granted(view, [relay], 0)).toBe("relay 0-3");
  const held = round(4, [lease(1, 2, 1, "busy")], [], { begun });
  expect(granted(held, [other, worker("busy", 1, { takesOver: true })], 0)).toBe("other 0-1, busy 3");
});
