import { expect, test } from "vitest";
import { History } from "../../coordinator/history.ts";
import { healthOf, statusSchema } from "../../coordinator/status.ts";
import { Stopwatch } from "../../coordinator/stopwatch.ts";
import { systemClock } from "../../shared/clock.ts";
import { fakeStatus } from "./fake-run.ts";

test("a status survives JSON", () => {
  const status = fakeStatus();
  expect(statusSchema.parse(JSON.parse(JSON.stringify(status)))).toEqual(status);
});

test("health: progress, a stated reason or the end; anything else is a stall", () => {
  expect(healthOf(fakeStatus())).toEqual({
    healthy: true,
    why: "training: step 250 of 2000, 0.0 s since it last got something done",
  });
  expect(healthOf(fakeStatus({ idleSeconds: 31 }))).toEqual({
    healthy: false,
    why: "31.0 s since it last got something done, more than the 30.0 s that are normal",
  });
  expect(healthOf(fakeStatus({ idleSeconds: 900, waitingFor: "no worker is connected" })).healthy).toBe(true);
  expect(healthOf(fakeStatus({ idleSeconds: 900, state: "finished" })).healthy).toBe(true);
});

const step = (step: number) => ({
  step,
  tokens: 10 * step,
  seconds: step / 10,
  lossNats: 4 / step,
  gradientNorm: 1,
  learningRate: 1e-3,
  tokensPerSec: 1000,
});

test("a long curve keeps its ends, its spacing and its bound", () => {
  const history = new History(100);
  for (let i = 1; i <= 10_007; i++) history.addStep(step(i));
  const { stride, train } = history.curves();
  expect(train.step.length).toBeLessThanOrEqual(101);
  expect(train.step.length).toBeGreaterThan(50);
  expect([stride, ...train.step.slice(0, 2)]).toEqual([128, 1, 128]);
  expect([train.step.at(-1), train.lossNats.at(-1)]).toEqual([10_007, 4 / 10_007]);
});

test("a run that resumes from an earlier step has one curve, not two", () => {
  const history = new History();
  for (const i of [1, 2, 3, 4, 5]) history.addStep(step(i));
  history.addValidation({ step: 4, tokens: 40, seconds: 0.4, valLossNats: 2 });
  for (const i of [4, 5]) history.addStep(step(i));
  const { train, validation } = history.curves();
  expect(train.step).toEqual([1, 2, 3, 4, 5]);
  expect(validation.step).toEqual([]);
});

test("the curves of a resumed run begin where the run began, and a viewer may ask for what is new", () => {
  const before = new History(100);
  for (let i = 1; i <= 1000; i++) before.addStep(step(i));
  before.addValidation({ step: 900, tokens: 9000, seconds: 90, valLossNats: 3 });
  before.addValidation({ step: 1000, tokens: 10_000, seconds: 100, valLossNats: 2 });
  const after = History.from(before.curves(), 960);
  expect(after.seconds).toBe(96);
  after.addStep(step(961));
  const { stride, train, validation } = after.curves();
  expect([stride, train.step[0], train.step.at(-2), train.step.at(-1)]).toEqual([16, 1, 960, 961]);
  expect(validation).toEqual({ step: [900], tokens: [9000], seconds: [90], valLossNats: [3] });
  expect(after.curves(944).train.step).toEqual([960, 961]);
});

test("each worker's share of the time is what it says it computed, over the last steps, and no more than all of it", () => {
  let now = 0;
  const watch = new Stopwatch({ ...systemClock, now: () => now });
  const lap = (ms: number, said: Record<string, number>) => {
    watch.begin();
    now += ms;
    watch.end({ tokensByWorker: new Map([["a", 600]]), secondsByWorker: new Map(Object.entries(said)) }, 1);
  };
  lap(1000, { a: 0.5, liar: 1e9 });
  lap(3000, { a: 2.5, b: 1 });
  expect(watch.utilisation).toEqual(
    new Map([
      ["a", 0.75],
      ["liar", 1],
      ["b", 0.25],
    ]),
  );
  expect(watch.tokensPerSecond.get("a")).toBe(300);
});
