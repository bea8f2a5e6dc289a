// What is known of the answers of a round.
import { expect, test } from "vitest";
import { Work } from "../../../coordinator/crew/work.ts";

test("who gave what could not count is wrong once all of it has been given rightly, and once for each answer", () => {
  const work = new Work(4);
  let id = 0;
  const lease = (worker: string, first: number, count: number) => {
    const grant = { worker, first, count, arithmetic: "a", isDrawn: false, begun: undefined, repeats: false, why: "" };
    const granted = work.grant(grant, id++, 0);
    work.end(granted);
    return granted;
  };
  work.refuse(lease("a", 0, 4));
  for (const unit of [0, 1, 3]) {
    work.count(lease("b", unit, 1));
    // The one that is missing may be no number whoever computes it: then nobody was wrong, the run diverges.
    expect(work.takeWrong()).toEqual([]);
  }
  work.count(lease("b", 2, 1));
  expect(work.takeWrong()).toEqual([{ worker: "a", first: 0, count: 4 }]);
  expect(work.takeWrong()).toEqual([]);
});

test("whose steps an answer goes on from stands in the record, shares what was done, and spoils it", () => {
  const work = new Work(2);
  const by = [
    { worker: "a", steps: 3 },
    { worker: "b", steps: 1 },
  ];
  const begun = { unit: 0, losses: [1, 1, 1, 1], state: [], arithmetic: "a", by };
  const grant = { worker: "c", arithmetic: "a", isDrawn: false, repeats: false, why: "" };
  for (const [first, from] of [
    [0, begun],
    [1, undefined],
  ] as const) {
    const lease = work.grant({ ...grant, first, count: 1, begun: from }, first, 0);
    work.end(lease);
    work.count(lease);
  }
  expect(work.records(2)).toEqual([
    { shards: "0-1", worker: "c", leases: 1, begun: by },
    { shards: "2-3", worker: "c", leases: 1 },
  ]);
  expect(work.unitsByWorker(8)).toEqual(new Map(Object.entries({ c: 1.5, a: 3 / 8, b: 1 / 8 })));
  expect(["a", "b", "c", "d"].map((name) => work.countsUnconfirmed(name))).toEqual([true, true, true, false]);
});
