// `weft audit --replay`: steps of a run once more, on this machine, from the checkpoint before them. The run's own
// programs do it, in a folder of their own that ends with them; what comes out is held against the ledger.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, rm, symlink, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import type { Finding } from "../coordinator/proof/audit.ts";
import { readLines, stepsName } from "../coordinator/proof/audit.ts";
import { type ChainLine, standingSteps } from "../coordinator/proof/chain.ts";
import { checkpointName, readCheckpoint, runStateOf } from "../shared/checkpoint/checkpoint.ts";
import { checkpointSteps } from "../shared/checkpoint/rundir.ts";
import { type OptionName, optionTable } from "../shared/config.ts";
import { temporaryFolder } from "../shared/disk.ts";
import { ConfigError } from "../shared/errors.ts";
import { logLine } from "../shared/json.ts";

export interface Replay {
  /** The checkpoint that it began from; null: the run's own beginning. */
  readonly from: string | null;
  /** Each with how many steps up to it were done together. */
  readonly steps: readonly {
    readonly step: number;
    readonly steps: number;
    readonly expected: string;
    readonly came: string;
  }[];
  readonly findings: readonly Finding[];
}

export interface ReplayOptions {
  readonly first: number;
  readonly last: number;
  /** Where the data lies now, if not where it lay. */
  readonly data?: string | undefined;
  readonly threads?: string | undefined;
}

/** @throws ConfigError where the steps cannot be computed here */
export async function replay(directory: string, { first, last, data, threads }: ReplayOptions): Promise<Replay> {
  const lines = (await readLines(directory)) ?? [];
  const entries = standingSteps(lines);
  const expected = new Map(entries.map((entry) => [entry.step, entry]));
  // Local steps that were done together are replayed together.
  const asked = entries.filter(({ step, steps }) => step >= first && step - steps < last);
  const known = new Set(asked.flatMap(({ step, steps }) => Array.from({ length: steps }, (_, i) => step - i)));
  for (let step = first; step <= last; step++)
    if (!known.has(step)) throw new ConfigError(`audit: the ledger of ${directory} has no step ${step} to replay`);
  const end = asked.at(-1)!.step;
  const steps = await checkpointSteps(directory);
  const start = steps.find((step) => step < first);
  const source = start ?? steps[0];
  if (source === undefined)
    throw new ConfigError(`audit: ${directory} has no checkpoint: nothing says by which options it was computed`);
  const { state } = await readCheckpoint(join(directory, checkpointName(source)), { optimizer: false });
  if (state.arithmetic === "any")
    throw new ConfigError(`audit: ${directory} was computed with --any-arithmetic; its bits depend on who came`);
  const options = optionsAfter(lines, { options: state.options, step: source }, start ?? 0, end);
  const folder = await temporaryFolder("weft-replay-");
  try {
    const out = join(folder, "run");
    await mkdir(out);
    if (start !== undefined) await symlink(resolve(directory, checkpointName(start)), join(out, checkpointName(start)));
    const config = join(folder, "options.json");
    const given = decisive(options);
    // A run may leave the default warm-up longer than itself; asking for that by name would be refused.
    const { default: usual } = optionTable.warmupSteps;
    if (given.warmupSteps === usual && state.options.warmupSteps === usual) delete given.warmupSteps;
    await writeFile(config, JSON.stringify({ ...given, ...(data !== undefined && { data }) }));
    const flags = [
      "--config",
      config,
      "--out",
      out,
      "--resume-or-start",
      "--workers",
      "1",
      "--sample-tokens",
      "0",
      "--port",
      "0",
    ];
    const quiet = ["--eval-interval", "0", "--checkpoint-interval", "0", "--keep-checkpoints", "1000"];
    await runUntil(end, [
      "train",
      ...flags,
      ...quiet,
      ...engineFlags(state.arithmetic),
      ...(threads ? ["--threads", threads] : []),
    ]);
    await checkArithmetic(out, state.arithmetic);
    const came = (await readLines(out)) ?? [];
    const compared = came.flatMap((line) => {
      if (line.kind !== "step" || line.entry.step > end) return [];
      const { step, steps, weights, lossNats, gradientNorm } = line.entry;
      const said = expected.get(step);
      return said
        ? [
            {
              step,
              steps,
              expected: said.weights,
              came: weights,
              same: said.lossNats === lossNats && said.gradientNorm === gradientNorm,
            },
          ]
        : [];
    });
    return {
      from: start === undefined ? null : checkpointName(start),
      steps: compared.filter(({ step }) => step >= first).map(({ same, ...each }) => each),
      findings: compared
        .filter(({ expected, came, same }) => expected !== came || !same)
        .map(({ step, steps, expected, came }) => ({
          where: stepsName({ step, steps }),
          what:
            expected === came
              ? "its loss or gradient norm comes out differently here"
              : `its weights come out as ${came} here, the ledger says ${expected}`,
        })),
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The options that decide the numbers; where they lie, who serves and who computes is this machine's own. */
function decisive(options: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const names = (Object.keys(optionTable) as OptionName[]).filter(
    (name) =>
      ["model", "data", "training"].includes(optionTable[name].group) || ["windowsFile", "initFrom"].includes(name),
  );
  return Object.fromEntries(names.filter((name) => options[name] !== undefined).map((name) => [name, options[name]]));
}

/** What another engine, or another device, computes is no other result of the same. @throws ConfigError */
async function checkArithmetic(out: string, expected: string): Promise<void> {
  const [newest] = await checkpointSteps(out);
  if (newest === undefined) return;
  const { arithmetic } = await runStateOf(join(out, checkpointName(newest)));
  if (arithmetic !== expected)
    throw new ConfigError(
      `audit: the run was computed with "${expected}", this machine would replay it with "${arithmetic}": the bits differ for that alone; replay it on a machine like those of the run`,
    );
}

/** "native avx2 float32": the same engine and instruction set, or the step must differ. */
function engineFlags(arithmetic: string): string[] {
  const [engine, isa] = arithmetic.split(" ");
  if (engine === "native") return ["--engine", "native", ...(isa ? ["--isa", isa] : [])];
  if (engine === "tfjs" && (isa === "wasm" || isa === "webgpu")) return ["--engine", engine, "--backend", isa];
  return engine === "tfjs" || engine === "xla" ? ["--engine", engine] : [];
}

/** Run this program until it has done a step. @throws ConfigError with what it said when it ends before */
async function runUntil(step: number, args: readonly string[]): Promise<void> {
  const child = spawn(process.execPath, [process.argv[1]!, ...args], { stdio: ["ignore", "ignore", "pipe"] });
  const said: string[] = [];
  let reached = false;
  createInterface({ input: child.stderr }).on("line", (line) => {
    const found = logLine(line);
    if (!found) said.push(line);
    else if (found.msg === "step" && Number(found.step) >= step) {
      reached = true;
      child.kill("SIGTERM");
    }
  });
  const [status] = await once(child, "close");
  if (!reached && status !== 0)
    throw new ConfigError(`audit: the replay ended early: ${said.at(-1) ?? `status ${status}`}`);
}

/**
 * The options of the steps `start` + 1 to `last`: a run that was lengthened has had others before.
 * @param known options at one step of the run
 * @throws ConfigError where they change on the way: those steps are two runs of the program
 */
export function optionsAfter(
  lines: readonly ChainLine[],
  known: { readonly options: Readonly<Record<string, unknown>>; readonly step: number },
  start: number,
  last: number,
): Record<string, unknown> {
  const options = { ...known.options };
  const changes = lines.flatMap((line) => (line.kind === "change" ? [line.change] : []));
  const crossed = changes.find(({ after }) => after > start && after < last);
  if (crossed)
    throw new ConfigError(
      `audit: the options change after step ${crossed.after}: replay up to it, and from ${crossed.after + 1} on where the checkpoint of step ${crossed.after} is kept`,
    );
  for (const { after, changes: each } of changes.toReversed())
    if (after >= start && after < known.step) for (const [name, { from }] of Object.entries(each)) options[name] = from;
  for (const { after, changes: each } of changes)
    if (after === start) for (const [name, { to }] of Object.entries(each)) options[name] = to;
  return options;
}
