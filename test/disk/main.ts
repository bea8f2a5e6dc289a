// Everything that Weft writes, on a disk that fails at each call in turn: one clear line, or training that goes on and
// tries again; what was whole stays whole; and once the disk is well, the same again ends as if nothing had been.
// Usage: npm run disk -- [--every N] [--only NAME]: every call with every fault, or each N-th of these; it needs cc, and
// starts itself again with failing.c loaded. VERBOSE=1 prints what was said of each.
import { execFileSync, spawnSync } from "node:child_process";
import {
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import pino from "pino";
import { flagsOf } from "../../bench/flags.ts";
import { weftProgram } from "../../cli/program.ts";
import { TrainingRun } from "../../coordinator/loop.ts";
import { auditRun } from "../../coordinator/proof/audit.ts";
import { repairRun } from "../../coordinator/proof/repair.ts";
import { setUpRun } from "../../coordinator/setup.ts";
import { readCheckpoint } from "../../shared/checkpoint/checkpoint.ts";
import { type CheckpointSource, fetchCheckpoint } from "../../shared/checkpoint/fetch.ts";
import { readManifest } from "../../shared/checkpoint/manifest.ts";
import { diskError } from "../../shared/disk.ts";
import { ConfigError } from "../../shared/errors.ts";
import { resolveOptions } from "../../shared/resolve.ts";
import { type Computer, computerOf } from "../../worker/computer.ts";
import { openEngine } from "../../worker/engine/choose.ts";
import { engineOptionsOf } from "../../worker/engine/options.ts";
import { thisWorld, work } from "../../worker/worker.ts";
import { FailingDisk, type Fault } from "./faults.ts";
import { pipes } from "./pipes.ts";

const flags = flagsOf("npm run disk --", {
  every: { type: "string", default: "1" },
  only: { type: "string", default: "" },
});
const folder = mkdtempSync(join(tmpdir(), "weft-disk-"));
const control = process.env.WEFT_FAILING_DISK;
if (control === undefined) {
  const library = join(folder, "failing.so");
  const code = join(import.meta.dirname, "../../../test/disk/failing.c");
  execFileSync("cc", ["-shared", "-fPIC", "-O1", "-o", library, code, "-ldl"], { stdio: "inherit" });
  const own = { LD_PRELOAD: library, WEFT_FAILING_DISK: FailingDisk.make(join(folder, "control")) };
  const { status } = spawnSync(process.execPath, process.argv.slice(1), {
    env: { ...process.env, ...own },
    stdio: "inherit",
  });
  rmSync(folder, { recursive: true });
  process.exit(status ?? 1);
}
const disk = new FailingDisk(control);
const text = join(folder, "text.txt");
writeFileSync(text, "The quick brown fox jumps over the lazy dog.\n".repeat(80));

/** Something that Weft does in a folder. */
interface Scenario {
  readonly name: string;
  /** Before the disk fails. */
  prepare?(out: string): Promise<void> | void;
  act(out: string): Promise<unknown>;
  /** Once it has failed, and before it is done again. @throws Error that says what is lost */
  after?(out: string): Promise<void>;
  /** What came of it: the same whatever the disk did. */
  result(out: string): Promise<string> | string;
}

const expect = (holds: boolean, what: string): void => {
  if (!holds) throw new Error(what);
};

const options = {
  ...{ family: "bigram", data: text, blockSize: 8, batchSize: 4, shards: 2, steps: 6, keepCheckpoints: 2 },
  ...{ evalWindows: 4, evalInterval: 4, checkpointInterval: 2, evalSampleTokens: 0 },
};
/** What the log says of checkpoints, since a run began. */
let written: number[] = [];
const log = pino(
  { level: "info" },
  {
    write: (line) =>
      void written.push(...[...line.matchAll(/"msg":"checkpoint \S*step-(\d+)/g)].map((m) => Number(m[1]))),
  },
);

let computer: Promise<Computer> | undefined;

/** A run with its worker in this process, from where it stands to its last step. */
async function train(out: string): Promise<void> {
  await trainTo(out, options.steps);
}

async function trainTo(out: string, steps: number): Promise<void> {
  written = [];
  const setup = await setUpRun({ flags: { ...options, steps, out, resumeOrStart: true } }, log, { substitute: false });
  const run = new TrainingRun(setup);
  const leave = new AbortController();
  const connect = async () => {
    const [ours, theirs] = pipes();
    run.admit(theirs, false);
    return ours;
  };
  const settings = resolveOptions({ flags: { coordinator: ["ws://127.0.0.1:1"] } }).options;
  computer ??= openEngine("native", engineOptionsOf({ ...settings, threads: 1 }, setup.model, 2)).then((opened) =>
    computerOf(opened.engine),
  );
  const worker = work(
    {
      options: settings,
      ...{ threads: 1, name: "worker", token: undefined, log: pino({ level: "silent" }), leave: leave.signal },
    },
    { ...thisWorld, connect },
    { for: () => computer! },
  );
  try {
    await run.train();
  } catch (error) {
    const { step } = run.status();
    throw step === steps ? error : new Error(`training ended after step ${step} of ${steps}`, { cause: error });
  } finally {
    leave.abort();
    await worker;
    await setup.dataset.close();
  }
}

/** What a run has written is whole, and proven by its ledger. */
async function proven(out: string): Promise<void> {
  const names = existsSync(out) ? readdirSync(out) : [];
  const newest = Math.max(0, ...written);
  const steps = names.flatMap((name) => /^step-(\d+)$/.exec(name)?.[1] ?? []).map(Number);
  expect(Math.max(0, ...steps) >= newest, `checkpoint ${newest} was written and is gone`);
  if (steps.length === 0) return;
  const { checkpoints, provenUpTo } = await auditRun(out);
  const broken = checkpoints.filter(({ whole }) => !whole).map(({ name }) => name);
  expect(broken.length === 0, `${broken} are not whole`);
  expect(
    provenUpTo >= Math.max(...steps),
    `the ledger proves up to step ${provenUpTo}, there is a checkpoint of ${steps}`,
  );
}

/** A run that is done, held against its proof. @returns its digest */
async function digestOf(out: string): Promise<string> {
  await proven(out);
  const { findings, lastStep } = await auditRun(out);
  expect(findings.length === 0 && lastStep === options.steps, JSON.stringify(findings));
  return (await readCheckpoint(join(out, `step-00000${options.steps}`), { optimizer: true })).state.weightsDigest;
}

/** The program as its users run it. @throws ConfigError with the one line that it said */
function sample(out: string): void {
  mkdirSync(out, { recursive: true });
  const shown = openSync(join(out, "text"), "w");
  const program = join(import.meta.dirname, "../../cli/weft.js");
  const args = ["sample", "--checkpoint", whole, "--tokens", "20", "--seed", "1"];
  const ended = spawnSync(process.execPath, [program, ...args], { stdio: ["ignore", shown, "pipe"], encoding: "utf8" });
  closeSync(shown);
  // Before what it refuses it says whose text it is.
  const lines = ended.stderr.trimEnd().split("\n");
  if (ended.status === 1 && lines.length <= 2) throw new ConfigError(lines.at(-1)!);
  expect(ended.status === 0, `it ended with ${ended.status}: ${ended.stderr}`);
}

const weft = async (...words: string[]): Promise<void> =>
  void (await (await weftProgram(words[0])).parseAsync(["node", "weft", ...words]));
const files = (out: string): string =>
  readdirSync(out, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(out.length))
    .filter((name) => !name.includes("/.")) // what is needed no more may be impossible to remove
    .sort()
    .join();
const contents = (out: string): string =>
  files(out)
    .split(",")
    .map((name) => readFileSync(join(out, name)).toString("base64"))
    .join();

const [half, whole] = [join(folder, "half"), join(folder, "whole")];
const source: CheckpointSource = {
  url: "http://127.0.0.1:1",
  list: async () => [{ name: "step-000006", step: 6, bytes: 1, valLossNats: null, best: true, final: true }],
  manifest: (name) => readManifest(join(whole, name)),
  read: async (name, file, offset) => {
    const bytes = readFileSync(join(whole, name, file)).subarray(offset);
    const pieces = async function* () {
      for (let at = 0; at < bytes.length; at += 20_000) yield bytes.subarray(at, at + 20_000);
    };
    return { from: offset, pieces: pieces() };
  },
};

const scenarios: Scenario[] = [
  { name: "train", act: train, after: proven, result: digestOf },
  {
    name: "resume",
    prepare: (out) => cpSync(half, out, { recursive: true }),
    act: train,
    after: proven,
    result: digestOf,
  },
  {
    name: "pull",
    act: (out) => fetchCheckpoint(source, { step: "latest", out, parts: "all" }),
    after: async (out) => {
      const pulled = join(out, "step-000006");
      if (existsSync(pulled)) await readCheckpoint(pulled, { optimizer: true });
    },
    result: contents,
  },
  {
    name: "convert",
    // A copy that stands is whole.
    act: async (out) => existsSync(join(out, "copy")) || (await weft("convert", whole, "--out", join(out, "copy"))),
    result: contents,
  },
  {
    name: "data prepare",
    act: async (out) => existsSync(join(out, "data.json")) || (await weft("data", "prepare", text, "--out", out)),
    result: (out) => contents(out),
  },
  {
    name: "data train-tokenizer",
    act: (out) => weft("data", "train-tokenizer", text, "--out", out, "--vocab-size", "260"),
    result: contents,
  },
  {
    name: "export csv",
    prepare: (out) => void mkdirSync(out, { recursive: true }),
    act: (out) => weft("export", whole, "--out", join(out, "curves.csv")),
    result: contents,
  },
  {
    name: "export tensorboard",
    act: (out) => weft("export", whole, "--format", "tensorboard", "--out", out),
    result: contents,
  },
  {
    name: "sample",
    prepare: (out) => void mkdirSync(out, { recursive: true }),
    act: async (out) => sample(out),
    result: contents,
  },
  {
    name: "audit --repair",
    prepare: (out) => {
      cpSync(whole, out, { recursive: true });
      truncateSync(join(out, "ledger.jsonl"), 900);
      writeFileSync(join(out, "markers.json"), "{");
    },
    act: repairRun,
    result: async (out) => JSON.stringify((await auditRun(out)).findings),
  },
];

const kinds = ["EIO", "ENOSPC", "EROFS", "EACCES", "short"] as const;
const strays: string[] = [];
for (const event of ["unhandledRejection", "uncaughtException"] as const)
  process.on(event, (error) => strays.push(`${event}: ${(error as Error).stack}`));

/** @returns what went wrong, and whether there was a call to fail */
async function fail({ name, prepare, act, after, result }: Scenario, expected: string, fault: Fault) {
  const out = join(folder, "run", "out");
  rmSync(out, { recursive: true, force: true });
  await prepare?.(out);
  written = [];
  disk.begin(out, fault);
  let said = "done";
  const wrong: string[] = [];
  try {
    await act(out);
  } catch (raw) {
    const error = diskError(raw) as Error;
    said = error.message;
    if (!(error instanceof ConfigError) || /\n/.test(said)) wrong.push(`raw: ${inspect(raw)}`);
  }
  const { calls, failed } = disk.end();
  try {
    await after?.(out);
    if (said === "done") expect((await result(out)) === expected, "the result is another one");
    await act(out);
    expect((await result(out)) === expected, "the result of the same again is another one");
  } catch (error) {
    wrong.push(`afterwards: ${inspect(error)}`);
  }
  wrong.push(...strays.splice(0));
  const what = `${name}: call ${fault.at} (${failed}) ${fault.kind}${fault.lasting ? " from there on" : ""}: ${said}`;
  return { calls, failed, wrong, what };
}

const none: Fault = { at: 0, kind: "EIO", lasting: false, reads: false };

function* faultsOf(calls: number, reads: boolean): Generator<Fault> {
  for (let at = 1; at <= calls; at++)
    for (const kind of reads ? (["EIO"] as const) : kinds)
      for (const lasting of [false, true]) yield { at, kind, lasting, reads };
}

/** Every call of it, with every fault; --every N: each N-th of these. */
async function sweep(scenario: Scenario): Promise<void> {
  const started = performance.now();
  const out = join(folder, "run", "out");
  rmSync(out, { recursive: true, force: true });
  await scenario.prepare?.(out);
  disk.begin(out, none);
  await scenario.act(out);
  const changes = disk.end().calls;
  const expected = await scenario.result(out);
  rmSync(out, { recursive: true, force: true });
  await scenario.prepare?.(out);
  disk.begin(out, { ...none, reads: true });
  await scenario.act(out);
  const all = [...faultsOf(changes, false), ...faultsOf(disk.end().calls, true)];
  let tried = 0;
  for (const fault of all.filter((_, i) => i % Number(flags.every) === 0)) {
    const { failed, wrong, what } = await fail(scenario, expected, fault);
    if (failed !== undefined) tried++;
    if (wrong.length > 0) {
      console.error(`FAILED ${what}\n  ${wrong.join("\n  ")}`);
      process.exitCode = 1;
    } else if (process.env.VERBOSE) console.error(what);
  }
  console.error(`${scenario.name}: ${tried} faults, ${((performance.now() - started) / 1000).toFixed(1)} s`);
}

process.stdout.write = () => true; // what commands tell
try {
  await trainTo(half, 3);
  await train(whole);
  for (const scenario of scenarios) if (scenario.name.includes(flags.only)) await sweep(scenario);
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
