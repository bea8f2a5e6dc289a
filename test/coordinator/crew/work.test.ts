// What is known of the answers of a round.
import { expect, test } from "vitest";
import { Work } from "../../../coordinator/crew/work.ts";

test("who gave what could not count is wrong once all of it has been given rightly, and once for each answer", () => {
  const work = new Work(4);
  let id = 0;
  const lease = (worker: string, first: number, count: number) => {
    const grant = { worker, first, count, arithmetic: "a", isDrawn: false, repeats: false, why: "" };
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
