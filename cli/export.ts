// `weft export`: a run's curves for other programs: CSV, JSON lines, or TensorBoard's event files.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Command } from "commander";
import { makeFolder, onDisk } from "../shared/disk.ts";
import { ConfigError } from "../shared/errors.ts";
import { type CurveRow, curvesOf, type RunCurves } from "./curves.ts";
import { addOptions, type Own, optionsOf } from "./options.ts";
import { eventOf, firstEvent, type Scalar } from "./tensorboard.ts";
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
      const begins = beginsOf(curves);
      const path = join(out, `events.out.tfevents.${Math.floor(begins)}.weft`);
      let values = 0;
      const records = together(scalarsOf(curves, begins), (scalars) => {
        values += scalars.length;
        return Buffer.concat(scalars.map(eventOf));
      });
      await onDisk(path, "written", () => writeFile(path, after(firstEvent(begins), records)));
      tell(`${path}: ${values} values; see them with: tensorboard --logdir ${out}`);
      return;
    }
    const lines =
      format === "csv" ? after(`${columns.join(",")}\n`, linesOf(curves, csvLine)) : linesOf(curves, jsonLine);
    if (out === "") for await (const piece of lines) tell(piece.trimEnd());
    else await onDisk(out, "written", () => writeFile(out, lines));
  });
}

/** So many are written at once. */
const most = 1000;

/** What comes, in pieces of several. */
async function* together<T, Piece>(all: AsyncIterable<T>, join: (some: readonly T[]) => Piece): AsyncGenerator<Piece> {
  let some: T[] = [];
  for await (const one of all) {
    some.push(one);
    if (some.length < most) continue;
    yield join(some);
    some = [];
  }
  if (some.length > 0) yield join(some);
}

async function* after<T>(first: T, rest: AsyncIterable<T>): AsyncGenerator<T> {
  yield first;
  yield* rest;
}

const csvLine = (row: CurveRow): string => `${columns.map((name) => row[name] ?? "").join(",")}\n`;
const jsonLine = (row: CurveRow): string => `${JSON.stringify(row)}\n`;
const linesOf = ({ rows }: RunCurves, line: (row: CurveRow) => string): AsyncGenerator<string> =>
  together(rows(), (some) => some.map(line).join(""));

/** Times end when the run's newest step was written; the history says how long the steps before took. */
const beginsOf = ({ past, writtenAt }: RunCurves): number => writtenAt / 1000 - (past?.train.seconds.at(-1) ?? 0);

async function* scalarsOf({ rows, past }: RunCurves, begins: number): AsyncGenerator<Scalar> {
  const { step: steps = [], seconds = [] } = past?.train ?? {};
  let at = 0;
  for await (const row of rows()) {
    while (at + 1 < steps.length && steps[at + 1]! <= row.step) at++;
    const wallTime = begins + (seconds[at] ?? 0);
    for (const [name, tag] of Object.entries(tags) as [keyof typeof tags, string][]) {
      const value = row[name];
      if (value !== null) yield { tag, step: row.step, value, wallTime };
    }
  }
}
