// What a run says while it works: a line of progress under short sentences on a terminal, JSON lines elsewhere. Both go
// to standard error, so that standard output holds results alone.
import { Writable } from "node:stream";
import pino, { type Logger } from "pino";
import { logLine } from "../shared/json.ts";
import { durationText } from "./duration.ts";
import { bar, StatusLine } from "./status-line.ts";
import { onOneLine, printable } from "./terminal.ts";

export interface Log {
  readonly log: Logger;
  /** For this terminal alone, such as a token: not a line of the log. */
  say(text: string): void;
  /** End the line of progress; what is said later stands below it. */
  close(): void;
}

/** Fields of the loop's "step" and "validation" lines, and of a sentence. */
interface LogLine {
  msg: string;
  level: number;
  step?: number;
  sample?: string;
  /** Of the whole run. */
  steps?: number;
  lossNats?: number;
  valLossNats?: number;
  tokensPerSec?: number;
  etaSeconds?: number;
  workers?: number;
}

export function createLog(name: string): Log {
  if (!process.stderr.isTTY) {
    const say = (text: string): void => void process.stderr.write(`${text}\n`);
    const output = pino.destination(2);
    output.on("error", () => {}); // a full disk under the log must not end a run
    // JSON has escaped what ASCII calls controls, but not the others.
    const log = pino({ name }, { write: (line) => void output.write(printable(line)) });
    return { log, say, close: () => {} };
  }
  const line = new StatusLine(process.stderr);
  const log = pino({ name }, new Screen(line));
  return { log, say: (text) => line.say(text), close: () => line.stop() };
}

/** What the line of progress shows. */
export interface Progress {
  readonly step: number;
  readonly steps: number;
  readonly lossNats: number;
  readonly valLossNats?: number | undefined;
  readonly tokensPerSec: number;
  readonly workers: number;
  readonly etaSeconds: number;
}

const isProgress = (msg: string): boolean => msg === "step" || msg === "validation";

class Screen extends Writable {
  readonly #line: StatusLine;
  #progress: Progress | undefined;
  #valLossNats: number | undefined;

  constructor(line: StatusLine) {
    super({ decodeStrings: false });
    this.#line = line;
  }

  override _write(text: string, _encoding: BufferEncoding, done: () => void): void {
    const line = JSON.parse(text) as LogLine;
    if (isProgress(line.msg)) this.#showProgress(line);
    else {
      const sentence = line.sample === undefined ? line.msg : `${line.msg}: ${line.sample}`;
      this.#line.say(`${line.level >= 40 ? "warning: " : ""}${onOneLine(sentence)}`);
    }
    done();
  }

  #showProgress({ msg, valLossNats, ...step }: LogLine): void {
    this.#valLossNats = valLossNats ?? this.#valLossNats;
    const { step: done = 0, steps = 0, lossNats = 0, tokensPerSec = 0, etaSeconds = 0, workers = 0 } = step;
    const numbers =
      msg === "step" ? { step: done, steps, lossNats, tokensPerSec, etaSeconds, workers } : this.#progress;
    if (!numbers) return;
    const progress = { ...numbers, valLossNats: this.#valLossNats };
    this.#progress = progress;
    this.#line.show((columns) => progressLine(progress, columns));
  }
}

/** As much as fits, and always how far, how fast and how long still. */
export function progressLine(progress: Progress, columns: number): string {
  const { step, steps, lossNats, valLossNats, tokensPerSec, workers, etaSeconds } = progress;
  const speed = `${Math.round(tokensPerSec).toLocaleString("en")} tokens/s`;
  const left = step === steps ? "done" : `${durationText(etaSeconds)} left`;
  const validation = valLossNats === undefined ? "" : `, validation ${valLossNats.toFixed(4)}`;
  const parts = (withBar: number, loss: string, crew: string): string =>
    [`${withBar ? `${bar(step / steps, withBar)} ` : ""}${step}/${steps}`, loss, speed, crew, left]
      .filter((part) => part !== "")
      .join(" | ");
  const loss = `loss ${lossNats.toFixed(4)}`;
  const crew = `${workers} ${workers === 1 ? "worker" : "workers"}`;
  const wide = parts(24, loss + validation, crew);
  const versions = [
    wide,
    parts(12, loss + validation, crew),
    parts(12, loss + validation, ""),
    parts(6, loss + validation.replace("validation", "val"), ""),
    parts(6, loss, ""),
    parts(0, loss, ""),
    parts(0, "", ""),
  ];
  return versions.find((version) => version.length <= columns) ?? `${speed} | ${left}`;
}

/** A line "[cpu0] ..." of a launched process: its JSON log line becomes one of ours, under its label if it has one. */
export function relay(log: Logger, line: string): void {
  const [, label = "", text = line] = /^\[(\S+)\] (.*)$/s.exec(line) ?? [];
  const prefix = label === "" ? "" : `${label}: `;
  const { level, msg, name: _n, time: _t, pid: _p, hostname: _h, ...fields } = logLine(text) ?? {};
  if (typeof msg !== "string") log.info(prefix + text);
  else log[Number(level) >= 40 ? "warn" : "info"](fields, isProgress(msg) ? msg : prefix + msg);
}
