// What a run left on the disk for those who look later: every step of its ledger, joined with its evaluations.
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { type Past, readPast } from "../coordinator/past.ts";
import { ledgerName, linesOf } from "../coordinator/proof/chain.ts";
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
  readonly rows: readonly CurveRow[];
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
  const rows = new Map<number, CurveRow>();
  if (found)
    for await (const line of linesOf(path)) {
      if (line.kind !== "step") continue;
      const { step, lossNats, gradientNorm, learningRate } = line.entry;
      rows.set(step, { step, lossNats, gradientNorm, learningRate, valLossNats: null });
    }
  for (const [i, step] of (past?.validation.step ?? []).entries()) {
    const row = rows.get(step) ?? { step, lossNats: null, gradientNorm: null, learningRate: null };
    rows.set(step, { ...row, valLossNats: past!.validation.valLossNats[i]! });
  }
  const sorted = [...rows.values()].sort((a, b) => a.step - b.step);
  return { rows: sorted, past, writtenAt: found?.mtimeMs ?? Date.now() };
}
