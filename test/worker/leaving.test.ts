// What a worker does that is asked to go in the middle of a replica, by what it has measured.
import { expect, test } from "vitest";
import { isHandedOver, Link } from "../../worker/leaving.ts";

test.each([
  // Steps that took longer than the state takes up and down are handed over; others go on until they did.
  [true, { done: 31, steps: 100, stepMs: 1000, upMs: 20_000, downMs: 10_000 }],
  [false, { done: 30, steps: 100, stepMs: 1000, upMs: 20_000, downMs: 10_000 }],
  // What is left takes no longer than the way up.
  [false, { done: 80, steps: 100, stepMs: 1000, upMs: 20_000, downMs: 10_000 }],
  [true, { done: 79, steps: 100, stepMs: 1000, upMs: 20_000, downMs: 10_000 }],
  [false, { done: 20, steps: 20, stepMs: 5, upMs: 0, downMs: 0 }],
  [true, { done: 1, steps: 20, stepMs: 5, upMs: 0, downMs: 0 }],
])("handed over, %s: %o", (way, prospect) => {
  expect(isHandedOver(prospect)).toBe(way);
});

test("a link takes what the last tensor took each way, and up what it takes down before anything went up", () => {
  const link = new Link();
  expect(link.takes(1000)).toEqual({ upMs: 0, downMs: 0 });
  link.down(100, 10);
  expect(link.takes(1000)).toEqual({ upMs: 100, downMs: 100 });
  link.up(100, 50);
  link.down(100, 20);
  expect(link.takes(1000)).toEqual({ upMs: 500, downMs: 200 });
});
