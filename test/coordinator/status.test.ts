import { expect, test } from "vitest";
import { History } from "../../coordinator/history.ts";
import { healthOf, statusSchema } from "../../coordinator/status.ts";
import { fakeStatus } from "./fake-run.ts";

test("a status survives JSON", () => {
  const status = fakeStatus();
  expect(statusSchema.parse(JSON.parse(JSON.stringify(status)))).toEqual(status);
});

test("health: progress, a stated reason or the end; anything else is a stall", () => {
  expect(healthOf(fakeStatus())).toEqual({
    healthy: true,
    why: "training: step 250 of 2000, 0.0 s since the loop last got something done",
  });
  expect(healthOf(fakeStatus({ idleSeconds: 31 }))).toEqual({
    healthy: false,
    why: "31.0 s since the loop last got something done, more than the 30.0 s that are normal",
  });
  expect(healthOf(fakeStatus({ idleSeconds: 900, waitingFor: "no worker is connected" })).healthy).toBe(true);
  expect(healthOf(fakeStatus({ idleSeconds: 900, state: "finished" })).healthy).toBe(true);
});

const step = (step: number) => ({ step, lossNats: 4 / step, gradientNorm: 1, learningRate: 1e-3 });

test("a long curve keeps its ends, its spacing and its bound", () => {
  const history = new History(100);
  for (let i = 1; i <= 10_007; i++) history.addStep(step(i));
  const { train } = history.points();
  expect(train.length).toBeLessThanOrEqual(101);
  expect(train.length).toBeGreaterThan(50);
  expect(train.slice(0, 2).map((p) => p.step)).toEqual([1, 128]);
  expect(train.at(-1)).toEqual(step(10_007));
});

test("a run that resumes from an earlier step has one curve, not two", () => {
  const history = new History();
  for (const i of [1, 2, 3, 4, 5]) history.addStep(step(i));
  history.addValidation({ step: 4, valLossNats: 2 });
  for (const i of [4, 5]) history.addStep(step(i));
  const { train, validation } = history.points();
  expect(train.map((p) => p.step)).toEqual([1, 2, 3, 4, 5]);
  expect(validation).toEqual([]);
});
