// Which of the states of one unit is gone on from.
import { expect, test } from "vitest";
import { BegunUnits, stepsOf } from "../../../coordinator/crew/begun.ts";
import { Uploads } from "../../../coordinator/crew/uploads.ts";
import { VectorPool } from "../../../shared/arithmetic/tree.ts";
import { scalarOps } from "../../../shared/arithmetic/vector.ts";

test("the state with the most steps is kept, of two alike the first; the others give their room back", () => {
  const uploads = new Uploads(new VectorPool(1), () => 0);
  const units = new BegunUnits(uploads, scalarOps);
  const keep = (...losses: number[]) => {
    const by = [{ worker: "w", steps: losses.length }];
    return units.keep({ unit: 0, losses, state: uploads.setAside(1)!, arithmetic: "a", by });
  };
  const said = [keep(1, 1), keep(2, 2, 2), keep(3), keep(4, 4, 4), keep(1, Number.NaN, 1, 1)];
  const here = "one after 3 steps is here already";
  expect(said).toEqual([undefined, undefined, here, here, "it holds what is no number"]);
  expect(units.all.get(0)!.losses).toEqual([2, 2, 2]);
  expect([stepsOf(units.all.get(0)), uploads.aside]).toEqual([3, 1]);
  units.clear();
  expect(uploads.aside).toBe(0);
});
