// deploy/slurm/train.sbatch on a real Slurm of two nodes (scripts/slurm-cluster.sh): it trains, is asked to leave, runs
// out of time, is pre-empted by a more important job, goes back into the queue, and ends in the undisturbed digest.
import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeAll, expect, test } from "vitest";
import { digestOf, freePort, ledgerOf, temporary, text, weft } from "./weft.ts";

const script = join(import.meta.dirname, "../../deploy/slurm/train.sbatch");
const steps = 1500;
const options = [
  ...["--data", text, "--block-size", "16", "--n-layer", "2", "--n-head", "2", "--n-embd", "48", "--dropout", "0.1"],
  ...["--batch-size", "16", "--shards", "8", "--warmup-steps", "5", "--steps", String(steps)],
  ...["--eval-windows", "40", "--eval-interval", "0", "--checkpoint-interval", "300"],
];
const run = (program: string, ...words: string[]): string => execFileSync(program, words, { encoding: "utf8" }).trim();

let expected = "";
let path = "";
beforeAll(async () => {
  if (!process.env.SLURM_CONF) throw new Error("SLURM_CONF is not set: start this test with scripts/ci-slurm.sh");
  // A cluster has weft on its PATH.
  path = join(temporary(), "bin");
  mkdirSync(path);
  const program = join(import.meta.dirname, "../../dist/cli/weft.js");
  chmodSync(program, 0o755);
  symlinkSync(program, join(path, "weft"));
  const out = temporary();
  const words = ["train", ...options, "--out", out, "--port", "0", "--workers", "1", "--sample-tokens", "0"];
  const undisturbed = weft(words);
  expect(await undisturbed.ended, undisturbed.stderr()).toBe(0);
  expected = digestOf(out);
});
afterEach(() => run("scancel", "--user=root"));

interface Job {
  readonly id: string;
  readonly port: number;
  readonly out: string;
  fact(name: string): string;
  log(): string;
  until(wished: () => boolean): Promise<void>;
}

async function submit(...flags: string[]): Promise<Job> {
  const folder = temporary();
  const out = join(folder, "run");
  const port = await freePort();
  const environment = `ALL,PATH=${path}:${process.env.PATH},WEFT_OUT=${out},WEFT_PORT=${port},WEFT_WORKER=--threads 1`;
  const log = join(folder, "log");
  const words = ["--parsable", "--nodes=2", `--output=${log}`, `--export=${environment}`, ...flags, script, ...options];
  const id = run("sbatch", ...words);
  const fact = (name: string) => new RegExp(`\\b${name}=(\\S+)`).exec(run("scontrol", "show", "job", id))?.[1] ?? "";
  const read = () => (existsSync(log) ? readFileSync(log, "utf8") : "");
  let hastened = "";
  const until = async (wished: () => boolean): Promise<void> => {
    for (let tries = 0; !wished(); tries++) {
      const state = fact("JobState");
      if (["FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"].includes(state) || tries > 900)
        throw new Error(`job ${id} is ${state}:\n${run("scontrol", "show", "job", id)}\n${read()}`);
      // Slurm lets a job that came back rest for two minutes; an operator, and a test, may shorten that. In the very
      // second in which it went the nodes would not take it: "job already killed".
      if (state === "PENDING" && fact("Reason") === "BeginTime" && fact("Restarts") !== hastened) {
        hastened = fact("Restarts");
        run("scontrol", "update", `jobid=${id}`, "StartTime=now+5");
      }
      await sleep(100);
    }
  };
  return { id, port, out, fact, log: read, until };
}

const stepOf = (job: Job): number => (existsSync(join(job.out, "ledger.jsonl")) ? ledgerOf(job.out).length : 0);

/** Send a signal to the job's workers: the nodes are this machine. */
function toWorkers(job: Job, signal: NodeJS.Signals): void {
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name)))
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      const environment = readFileSync(`/proc/${pid}/environ`, "utf8").split("\0");
      const isWorker = words[0]?.endsWith("node") && words[2] === "worker";
      if (isWorker && environment.includes(`WEFT_PORT=${job.port}`)) process.kill(Number(pid), signal);
    } catch {} // it has just ended
}

/** Ask the job to leave while its workers stand still: on no machine is the run over before it hears of it. */
async function interrupt(job: Job, ask: () => void): Promise<void> {
  await job.until(() => stepOf(job) > 100);
  toWorkers(job, "SIGSTOP");
  ask();
  await job.until(() => job.log().includes("stopping after step"));
  toWorkers(job, "SIGCONT");
}

async function expectUndisturbed(job: Job): Promise<void> {
  await job.until(() => job.fact("JobState") === "COMPLETED");
  expect(Number(job.fact("Restarts")), job.log()).toBeGreaterThan(0);
  expect(job.log()).toContain("resuming from");
  expect(ledgerOf(job.out).map((line) => line.step)).toEqual(Array.from({ length: steps }, (_, i) => i + 1));
  expect(digestOf(job.out)).toBe(expected);
}

test("asked to leave in the middle: requeued, goes on, same bits; both nodes computed", async () => {
  const job = await submit();
  await interrupt(job, () => run("scancel", "--signal=TERM", "--batch", job.id));
  await expectUndisturbed(job);
  const workers = new Set(
    ledgerOf(job.out).flatMap(({ parts }) => parts.map(({ worker }) => worker.split("-").at(-1))),
  );
  expect(workers).toEqual(new Set(["0", "1"]));
  expect(job.log()).toContain("srun, task 1 of 2");
});

test("pre-empted by a more important job, which takes both nodes: same bits", async () => {
  const job = await submit();
  const other = [
    "--parsable",
    "--partition=high",
    "--nodes=2",
    "--exclusive",
    "--output=/dev/null",
    "--wrap",
    "sleep 2",
  ];
  let id = "";
  await interrupt(job, () => {
    id = run("sbatch", ...other);
  });
  await job.until(() => /JobState=COMPLETED/.test(run("scontrol", "show", "job", id)));
  await expectUndisturbed(job);
});

test("out of time: a checkpoint before the limit, then the rest", async () => {
  // Slurm looks at limits every 30 s, and warns early rather than late: a job that is short from its start may hear of it
  // before it has begun. Half a minute to a minute and a half are left from where the workers stand still.
  const job = await submit("--time=10", "--signal=B:TERM@55");
  const limit = (minutes: number) => run("scontrol", "update", `jobid=${job.id}`, `TimeLimit=${minutes}`);
  await interrupt(job, () => {
    const [hours, minutes, seconds] = job.fact("RunTime").split(":").map(Number) as [number, number, number];
    limit(60 * hours + minutes + (seconds < 30 ? 1 : 2));
  });
  await job.until(() => Number(job.fact("Restarts")) > 0);
  limit(10);
  await expectUndisturbed(job);
});

test("the GPUs of a job reach its tasks, one each", () => {
  const said = run("srun", "--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2", "--gpus-per-task=1", "env");
  const seen = said.split("\n").filter((line) => line.startsWith("CUDA_VISIBLE_DEVICES="));
  expect(seen.map((line) => line.split("=")[1]).sort()).toEqual(["0", "0", "1", "1"]);
});
