// `weft chaos`: a run of one's own on this machine, its workers killed, frozen, muted and cut off on purpose, with --verify
// liars among them, then the same steps undisturbed. What it says is what one may expect of a fleet that fails so often; its exit status, whether one bit
// of one step came out differently.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { Command } from "commander";
import { z } from "zod";
import { readLines } from "../coordinator/proof/audit.ts";
import { standingSteps } from "../coordinator/proof/chain.ts";
import { statusSchema } from "../coordinator/status.ts";
import { PhiloxStream } from "../shared/arithmetic/philox.ts";
import { brief } from "../shared/check.ts";
import { flagOf, flagsFor } from "../shared/config.ts";
import { temporaryFolder } from "../shared/disk.ts";
import { ConfigError } from "../shared/errors.ts";
import { logLine } from "../shared/json.ts";
import { defaultPreset, presets } from "../shared/presets.ts";
import { FaultyWire } from "./faulty-wire.ts";
import { type Lie, liarCommand, lies } from "./liar.ts";
import { flagAndHelp } from "./options.ts";
import { Remote } from "./remote.ts";
import { say, tell } from "./terminal.ts";

const flagsSchema = z.object({
  faultsPerHour: z.coerce.number().min(0).max(100_000),
  minutes: z.coerce.number().gt(0).max(10_000),
  workers: z.coerce.number().int().min(1).max(64),
  seed: z.coerce.number().int().min(0),
  verify: z.coerce.number().min(0).max(1),
  preset: z.string(),
  data: z.string().optional(),
  json: z.boolean(),
});
type Flags = z.infer<typeof flagsSchema>;

/** How long a fault lasts, in seconds: drawn between these. */
const [shortest, longest] = [1, 12];
const faults = ["kill", "freeze", "mute", "partition", "lie"] as const;

export function chaosCommand(): Command {
  return new Command("chaos")
    .description(
      "a local run with workers killed, frozen, muted and cut off on purpose; exit status 1 unless every bit is right",
    )
    .option("--faults-per-hour <N>", "faults, at times drawn from the seed", "720")
    .option("--minutes <N>", "how long; the same steps undisturbed come after it", "10")
    .option(...flagAndHelp("workers", "worker processes"), "4")
    .option(...flagAndHelp("seed", "of the faults"), "1")
    .option(...flagAndHelp("verify", "share of the leases that two workers compute; above 0 liars come too"), "0")
    .option("--preset <NAME>", "what is trained", defaultPreset)
    .option(...flagAndHelp("data", "on what, if not on the preset's data"))
    .option(...flagAndHelp("json"), false)
    .addCommand(liarCommand(), { hidden: true })
    .action(async (raw: object) => {
      const parsed = flagsSchema.safeParse(raw);
      if (!parsed.success) {
        const [issue] = parsed.error.issues;
        const name = String(issue?.path[0]);
        const given = brief((raw as Record<string, unknown>)[name]);
        throw new ConfigError(`chaos: ${flagOf(name)} cannot be ${given}: ${issue?.message}`);
      }
      const flags = parsed.data;
      if (!Object.hasOwn(presets, flags.preset))
        throw new ConfigError(`chaos: unknown preset "${flags.preset}"; there are ${Object.keys(presets).join(", ")}`);
      const folder = await temporaryFolder("weft-chaos-");
      try {
        await chaos(flags, folder);
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    });
}

async function chaos(flags: Flags, folder: string): Promise<void> {
  const count = Math.round((flags.minutes * flags.faultsPerHour) / 60);
  say(`${count} faults in ${flags.minutes} minutes on ${flags.workers} workers, then the same steps undisturbed`);
  const disturbed = await LocalRun.start(join(folder, "disturbed"), flags);
  let status: z.infer<typeof statusSchema>;
  let happened: Fault[];
  try {
    happened = await strike(disturbed, flags);
    status = await new Remote(`http://127.0.0.1:${disturbed.port}`, undefined).json("/status", statusSchema);
  } finally {
    await disturbed.end();
  }
  const undisturbed = await LocalRun.start(join(folder, "undisturbed"), flags);
  try {
    await undisturbed.until(disturbed.step);
  } finally {
    await undisturbed.end();
  }
  const { leases, quarantined } = status;
  const differs = await firstDifference(disturbed.directory, undisturbed.directory, disturbed.step);
  const recoveries = happened.map(({ at }) => disturbed.recoveryAfter(at)).sort((a, b) => a - b);
  const share = disturbed.stepsPerSecond / undisturbed.stepsPerSecond;
  const report = {
    right: differs === undefined,
    firstDifferentStep: differs ?? null,
    faults: happened.length,
    kinds: Object.fromEntries(faults.map((kind) => [kind, happened.filter((fault) => fault.kind === kind).length])),
    steps: disturbed.step,
    throughputKept: share,
    recoverySeconds: {
      p50: quantile(recoveries, 0.5),
      p95: quantile(recoveries, 0.95),
      longest: recoveries.at(-1) ?? 0,
    },
    liarsFound: quarantined.length,
    leases: { refused: leases.refused, repeated: leases.hedged, lost: leases.lost, counted: leases.counted },
  };
  if (flags.json) tell(JSON.stringify(report, null, 2));
  else {
    const { p50, p95, longest: worst } = report.recoverySeconds;
    tell(
      `faults: ${happened.length} (${faults.map((kind) => `${report.kinds[kind]} ${kind}`).join(", ")}) in ${report.steps} steps`,
    );
    if (flags.verify > 0)
      tell(`liars: ${quarantined.length} of ${report.kinds.lie} found, ${leases.confirmed} answers confirmed`);
    tell(
      `throughput kept: ${(100 * share).toFixed(1)} % (${disturbed.stepsPerSecond.toFixed(2)} of ${undisturbed.stepsPerSecond.toFixed(2)} steps/s)`,
    );
    tell(`next step after a fault: p50 ${p50.toFixed(2)} s, p95 ${p95.toFixed(2)} s, longest ${worst.toFixed(2)} s`);
    tell(
      `leases: ${leases.counted} counted, ${leases.hedged} repeated, ${leases.lost} lost, ${leases.refused} refused`,
    );
    tell(
      differs === undefined
        ? `digest: right, in each of ${report.steps} steps`
        : `digest: WRONG from step ${differs} on`,
    );
  }
  if (differs !== undefined) process.exitCode = 1;
}

interface Fault {
  readonly kind: (typeof faults)[number];
  readonly at: number;
}

/** Bring faults about at drawn times until the time is over. */
async function strike(run: LocalRun, { faultsPerHour, minutes, seed, verify }: Flags): Promise<Fault[]> {
  const kinds = faults.filter((kind) => kind !== "lie" || verify > 0);
  const random = new PhiloxStream(seed, 0x63686173);
  const began = performance.now();
  const end = began + minutes * 60_000;
  const happened: Fault[] = [];
  const healing: Promise<void>[] = [];
  for (let next = began; ; ) {
    next += faultsPerHour === 0 ? end : (-Math.log(1 - random.uniform()) * 3_600_000) / faultsPerHour;
    const kind = kinds[Math.floor(random.uniform() * kinds.length)]!;
    const worker = Math.floor(random.uniform() * run.workers);
    const lastsMs = 1000 * (shortest + random.uniform() * (longest - shortest));
    await sleep(Math.max(0, Math.min(next, end) - performance.now()));
    run.check();
    if (next >= end) break;
    happened.push({ kind, at: performance.now() });
    if (kind === "lie") run.sendLiar(lies[Math.floor(random.uniform() * lies.length)]!);
    else healing.push(run.strike(kind, worker, lastsMs));
  }
  await Promise.all(healing);
  return happened;
}

/** A coordinator and its workers, each behind a wire of its own. */
class LocalRun {
  readonly directory: string;
  readonly workers: number;
  port = 0;
  step = 0;
  readonly #times: number[] = [];
  #firstStep = 0;
  #liars = 0;
  readonly #wires: FaultyWire[] = [];
  readonly #children = new Map<string, ChildProcess>();
  #coordinator!: ChildProcess;
  #said = "";
  #isOver = false;
  #onStep: () => void = () => {};

  private constructor(directory: string, workers: number) {
    this.directory = directory;
    this.workers = workers;
  }

  static async start(directory: string, flags: Flags): Promise<LocalRun> {
    const run = new LocalRun(directory, flags.workers);
    const { preset, data, verify } = flags;
    const endless = { steps: 1_000_000_000, evalInterval: 0, checkpointInterval: 0, timeout: 5 };
    const options = flagsFor({ data, ...endless, verify, port: 0, out: directory });
    run.#coordinator = run.#spawn("coordinator", ["coordinator", "--preset", preset, ...options]);
    while (run.port === 0) {
      await sleep(50);
      run.check();
    }
    for (let i = 0; i < flags.workers; i++) {
      run.#wires.push(await FaultyWire.to(() => run.port));
      run.#startWorker(i);
    }
    await run.until(1);
    return run;
  }

  get stepsPerSecond(): number {
    // Steps that were taken back and done again are none that were won.
    const [first, last] = [this.#times[0]!, this.#times.at(-1)!];
    return (1000 * (this.step - this.#firstStep)) / Math.max(1, last - first);
  }

  /** Seconds from then to the next step that was done. */
  recoveryAfter(at: number): number {
    return ((this.#times.find((time) => time > at) ?? performance.now()) - at) / 1000;
  }

  async until(step: number): Promise<void> {
    while (this.step < step) {
      await Promise.race([
        sleep(1000),
        new Promise<void>((resolve) => {
          this.#onStep = resolve;
        }),
      ]);
      this.check();
    }
  }

  /** @throws ConfigError when the coordinator has ended */
  check(): void {
    if (this.#coordinator.exitCode === null && this.#coordinator.signalCode === null) return;
    throw new ConfigError(`chaos: the coordinator ended: ${this.#said.trim().split("\n").at(-1) ?? ""}`);
  }

  /** It stays until it is found out. */
  sendLiar(lie: Lie): void {
    const name = `liar-${++this.#liars}`;
    this.#spawn(name, ["chaos", "liar", "--coordinator", `ws://127.0.0.1:${this.port}`, "--name", name, "--lie", lie]);
  }

  async strike(kind: Exclude<Fault["kind"], "lie">, worker: number, lastsMs: number): Promise<void> {
    const child = this.#children.get(`chaos-${worker}`);
    const wire = this.#wires[worker]!;
    if (kind === "kill") return void child?.kill("SIGKILL");
    if (kind === "freeze") child?.kill("SIGSTOP");
    else wire[kind === "mute" ? "mute" : "cut"](true);
    await sleep(lastsMs);
    if (kind === "freeze") child?.kill("SIGCONT");
    else wire[kind === "mute" ? "mute" : "cut"](false);
  }

  async end(): Promise<void> {
    this.#isOver = true;
    const left = [...this.#children.values()].filter((child) => child.exitCode === null && child.signalCode === null);
    const closed = left.map((child) => once(child, "close"));
    for (const child of left) {
      if (child !== this.#coordinator) child.kill("SIGKILL");
      else child.kill("SIGTERM");
    }
    const late = setTimeout(() => this.#coordinator.kill("SIGKILL"), 20_000);
    await Promise.all(closed);
    clearTimeout(late);
    for (const wire of this.#wires) wire.close();
  }

  /** Whoever falls is brought back, as a launcher does. */
  #startWorker(index: number): void {
    const address = `ws://127.0.0.1:${this.#wires[index]!.port}`;
    const name = `chaos-${index}`;
    const child = this.#spawn(name, [
      "worker",
      ...flagsFor({ coordinator: [address], name, threads: 1, patience: 600 }),
    ]);
    child.on("close", () => {
      if (!this.#isOver) this.#startWorker(index);
    });
  }

  #spawn(name: string, args: readonly string[]): ChildProcess {
    const child = spawn(process.execPath, [process.argv[1]!, ...args], { stdio: ["ignore", "ignore", "pipe"] });
    this.#children.set(name, child);
    createInterface({ input: child.stderr! }).on("line", (line) => {
      if (name === "coordinator") this.#hear(line);
    });
    return child;
  }

  #hear(line: string): void {
    const found = logLine(line);
    if (!found) {
      this.#said += `${line}\n`;
      return;
    }
    const { msg = "", step } = found as { msg?: string; step?: number };
    if (msg === "step" && step !== undefined) {
      if (this.#times.length === 0) this.#firstStep = step;
      this.step = step;
      this.#times.push(performance.now());
      this.#onStep();
    } else if (msg.startsWith("listening on ")) this.port = Number(/127\.0\.0\.1:(\d+)/.exec(msg)?.[1] ?? 0);
  }
}

/** The first step whose line says another digest, loss or norm; undefined where all are the same. */
async function firstDifference(a: string, b: string, steps: number): Promise<number | undefined> {
  const bits = async (directory: string): Promise<string[]> =>
    standingSteps((await readLines(directory)) ?? []).map(
      ({ weights, lossNats, gradientNorm }) => `${weights} ${lossNats} ${gradientNorm}`,
    );
  const [left, right] = [await bits(a), await bits(b)];
  for (let i = 0; i < steps; i++) if (left[i] === undefined || left[i] !== right[i]) return i + 1;
  return undefined;
}

function quantile(sorted: readonly number[], q: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? 0;
}
