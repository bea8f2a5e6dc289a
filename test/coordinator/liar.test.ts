// A liar among real workers of a real run: it is trusted first, found out, and what it gave is taken back on the disk.
import { existsSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { lyingEngine } from "../../cli/liar.ts";
import type { TrainingRun } from "../../coordinator/loop.ts";
import { auditRun, contributionsOf, readLines } from "../../coordinator/proof/audit.ts";
import { readCheckpoint, writeCheckpoint } from "../../shared/checkpoint/checkpoint.ts";
import { checkpointSteps } from "../../shared/checkpoint/rundir.ts";
import { openTokenizerOf } from "../../shared/tokenizers/open.ts";
import type { Engine } from "../../worker/engine/contract.ts";
import { ledgerOf, temporary } from "../system/weft.ts";
import { runs, steps, worker } from "./in-process.ts";

const folder = temporary();
afterAll(() => rm(folder, { recursive: true }));

/** Nobody goes beyond step 50 before the liar has its weights: its first answers come after a checkpoint, and soon. */
function waitsFor(liar: Promise<void>): (engine: Engine) => Engine {
  return (engine) =>
    new Proxy(engine, {
      get(target, key) {
        const value = Reflect.get(target, key, target);
        if (typeof value !== "function") return value;
        return async (...call: unknown[]) => {
          if (key === "gradient" && (call[3] as { step: number }).step >= 50) await liar;
          return value.apply(target, call);
        };
      },
    });
}

test("a trusted worker begins to lie: the run goes back before it, to the honest digest, and audit holds", async () => {
  const honest = await runs({ out: join(folder, "honest") }, (_run, url) => [worker(url, "a"), worker(url, "b")]);
  await Promise.all(honest.workers);

  const out = join(folder, "run");
  let arrive = (): void => {};
  const arrived = new Promise<void>((resolve) => {
    arrive = resolve;
  });
  // Not before an answer of its counts that nobody has confirmed: else there may be nothing to take back.
  const begins = (): boolean =>
    ledgerOf(out).some(({ parts }) => parts?.some(({ worker, second }) => worker === "liar" && second === undefined));
  const lies = (engine: Engine): Engine => lyingEngine(engine, { kind: "sign", random: Math.random, begins });
  const { run, result } = await runs({ out, verify: 0.5 }, (run, url) => {
    const all = ["a", "b"].map((name) => worker(url, name, waitsFor(arrived)));
    let hasCome = false;
    const look = setInterval(() => {
      const { step, workers } = run.status();
      if (step >= 45 && !hasCome) worker(url, "liar", lies).catch(() => {});
      hasCome ||= step >= 45;
      if (!workers.some(({ id, state }) => id === "liar" && state === "contributing")) return;
      arrive();
      clearInterval(look);
    }, 5);
    return all;
  });
  expect(result).toMatchObject({ finished: true, weightsDigest: honest.result.weightsDigest });
  expect(result.valLossNats).toBe(honest.result.valLossNats);
  expect(run.status().quarantined).toMatchObject([{ names: ["liar"], address: null }]);
  expect(run.journal.after(0).filter(({ kind }) => kind === "quarantined")[0]!.text).toMatch(
    /^worker liar is in quarantine: it gave another answer for .* than . and . gave alike; --allow liar/,
  );

  const audit = await auditRun(out);
  expect(audit.findings).toEqual([]);
  expect(audit).toMatchObject({ firstStep: 1, lastStep: steps, shards: 8 * steps });
  expect(audit.confirmed).toBeGreaterThan(0);
  expect(audit.undone).toMatchObject([{ workers: ["liar"] }]);
  // A checkpoint from after the liar came would hold answers of its.
  expect([40, 60]).toContain(audit.undone[0]!.to);
  expect(contributionsOf((await readLines(out))!, "liar").every(({ undone }) => undone)).toBe(true);
  expect(await checkpointSteps(out)).toEqual([120, 100, 80, 60, 40, 20]);

  // It stays out when the coordinator starts again, until it is allowed in.
  const more = { out, resume: true, steps: steps + 2, verify: 0.5 };
  let refused: unknown;
  await runs(more, async (_run, url) => {
    refused = await worker(url, "liar").catch((error: Error) => error.message);
    await worker(url, "a");
  });
  expect(refused).toMatch(
    /refused by .*: worker liar is in quarantine: liar gave another answer .*; --allow lets it in/,
  );
  const allowed = await runs({ ...more, steps: steps + 4, allow: ["liar"] }, (_run, url) => worker(url, "liar"));
  expect(allowed.run.status().quarantined).toEqual([]);
  expect(JSON.parse(await readFile(join(out, "quarantine.json"), "utf8"))).toEqual([]);
  expect(existsSync(join(out, ".quarantine.json.new"))).toBe(false);
}, 120_000);

test("whose losses of an evaluation nobody confirmed is known after a restart: the run goes back before them", async () => {
  const out = join(folder, "evaluated");
  const flags = { out, verify: 0.5, steps: 60 };
  const both = (_run: TrainingRun, url: string) => ["a", "b"].map((name) => worker(url, name));
  const whole = await runs(flags, both);
  await Promise.all(whole.workers);
  await rm(join(out, "step-000060"), { recursive: true });
  const { directory, model, weights, optimizer, state } = await readCheckpoint(join(out, "step-000040"), {
    optimizer: true,
  });
  expect(state.evaluatedBy).toBeDefined();
  const tokenizer = (await openTokenizerOf({ directory, model }))!.toFiles();
  // As if a third had been there for the evaluation of step 20, and had been found out since.
  const evaluatedBy = [{ worker: "ghost", step: 20 }];
  await writeCheckpoint(out, { model, weights, optimizer: optimizer!, tokenizer, state: { ...state, evaluatedBy } });
  const entry = { names: ["ghost"], address: null, why: "lied", step: 39, at: new Date().toISOString() };
  await writeFile(join(out, "quarantine.json"), JSON.stringify([entry]));
  const resumed = await runs({ ...flags, resume: true }, both);
  await Promise.all(resumed.workers);
  expect(resumed.result).toMatchObject({ finished: true, weightsDigest: whole.result.weightsDigest });
  const audit = await auditRun(out);
  expect(audit.findings).toEqual([]);
  expect(audit.undone).toMatchObject([{ from: 40, to: 0, workers: ["ghost"] }]);
});
