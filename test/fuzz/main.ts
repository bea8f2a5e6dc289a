// npm run fuzz -- --reader NAME|all --seed N --runs N [--first N] [--dump DIR]: each reader in a thread of its own, whose
// silence and memory are watched from here. The line that a failure prints replays it.
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { flagsOf } from "../../bench/flags.ts";
import { emptyFolder, type Failure, fuzzOnce, longestMs, processorMs } from "./harness.ts";
import { readers } from "./readers.ts";

interface Job {
  readonly reader: string;
  readonly seed: number;
  readonly first: number;
  readonly runs: number;
  readonly dump: string;
  /** Where its files lie, for as long as it runs. */
  readonly root: string;
}

type Report = { readonly run: number; readonly refused: number; readonly read: number; readonly failure?: Failure };

const silenceMs = 4 * longestMs;
/** Without a word and without work: on a busy machine a reader may have to wait for its turn. */
const longestWaitMs = 600_000;
const memoryBytes = 2 * 2 ** 30;

async function fuzzInThread({ reader: name, seed, first, runs, dump, root }: Job): Promise<void> {
  const reader = readers.find((one) => one.name === name)!;
  let [refused, read] = [0, 0];
  const folder = await emptyFolder(join(root, "files"));
  for (let run = first; run < first + runs; run++) {
    if (run % 1000 === 0) await emptyFolder(folder);
    const { outcome, files, target, failure } = await fuzzOnce(reader, folder, seed, run);
    if ("refused" in outcome) refused++;
    else if ("value" in outcome) read++;
    if (dump) {
      writeFileSync(join(dump, `${name}-${run}-${target}`), files[target]!);
      writeFileSync(join(dump, `${name}-${run}.json`), JSON.stringify({ target, ...outcome }));
    }
    if (failure || run % 100 === 0 || run === first + runs - 1)
      parentPort!.postMessage({ run, refused, read, ...(failure && { failure }) } satisfies Report);
  }
}

/** @returns whether every run was right */
async function watch(asked: Omit<Job, "root">): Promise<boolean> {
  // Memory, where there is a file system of it: a million files are written. Removed here: a thread may be ended.
  const root = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "weft-fuzz-"));
  const job: Job = { ...asked, root };
  const worker = new Worker(new URL(import.meta.url), {
    workerData: job,
    resourceLimits: { maxOldGenerationSizeMb: 768 },
  });
  let report: Report = { run: job.first, refused: 0, read: 0 };
  let failures = 0;
  let heard = { at: Date.now(), processor: processorMs() };
  const replay = (run: number) => `npm run fuzz -- --reader ${job.reader} --seed ${job.seed} --first ${run} --runs 1`;
  const fail = (why: string): void => {
    failures++;
    console.log(
      `${job.reader}: ${why}\n  between runs ${report.run} and ${report.run + 100}: ${replay(report.run).replace(/1$/, "100")}`,
    );
    clearInterval(timer);
    void worker.terminate();
  };
  const timer = setInterval(() => {
    if (processorMs() - heard.processor > silenceMs) fail(`hangs for ${silenceMs / 1000} s of the processor`);
    if (Date.now() - heard.at > longestWaitMs) fail(`says nothing for ${longestWaitMs / 1000} s`);
    if (process.memoryUsage.rss() > memoryBytes) fail(`takes ${process.memoryUsage.rss()} bytes of memory`);
  }, 1000);
  worker.on("message", (message: Report) => {
    heard = { at: Date.now(), processor: processorMs() };
    report = message;
    if (!message.failure || failures++ >= 3) return;
    const { why, target, edits, base64, run } = message.failure;
    console.log(
      `${job.reader}: ${why}\n  ${target}, edits ${JSON.stringify(edits)}\n  base64 ${base64}\n  ${replay(run)}`,
    );
  });
  await new Promise<void>((resolve) => {
    worker.on("error", (error) => fail(`ended with ${error.message}`));
    worker.on("exit", () => resolve());
  });
  clearInterval(timer);
  rmSync(root, { recursive: true });
  const runs = report.run - job.first + 1;
  console.log(`${job.reader}: ${runs} runs, ${report.refused} refused, ${report.read} read, ${failures} wrong`);
  return failures === 0;
}

if (!isMainThread) await fuzzInThread(workerData as Job);
else {
  const values = flagsOf("npm run fuzz --", {
    reader: { type: "string", default: "all" },
    seed: { type: "string", default: "1" },
    runs: { type: "string", default: "1000" },
    first: { type: "string", default: "0" },
    dump: { type: "string", default: "" },
  });
  const known = readers.map(({ name }) => name);
  if (values.reader !== "all" && !known.includes(values.reader)) {
    console.error(`--reader must be all or one of ${known.join(", ")}`);
    process.exit(1);
  }
  if (values.dump) mkdirSync(values.dump, { recursive: true });
  const numbers = { seed: Number(values.seed), first: Number(values.first), runs: Number(values.runs) };
  const started = Date.now();
  let right = true;
  for (const reader of values.reader === "all" ? known : [values.reader])
    right = (await watch({ reader, ...numbers, dump: values.dump })) && right;
  console.log(`${Math.round((Date.now() - started) / 1000)} s`);
  process.exitCode = right ? 0 : 1;
}
