// What `weft train` says at its end, and how a person calls this program.
import { basename, relative } from "node:path";
import type { Curves } from "../coordinator/history.ts";
import type { RunResult } from "../coordinator/loop.ts";
import { durationText } from "./duration.ts";
import { plot } from "./plot.ts";

export interface Ended extends Pick<RunResult, "step" | "finished" | "valLossNats" | "checkpoint"> {
  /** Of this start. */
  readonly seconds: number;
  readonly steps: number;
  readonly tokens: number;
}

const rows = 8;

/** Numbers of the run, and where the screen can show it the curve of its loss. @param columns of the screen */
export function summary(ended: Ended, { train, validation }: Curves, columns: number | undefined): string[] {
  const { step, finished, seconds, steps, tokens, valLossNats } = ended;
  const count = (n: number): string => Math.round(n).toLocaleString("en");
  const speed = tokens > 0 ? `, ${count(tokens)} tokens, ${count(tokens / seconds)} tokens/s` : "";
  const done = steps === step ? `${step} steps` : `step ${step}: ${steps} steps`;
  const lines = [`${finished ? "finished" : "stopped after"} ${done} in ${durationText(seconds)}${speed}`];
  const best = validation.valLossNats.reduce((least, loss, i, all) => (loss < all[least]! ? i : least), 0);
  const bestLoss = validation.valLossNats[best];
  const losses = [
    train.lossNats.length === 0 ? "" : `training loss ${train.lossNats.at(-1)!.toFixed(4)}`,
    valLossNats === null ? "" : `validation loss ${valLossNats.toFixed(4)}`,
    bestLoss === undefined ? "" : `best ${bestLoss.toFixed(4)} after step ${validation.step[best]}`,
  ].filter((part) => part !== "");
  if (losses.length > 0) lines.push(losses.join(", "));
  const curve = columns === undefined ? [] : plot(train.step, train.lossNats, Math.min(columns - 1, 100), rows);
  return curve.length === 0 ? lines : [...lines, "", ...curve, ""];
}

/** How this program was called, so that a line it prints can be copied: "weft", "npx weft" or "node dist/cli/weft.js". */
export function calledAs(argv: readonly string[], environment: Readonly<Record<string, string | undefined>>): string {
  if (environment.npm_command !== undefined) return "npx weft";
  const script = argv[1] ?? "weft";
  const path = relative(process.cwd(), script);
  return basename(script) === "weft" ? "weft" : `node ${path.startsWith("..") ? script : path}`;
}
