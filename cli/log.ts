// What a run says while it works: a progress bar and short sentences on a terminal, JSON lines elsewhere. Both go to
// standard error, so that standard output holds results alone.
import { Writable } from "node:stream";
import { Presets, SingleBar } from "cli-progress";
import pino, { type Logger } from "pino";

/** Fields of the loop's "step" line. */
interface StepLine {
  msg: string;
  level: number;
  step?: number;
  lossNats?: number;
  valLossNats?: number;
  tokensPerSec?: number;
  workers?: number;
}

/** @param steps of the run, for the bar; none where there is no bar to draw */
export function createLog(name: string, steps?: number): { log: Logger; close: () => void } {
  if (!process.stderr.isTTY) return { log: pino({ name }, pino.destination(2)), close: () => {} };
  const screen = new Screen(steps);
  return { log: pino({ name }, screen), close: () => screen.close() };
}

class Screen extends Writable {
  readonly #bar: SingleBar | undefined;
  readonly #steps: number;
  #started = false;
  #valLoss = "";

  constructor(steps?: number) {
    super({ decodeStrings: false });
    this.#steps = steps ?? 0;
    if (steps !== undefined)
      this.#bar = new SingleBar(
        {
          format:
            "{bar} {value}/{total} | loss {loss}{valLoss} | {speed} tokens/s | {workers} workers | {eta_formatted} left",
          stream: process.stderr,
          hideCursor: null,
          barsize: 24,
          etaBuffer: 50,
          fps: 5,
        },
        Presets.shades_classic,
      );
  }

  override _write(text: string, _encoding: BufferEncoding, done: () => void): void {
    const line = JSON.parse(text) as StepLine;
    if (line.msg === "step") this.#showStep(line);
    else if (line.msg === "validation") this.#valLoss = `, validation ${line.valLossNats?.toFixed(4)}`;
    else this.#say(line);
    done();
  }

  #showStep({ step = 0, lossNats = 0, tokensPerSec = 0, workers = 0 }: StepLine): void {
    if (!this.#bar) return;
    const payload = {
      loss: lossNats.toFixed(4),
      valLoss: this.#valLoss,
      speed: Math.round(tokensPerSec).toLocaleString("en"),
      workers,
    };
    if (this.#started) this.#bar.update(step, payload);
    else this.#bar.start(this.#steps, step, payload);
    this.#started = true;
  }

  /** A sentence above the bar. */
  #say({ msg, level }: StepLine): void {
    const clear = this.#started ? "\r\x1b[K" : "";
    process.stderr.write(`${clear}${level >= 40 ? "warning: " : ""}${msg}\n`);
  }

  close(): void {
    if (this.#started) this.#bar?.stop();
    this.#started = false;
  }
}

/** A line "[cpu0] ..." of a launched process: its JSON log line becomes one of ours, under its label. */
export function relay(log: Logger, line: string): void {
  const [, label = "", text = line] = /^\[(\S+)\] (.*)$/s.exec(line) ?? [];
  try {
    const { level, msg, name: _n, time: _t, pid: _p, hostname: _h, ...fields } = JSON.parse(text);
    log[level >= 40 ? "warn" : "info"](fields, `${label}: ${msg}`);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    log.info(`${label}: ${text}`);
  }
}
