// `weft export`: a run's curves for other programs: CSV, JSON lines, or TensorBoard's event files.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Command } from "commander";
import { makeFolder, onDisk } from "../shared/disk.ts";
import { ConfigError } from "../shared/errors.ts";
import { type CurveRow, curvesOf, type RunCurves } from "./curves.ts";
import { addOptions, type Own, optionsOf } from "./options.ts";
import { eventFile, type Scalar } from "./tensorboard.ts";
import { say, tell } from "./terminal.ts";

const columns = ["step", "lossNats", "gradientNorm", "learningRate", "valLossNats"] as const;

/** Names that TensorBoard's users know. */
const tags = {
  lossNats: "train/loss",
  gradientNorm: "train/gradient_norm",
  learningRate: "train/learning_rate",
  valLossNats: "validation/loss",
} as const;

const own = {
  out: { default: "", help: "file to write, or folder for tensorboard; standard output without it" },
  format: {},
} satisfies Own;

export function exportCommand(): Command {
  const command = new Command("export")
    .description("a run's curves as CSV, JSON lines or TensorBoard event files")
    .argument("<RUN>", "the run's folder");
  addOptions(command, [], own);
  return command.action(async (run: string) => {
    const { format } = await optionsOf(command, own);
    const out = command.getOptionValueSource("out") === "cli" ? command.opts<{ out: string }>().out : "";
    const curves = await curvesOf(run, say);
    if (format === "tensorboard") {
      if (out === "") throw new ConfigError("export: name a folder for TensorBoard's event file with --out");
      await makeFolder(out);
      const scalars = scalarsOf(curves);
      const path = join(out, `events.out.tfevents.${Math.floor(scalars[0]?.wallTime ?? 0)}.weft`);
      await onDisk(path, "written", () => writeFile(path, eventFile(scalars)));
      tell(`${path}: ${scalars.length} values; see them with: tensorboard --logdir ${out}`);
      return;
    }
    const lines = format === "csv" ? csv(curves.rows) : jsonLines(curves.rows);
    if (out === "") for (const piece of lines) tell(piece.trimEnd());
    else await onDisk(out, "written", () => writeFile(out, lines));
  });
}

/** Lines that are written at once: a text of all of them may be longer than a string can be. */
const together = 1000;

function* csv(rows: readonly CurveRow[]): Generator<string> {
  yield `${columns.join(",")}\n`;
  for (let at = 0; at < rows.length; at += together)
    yield rows
      .slice(at, at + together)
      .map((row) => `${columns.map((name) => row[name] ?? "").join(",")}\n`)
      .join("");
}

function* jsonLines(rows: readonly CurveRow[]): Generator<string> {
  for (let at = 0; at < rows.length; at += together)
    yield rows
      .slice(at, at + together)
      .map((row) => `${JSON.stringify(row)}\n`)
      .join("");
}

/** With times that end when the run's newest step was written; the history says how long the steps before took. */
function scalarsOf({ rows, past, writtenAt }: RunCurves): Scalar[] {
  const { step: steps = [], seconds = [] } = past?.train ?? {};
  const begins = writtenAt / 1000 - (seconds.at(-1) ?? 0);
  let at = 0;
  return rows.flatMap((row) => {
    while (at + 1 < steps.length && steps[at + 1]! <= row.step) at++;
    const wallTime = begins + (seconds[at] ?? 0);
    return (Object.keys(tags) as (keyof typeof tags)[]).flatMap((name) => {
      const value = row[name];
      return value === null ? [] : [{ tag: tags[name], step: row.step, value, wallTime }];
    });
  });
}
