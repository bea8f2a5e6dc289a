// Workers that a real mpirun starts: they know from its environment where the coordinator is and who they are.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { coordinator, digestOf, killAll, ledgerOf, temporary, text, weft } from "./weft.ts";

const mpirun = process.env.WEFT_MPIRUN ?? "";
const program = join(import.meta.dirname, "../../dist/cli/weft.js");
const tiny = [
  ...["--data", text, "--block-size", "16", "--n-layer", "2", "--n-head", "2", "--n-embd", "32", "--batch-size", "16"],
  ...["--shards", "8", "--warmup-steps", "5", "--steps", "1200", "--eval-windows", "40", "--eval-interval", "0"],
];
afterEach(killAll);

async function runWith(start: (port: string) => void): Promise<{ digest: string; workers: string[]; out: string }> {
  const out = temporary();
  const run = await coordinator([...tiny, "--out", out]);
  start(run.url.split(":").at(-1)!);
  expect(await run.ended, run.stderr()).toBe(0);
  const workers = new Set(ledgerOf(out).flatMap(({ parts }) => parts.map(({ worker }) => worker)));
  return { digest: digestOf(out), workers: [...workers].sort(), out };
}

test("three ranks compute what one worker computes, under names of their own", async () => {
  expect(mpirun, "WEFT_MPIRUN is not set: start this test with scripts/ci-mpi.sh").not.toBe("");
  const alone = await runWith((port) => weft(["worker", "--coordinator", `ws://127.0.0.1:${port}`]));
  let said = "";
  let ended: Promise<unknown> = Promise.resolve();
  const three = await runWith((port) => {
    const words = ["--allow-run-as-root", "--oversubscribe", "-n", "3", process.execPath, program, "worker"];
    const env = { ...process.env, WEFT_COORDINATOR: `ws://127.0.0.1:${port}` };
    const child = spawn(mpirun, words, { env, stdio: ["ignore", "pipe", "pipe"] });
    for (const output of [child.stdout, child.stderr]) output.on("data", (piece) => (said += String(piece)));
    ended = once(child, "close").then(([status]) => expect(status, said).toBe(0));
  });
  await ended;
  expect(three.digest).toBe(alone.digest);
  for (const rank of [0, 1, 2]) expect(said).toContain(`mpirun, rank ${rank} of 3`);
  expect(three.workers.map((name) => name.split("-").at(-1))).toEqual(["0", "1", "2"]);
});
