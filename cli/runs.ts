// `weft runs`: the runs of a folder in one table, or some of them side by side: what differs in their options, and the
// curves of their losses.
import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { Command } from "commander";
import { checkpointSteps } from "../shared/checkpoint/rundir.ts";
import { flagOf, type OptionName, optionTable } from "../shared/config.ts";
import { ConfigError } from "../shared/errors.ts";
import { type CurveRow, curvesOf, type RunCurves } from "./curves.ts";
import { addOptions, optionsOf } from "./options.ts";
import { plot } from "./plot.ts";
import { onOneLine, say, tell } from "./terminal.ts";

interface Run extends Omit<RunCurves, "rows"> {
  readonly rows: readonly CurveRow[];
  readonly directory: string;
  readonly checkpoints: readonly number[];
}

export function runsCommand(): Command {
  const command = new Command("runs")
    .description("list the runs of a folder, or compare some: options that differ, curves side by side")
    .argument("[RUN...]", "folders of runs to compare; one folder of runs lists them", ["runs"]);
  addOptions(command, [], { json: {} });
  return command.action(async (folders: string[]) => {
    const { json } = await optionsOf(command);
    const runs = folders.length === 1 ? await runsIn(folders[0]!) : await Promise.all(folders.map(open));
    if (json) tell(JSON.stringify(runs.map(summaryOf), null, 2));
    else tell((folders.length === 1 ? tableOf(runs) : compare(runs)).join("\n"));
  });
}

async function open(directory: string): Promise<Run> {
  const curves = await curvesOf(directory, say);
  const rows: CurveRow[] = [];
  for await (const row of curves.rows()) rows.push(row);
  return { ...curves, rows, directory, checkpoints: await checkpointSteps(directory) };
}

/** @throws ConfigError where there is none */
async function runsIn(folder: string): Promise<Run[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    const why =
      error.code === "ENOENT" ? `there is no folder ${folder} here` : `${folder} cannot be read (${error.code})`;
    throw new ConfigError(`runs: ${why}; name the folder in which your runs lie`);
  });
  const names = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  const runs: Run[] = [];
  for (const name of names.sort())
    await open(join(folder, name)).then(
      (run) => runs.push(run),
      (error) => {
        if (!(error instanceof ConfigError)) throw error; // no run
      },
    );
  if (runs.length > 0) return runs;
  const itself = await open(folder).catch(() => undefined);
  if (itself) return [itself];
  throw new ConfigError(`runs: there is no run in ${folder}`);
}

function summaryOf({ directory, rows, past, checkpoints, writtenAt }: Run) {
  const losses = rows.flatMap(({ valLossNats }) => valLossNats ?? []);
  return {
    run: directory,
    step: rows.at(-1)?.step ?? 0,
    steps: past?.steps ?? null,
    lossNats: rows.findLast(({ lossNats }) => lossNats !== null)?.lossNats ?? null,
    bestValLossNats: losses.length > 0 ? Math.min(...losses) : null,
    checkpoints: checkpoints.length,
    newestCheckpoint: checkpoints[0] ?? null,
    model: past?.model ?? null,
    writtenAt: new Date(writtenAt).toISOString(),
  };
}

const loss = (value: number | null): string => value?.toFixed(4) ?? "-";

function tableOf(runs: readonly Run[]): string[] {
  const rows = runs
    .map(summaryOf)
    .map((run) => [
      basename(run.run),
      `${run.step}/${run.steps ?? "?"}`,
      loss(run.lossNats),
      loss(run.bestValLossNats),
      run.newestCheckpoint === null ? "-" : `step ${run.newestCheckpoint}`,
      run.writtenAt.slice(0, 16).replace("T", " "),
      run.model ?? "-",
    ]);
  return aligned([["run", "step", "loss", "best val", "checkpoint", "written (UTC)", "model"], ...rows]);
}

function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => onOneLine(row[i]!).length)));
  return rows.map((row) =>
    row
      .map((cell, i) => onOneLine(cell).padEnd(widths[i]!))
      .join("  ")
      .trimEnd(),
  );
}

function compare(runs: readonly Run[]): string[] {
  const value = (run: Run, name: string): string =>
    run.past ? String(run.past.options[name] ?? optionTable[name as OptionName]?.default ?? "-") : "?";
  const names = Object.keys(optionTable).filter((name) => new Set(runs.map((run) => value(run, name))).size > 1);
  const head = ["", ...runs.map(({ directory }) => basename(directory))];
  const options = names.map((name) => [flagOf(name), ...runs.map((run) => value(run, name))]);
  const results = (["step", "lossNats", "bestValLossNats"] as const).map((name) => [
    { step: "step", lossNats: "training loss", bestValLossNats: "best validation" }[name],
    ...runs.map((run) => (name === "step" ? String(summaryOf(run).step) : loss(summaryOf(run)[name]))),
  ]);
  const lines = aligned([head, ...options, ...results]);
  const columns = Math.min((process.stdout.columns ?? 80) - 1, 100);
  // One scale for all, so that heights can be compared.
  for (const run of runs) {
    const known = run.rows.filter(({ lossNats }) => lossNats !== null);
    const curve = plot(
      known.map(({ step }) => step),
      known.map(({ lossNats }) => lossNats!),
      columns,
      6,
    );
    lines.push("", basename(run.directory), ...(curve.length > 0 ? curve : ["(too few steps for a curve)"]));
  }
  return lines;
}
