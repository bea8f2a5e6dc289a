// What a run left on the disk for those who look later: every step of its ledger, joined with its evaluations.
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { type Past, readPast } from "../coordinator/past.ts";
import { ledgerName, linesOf } from "../coordinator/proof/chain.ts";
import { onDisk } from "../shared/disk.ts";
import { ConfigError } from "../shared/errors.ts";
import { isAbsent } from "../shared/json.ts";

export interface CurveRow {
  readonly step: number;
  readonly lossNats: number | null;
  readonly gradientNorm: number | null;
  readonly learningRate: number | null;
  /** Of an evaluation after this step. */
  readonly valLossNats: number | null;
}

export interface RunCurves {
  /** In the order of their steps; a run of millions is never held as a whole. */
  readonly rows: () => AsyncGenerator<CurveRow>;
  /** What history.json knows beside the curves; none before the first checkpoint. */
  readonly past: Past | undefined;
  /** When the newest row was written, in milliseconds. */
  readonly writtenAt: number;
}

/** @throws ConfigError where the folder holds no run */
export async function curvesOf(directory: string, onSkip: (why: string) => void): Promise<RunCurves> {
  const path = join(directory, ledgerName);
  const found = await stat(path).catch((error) => {
    if (isAbsent(error) || error.code === "ENOTDIR") return undefined;
    throw error;
  });
  const past = await readPast(directory, onSkip);
  if (!found && !past) throw new ConfigError(`${directory}: no run; it holds neither ${ledgerName} nor history.json`);
  return { rows: () => joined(found ? path : undefined, past), past, writtenAt: found?.mtimeMs ?? Date.now() };
}

async function* joined(ledger: string | undefined, past: Past | undefined): AsyncGenerator<CurveRow> {
  const evaluations = past?.validation.step.map((step, i) => ({ step, loss: past.validation.valLossNats[i]! })) ?? [];
  let next = 0;
  const none = { lossNats: null, gradientNorm: null, learningRate: null };
  for await (const row of ledger ? standingRows(ledger) : []) {
    for (; next < evaluations.length && evaluations[next]!.step < row.step; next++)
      yield { step: evaluations[next]!.step, ...none, valLossNats: evaluations[next]!.loss };
    const valLossNats = evaluations[next]?.step === row.step ? evaluations[next++]!.loss : null;
    yield { ...row, valLossNats };
  }
  for (const { step, loss } of evaluations.slice(next)) yield { step, ...none, valLossNats: loss };
}

/** The steps that stand: where a run went back, what it did before is not among them. */
async function* standingRows(path: string): AsyncGenerator<Omit<CurveRow, "valLossNats">> {
  const turns = (await mentions(path, '"undone"')) ? await turnsOf(path) : [];
  let turn = 0;
  for await (const line of linesOf(path)) {
    if (line.kind === "undone" && ++turn > turns.length) return; // the run goes on, and goes back, meanwhile
    if (line.kind !== "step") continue;
    const { step, lossNats, gradientNorm, learningRate } = line.entry;
    if (step <= (turns[turn] ?? step)) yield { step, lossNats, gradientNorm, learningRate };
  }
}

/** For each time that the run went back: the last step before it that stands in the end. */
async function turnsOf(path: string): Promise<number[]> {
  const turns: number[] = [];
  for await (const line of linesOf(path)) if (line.kind === "undone") turns.push(line.undone.to);
  for (let i = turns.length - 2; i >= 0; i--) turns[i] = Math.min(turns[i]!, turns[i + 1]!);
  return turns;
}

const mentions = (path: string, text: string): Promise<boolean> =>
  onDisk(path, "read", async () => {
    let end = "";
    for await (const piece of createReadStream(path, "latin1") as AsyncIterable<string>) {
      if ((end + piece).includes(text)) return true;
      end = piece.slice(-text.length);
    }
    return false;
  });
