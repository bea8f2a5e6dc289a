// A run that is stopped in the middle of what comes between its steps, and goes on with other options.
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import type { TrainingRun } from "../../coordinator/loop.ts";
import { readPast } from "../../coordinator/past.ts";
import { readCheckpoint } from "../../shared/checkpoint/checkpoint.ts";
import { readMarkers } from "../../shared/checkpoint/rundir.ts";
import type { Engine } from "../../worker/engine/contract.ts";
import { temporary } from "../system/weft.ts";
import { runs, worker } from "./in-process.ts";

const folder = temporary();
afterAll(() => rm(folder, { recursive: true }));

/** Something is done before each call of the engine. */
const before = (engine: Engine, act: (call: string) => void): Engine =>
  new Proxy(engine, {
    get(target, key) {
      const value = Reflect.get(target, key, target);
      if (typeof value !== "function") return value;
      return (...call: unknown[]) => {
        act(String(key));
        return value.apply(target, call);
      };
    },
  });
const one = (act: (call: string, run: TrainingRun) => void) => (run: TrainingRun, url: string) =>
  worker(url, "a", (engine) => before(engine, (call) => act(call, run))).catch(() => {});

test("an evaluation in which a run was stopped is made up for, and tokens count each batch as it was", async () => {
  const flags = { steps: 60, checkpointInterval: 0 };
  const whole = await runs(
    { ...flags, out: join(folder, "whole") },
    one(() => {}),
  );
  const out = join(folder, "run");
  const stopped = await runs(
    { ...flags, out },
    one((call, run) => call === "losses" && run.status().step === 40 && run.stop("asked")),
  );
  expect(stopped.result).toMatchObject({ finished: false, step: 40 });
  const at40 = async (from: string) =>
    (await readCheckpoint(join(folder, from, "step-000040"), { optimizer: false })).state;
  expect((await at40("run")).valLossNats).toBeUndefined();
  await runs(
    { ...flags, out, resume: true, batchSize: 16 },
    one(() => {}),
  );
  const { train, validation } = (await readPast(out, () => {}))!;
  expect(validation.step).toEqual([20, 40, 60]);
  expect(validation.tokens).toEqual([20 * 64, 40 * 64, 40 * 64 + 20 * 128]);
  expect([train.tokens[0], train.tokens.at(-1)]).toEqual([64, 40 * 64 + 20 * 128]);
  const { validation: undisturbed } = (await readPast(join(folder, "whole"), () => {}))!;
  expect(validation.valLossNats.slice(0, 2)).toEqual(undisturbed.valLossNats.slice(0, 2));
  expect(whole.result.finished).toBe(true);
});

test("a run that is stopped in its last sample is final, and nothing of it is done again", async () => {
  const out = join(folder, "last");
  const flags = { out, steps: 20, evalSampleTokens: 5 };
  const { result } = await runs(
    flags,
    one((call, run) => call === "generation" && run.status().step === 20 && run.stop("asked")),
  );
  expect(result).toMatchObject({ finished: false, step: 20 });
  const { final, best } = await readMarkers(out);
  expect([final, best?.step]).toEqual([{ step: 20 }, 20]);
  const { run } = await runs(
    { ...flags, resume: true },
    one(() => {}),
  );
  expect(run.history.curves().validation.step).toEqual([20]);
});

test("the loss of an evaluation that was over is in the checkpoint of a run that is stopped after it, and is not asked for again", async () => {
  const out = join(folder, "after");
  const flags = { out, steps: 60, checkpointInterval: 0, evalInterval: 25 };
  const { result } = await runs(
    flags,
    one((call, run) => call === "gradient" && run.status().step === 25 && run.stop("asked")),
  );
  expect(result).toMatchObject({ finished: false, step: 25 });
  const { state } = await readCheckpoint(join(out, "step-000025"), { optimizer: false });
  expect(state.valLossNats).toBe(result.valLossNats);
  const { run } = await runs(
    { ...flags, resume: true },
    one(() => {}),
  );
  expect(run.history.curves().validation.step).toEqual([25, 50, 60]);
});
