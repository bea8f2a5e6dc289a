// Worker processes on this machine: started, watched, restarted with growing pauses when they crash, and stopped
// together. What they log goes through our own log, under their names.
import { type ChildProcess, spawn } from "node:child_process";
import { performance } from "node:perf_hooks";
import { createInterface } from "node:readline";
import type { Logger } from "pino";
import { ConfigError } from "../shared/errors.ts";

export interface Member {
  readonly name: string;
  /** Program and arguments. */
  readonly command: readonly [string, ...string[]];
  /** Added to our own environment. */
  readonly environment?: Readonly<Record<string, string>>;
}

const firstPauseMs = 500;
const longestPauseMs = 30_000;
/** A process that lives for less never got going. */
const stillbornMs = 10_000;
const mostStillborn = 3;
/** From the polite signal to the other one. */
const patienceMs = 10_000;

export class Team {
  /** Resolves with the reason when a member cannot be kept alive; never rejects. */
  readonly failed: Promise<Error>;
  readonly #log: Logger;
  readonly #members: Supervisor[];

  constructor(members: readonly Member[], log: Logger) {
    this.#log = log;
    let fail: (error: Error) => void = () => {};
    this.failed = new Promise((resolve) => {
      fail = resolve;
    });
    this.#members = members.map((member) => new Supervisor(member, this.#log, fail));
  }

  /** Resolves when every member has ended of its own accord, with status 0. */
  async finished(): Promise<void> {
    await Promise.all(this.#members.map((member) => member.finished));
  }

  /** Ask all to stop, and see to it that they do. */
  async stop(): Promise<void> {
    await Promise.all(this.#members.map((member) => member.stop()));
  }
}

class Supervisor {
  readonly finished: Promise<void>;
  readonly #member: Member;
  readonly #log: Logger;
  readonly #fail: (error: Error) => void;
  #finish: () => void = () => {};
  #child: ChildProcess | undefined;
  #timer: NodeJS.Timeout | undefined;
  #stopping = false;
  #stillborn = 0;
  #pauseMs = firstPauseMs;
  #lastWords = "";

  constructor(member: Member, log: Logger, fail: (error: Error) => void) {
    this.#member = member;
    this.#log = log;
    this.#fail = fail;
    this.finished = new Promise((resolve) => {
      this.#finish = resolve;
    });
    this.#start();
  }

  #start(): void {
    const [program, ...args] = this.#member.command;
    const startedAt = performance.now();
    const child = spawn(program, args, {
      env: { ...process.env, ...this.#member.environment },
      stdio: ["ignore", "pipe", "pipe"],
      // A terminal sends Ctrl-C to every process of its group: ours are told by us, in order.
      detached: true,
    });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr])
      createInterface({ input: stream! }).on("line", (line) => this.#relay(line));
    child.on("error", (error) => this.#relay(error.message));
    child.on("close", (code, signal) => {
      this.#child = undefined;
      if (this.#stopping || code === 0) this.#finish();
      else this.#onCrash(code === null ? `was ended by ${signal}` : `exited with status ${code}`, startedAt);
    });
  }

  #onCrash(how: string, startedAt: number): void {
    const lived = performance.now() - startedAt;
    this.#stillborn = lived < stillbornMs ? this.#stillborn + 1 : 0;
    const what = `${this.#member.name} ${how}${this.#lastWords && `: ${this.#lastWords}`}`;
    if (this.#stillborn >= mostStillborn) {
      this.#fail(new ConfigError(`${what} (${mostStillborn} times in a row)`));
      return;
    }
    if (lived >= stillbornMs) this.#pauseMs = firstPauseMs;
    this.#log.warn(`${what}; starting it again in ${this.#pauseMs / 1000} s`);
    this.#timer = setTimeout(() => this.#start(), this.#pauseMs);
    this.#pauseMs = Math.min(2 * this.#pauseMs, longestPauseMs);
  }

  /** A line of the child: one of its JSON log lines, or plain text. */
  #relay(line: string): void {
    let entry: { level?: number; msg?: string; name?: string; time?: number; pid?: number; hostname?: string };
    try {
      entry = JSON.parse(line);
    } catch {
      this.#lastWords = line;
      this.#log.warn(`${this.#member.name}: ${line}`);
      return;
    }
    const { level = 30, msg = "", ...rest } = entry;
    const { name: _name, time: _time, pid: _pid, hostname: _hostname, ...fields } = rest;
    const text = `${this.#member.name}: ${msg}`;
    if (level >= 40) this.#log.warn(fields, text);
    else this.#log.info(fields, text);
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#timer);
    const child = this.#child;
    if (!child) return;
    const force = setTimeout(() => child.kill("SIGKILL"), patienceMs);
    child.kill("SIGTERM");
    await this.finished;
    clearTimeout(force);
  }
}
