// A run that is lengthened twice, with another learning rate, another batch and another number of workers, and killed in
// between, ends in the bits of the same changes made without a kill; its ledger names each change and is proven whole.
import { afterEach, expect, test } from "vitest";
import { readPast } from "../../coordinator/past.ts";
import { auditRun } from "../../coordinator/proof/audit.ts";
import { readCheckpoint } from "../../shared/checkpoint/checkpoint.ts";
import { atStep, digestOf, killAll, ledgerOf, temporary, text, weft } from "./weft.ts";

afterEach(killAll);

const begin = [
  ...["--data", text, "--block-size", "16", "--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--dropout", "0.1"],
  ...["--batch-size", "8", "--shards", "4", "--warmup-steps", "5", "--steps", "60", "--eval-windows", "8"],
  ...[
    "--checkpoint-interval",
    "20",
    "--keep-checkpoints",
    "20",
    "--eval-interval",
    "0",
    "--port",
    "0",
    "--sample-tokens",
    "0",
  ],
];
const second = ["--resume", "--steps", "120", "--learning-rate", "1e-3", "--weight-decay", "0.05"];
const third = ["--resume", "--steps", "180", "--batch-size", "16", "--shards", "8", "--schedule", "constant"];

const train = (out: string, ...flags: string[]) => weft(["train", "--out", out, ...flags]);

async function whole(out: string, ...flags: string[]) {
  const run = train(out, ...flags);
  expect(await run.ended, run.stderr()).toBe(0);
  return run;
}

/** Killed once it has a checkpoint of its own and is past it. */
async function killedAt(step: number, out: string, ...flags: string[]): Promise<void> {
  const run = train(out, ...flags);
  await run.until((line) => line.msg.startsWith("checkpoint ") && (line.step ?? 0) >= step - 20);
  await run.until(atStep(step));
  run.child.kill("SIGKILL");
  await run.ended;
}

test("a run lengthened twice, killed in between, has the bits of the same changes made without kills", async () => {
  const [calm, rough] = [temporary(), temporary()];
  await whole(calm, ...begin, "--workers", "1");
  const said = await whole(calm, ...second, "--workers", "1");
  expect(said.log.map(({ msg }) => msg)).toContain("from step 61 on: --learning-rate 0.001, it was 0.0006");
  await whole(calm, ...third, "--workers", "2");

  await whole(rough, ...begin, "--workers", "2");
  await killedAt(75, rough, ...second, "--workers", "2");
  // The same command again, or the run's folder alone: both go on with what was asked for.
  await whole(rough, ...second, "--workers", "1");
  await killedAt(145, rough, ...third, "--workers", "1");
  await whole(rough, "--resume", "--workers", "2", "--port", "0");

  expect(digestOf(rough)).toBe(digestOf(calm));
  for (const out of [calm, rough]) {
    const lines = ledgerOf(out) as unknown as { step?: number; after?: number; changes?: Record<string, unknown> }[];
    expect(lines.flatMap(({ step }) => step ?? [])).toEqual(Array.from({ length: 180 }, (_, i) => i + 1));
    expect(lines.filter(({ changes }) => changes).map(({ after, changes }) => ({ after, changes }))).toEqual([
      {
        after: 60,
        changes: {
          steps: { from: 60, to: 120 },
          learningRate: { from: 0.0006, to: 0.001 },
          weightDecay: { from: 0.1, to: 0.05 },
        },
      },
      {
        after: 120,
        changes: {
          steps: { from: 120, to: 180 },
          batchSize: { from: 8, to: 16 },
          shards: { from: 4, to: 8 },
          schedule: { from: "cosine", to: "constant" },
        },
      },
    ]);
    expect((await auditRun(out)).findings).toEqual([]);
    const unread: string[] = [];
    const past = await readPast(out, (why) => unread.push(why));
    expect([unread, past?.train.step[0], past?.train.step.at(-1)]).toEqual([[], 1, 180]);
    // The proof holds on both sides of a change: steps are computed again by the options that they had.
    const replayed = weft(["audit", out, "--replay", "121-123"]);
    expect(await replayed.ended, replayed.stdout() + replayed.stderr()).toBe(0);
    const crossing = weft(["audit", out, "--replay", "58-62"]);
    expect(await crossing.ended).toBe(1);
    expect(crossing.stderr() + crossing.stdout()).toMatch(/options change after step (60|120)/);
    const { state } = await readCheckpoint(`${out}/step-000180`, { optimizer: false });
    expect(state.tokensSeen).toBe(16 * (8 * 120 + 16 * 60));
  }
}, 300_000);

test("--resume with --out alone takes the run's own options; a finished run says that it is finished", async () => {
  const out = temporary();
  await whole(out, ...begin, "--workers", "1");
  const before = digestOf(out);
  const again = await whole(out, "--resume", "--port", "0", "--sample-tokens", "0");
  expect(digestOf(out)).toBe(before);
  expect(again.log.filter(({ msg }) => msg === "step")).toEqual([]);
  const { state } = await readCheckpoint(`${out}/step-000060`, { optimizer: false });
  expect(state.options).toMatchObject({ nEmbd: 16, steps: 60, warmupSteps: 5, data: text });
});
