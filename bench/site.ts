// Two ends of a link on one machine: the coordinator here, and a network namespace with the workers behind a veth that is
// shaped at both ends. Real programs, real sockets.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import type { LinkReport } from "../cli/doctor-link.ts";
import type { Topology } from "../cli/step-model.ts";
import { statusSchema } from "../coordinator/status.ts";
import { flagOf } from "../shared/config.ts";

const space = "weft-site";
const [here, there] = ["weft-link", "eth0"];
const address = "10.78.0.1";
const program = join(import.meta.dirname, "../cli/weft.js");
const token = "0123456789abcdef";

const ip = (...args: string[]) => execFileSync("ip", args, { stdio: ["ignore", "ignore", "pipe"] });
const inSpace = ["ip", "netns", "exec", space];

/** A run whose workers are at the other end. */
export interface SiteRun {
  /** At least so long and two updates of the weights, from the first that is begun and ended under the link as it is. */
  measure(seconds: number): Promise<Sample>;
  end(): void;
}

export interface Sample {
  readonly steps: number;
  readonly wallSeconds: number;
  /** Of the worker whose answer was the last to come, of each step. */
  readonly computeSeconds: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
}

export class Site {
  readonly #folder = mkdtempSync(join(tmpdir(), "weft-links-"));
  readonly #children = new Set<ChildProcess>();

  /** @throws where `ip` is missing or may not */
  constructor() {
    if (existsSync(`/run/netns/${space}`)) ip("netns", "delete", space); // of one that was ended in the middle
    ip("netns", "add", space);
    ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", space);
    ip("address", "add", `${address}/24`, "dev", here);
    ip("link", "set", here, "up");
    ip("-n", space, "address", "add", "10.78.0.2/24", "dev", there);
    for (const device of [there, "lo"]) ip("-n", space, "link", "set", device, "up");
  }

  /** The same rate both ways. */
  shape(mbps: number): void {
    const burst = Math.max(32, mbps / 16);
    const tbf = `root tbf rate ${mbps}mbit burst ${burst}kb latency 100ms`.split(" ");
    execFileSync("tc", ["qdisc", "replace", "dev", here, ...tbf]);
    execFileSync("tc", ["-n", space, "qdisc", "replace", "dev", there, ...tbf]);
  }

  #start(command: readonly string[], prefix: readonly string[] = []): ChildProcess {
    const [first, ...rest] = [...prefix, process.execPath, program, ...command];
    const child = spawn(first!, rest, {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, WEFT_TOKEN: token },
    });
    this.#children.add(child);
    return child;
  }

  #stop(children: readonly ChildProcess[]): void {
    for (const child of children) {
      child.kill("SIGKILL");
      this.#children.delete(child);
    }
  }

  /** Of lines of the log: @returns the first that fits, @throws where the program ends before */
  #heard<T>(child: ChildProcess, fits: (line: string) => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const said: string[] = [];
      createInterface({ input: child.stderr! }).on("line", (line) => {
        said.push(line);
        const result = fits(line);
        if (result !== undefined) resolve(result);
      });
      child.on("exit", () => reject(new Error(`bench: a program ended:\n${said.slice(-5).join("\n")}`)));
    });
  }

  async #coordinator(flags: readonly string[]): Promise<{ child: ChildProcess; url: string }> {
    const fixed = `--host ${address} --port 0 --no-shared-memory --eval-interval 0 --checkpoint-interval 0`.split(" ");
    const out = mkdtempSync(join(this.#folder, "run-"));
    const child = this.#start(["coordinator", ...fixed, "--out", out, ...flags]);
    const url = await this.#heard(child, (line) => /listening on ([\d.]+:\d+)/.exec(line)?.[1]);
    return { child, url };
  }

  /** What `weft doctor` says of the link, asked at the other end. */
  async linkAsDoctorFindsIt(): Promise<Pick<LinkReport, "roundTripMs" | "downMBps" | "upMBps">> {
    const { child, url } = await this.#coordinator(["--preset", "bigram"]);
    try {
      const [first, ...rest] = [...inSpace, process.execPath, program];
      const asked = ["doctor", "--preset", "bigram", "--json", "--port", "0", "--coordinator", `ws://${url}`];
      const env = { ...process.env, WEFT_TOKEN: token };
      const { link } = JSON.parse(execFileSync(first!, [...rest, ...asked], { encoding: "utf8", env }));
      const { roundTripMs, downMBps, upMBps } = link as LinkReport;
      return { roundTripMs, downMBps, upMBps };
    } finally {
      this.#stop([child]);
    }
  }

  async train(
    { preset, flags }: { preset: string; flags: Readonly<Record<string, string | number>> },
    workers: number,
    topology: Topology,
  ): Promise<SiteRun> {
    const given = Object.entries(flags).flatMap(([name, value]) => [flagOf(name), String(value)]);
    const { child, url } = await this.#coordinator(["--preset", preset, "--steps", "1000000", ...given]);
    const children = [child];
    let parent = url;
    if (topology === "relay") {
      const flags = ["--coordinator", `ws://${url}`, "--port", "0", "--no-shared-memory", "--threads", "1"];
      const relay = this.#start(["relay", ...flags], inSpace);
      children.push(relay);
      parent = await this.#heard(relay, (line) => /listening on ([\d.]+:\d+)/.exec(line)?.[1]);
    }
    for (let i = 0; i < workers; i++) {
      const worker = this.#start(["worker", "--coordinator", `ws://${parent}`, "--threads", "1"], inSpace);
      worker.stderr!.resume();
      children.push(worker);
    }
    const http = `http://${url}`;
    const headers = { authorization: `Bearer ${token}` };
    const status = async () => statusSchema.parse(await (await fetch(`${http}/status`, { headers })).json());
    const expected = topology === "relay" ? 1 : workers;
    // A relay's workers are seen in its name.
    const isThere = (device: string) => topology === "star" || device.includes(`: ${workers} worker`);
    for (;;) {
      const { workers: known, step } = await status();
      const here = known.filter(({ state, device }) => state === "contributing" && isThere(device));
      if (here.length === expected && step > 0) break;
      await sleep(100);
    }
    /** Of the moment: what has been done, and how long it took. */
    const look = async () => {
      const text = await (await fetch(`${http}/metrics`, { headers })).text();
      const of = (name: string) => Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1] ?? 0);
      return {
        at: performance.now(),
        steps: of("weft_steps_total"),
        updates: of("weft_step_duration_seconds_count"),
        computeSeconds: of('weft_step_phase_duration_seconds_sum\\{phase="compute"\\}'),
        bytesIn: of("weft_received_bytes_total"),
        bytesOut: of("weft_sent_bytes_total"),
      };
    };
    /** The moment after the next update. */
    const nextUpdate = async (than: number) => {
      for (;;) {
        const seen = await look();
        if (seen.updates > than) return seen;
        await sleep(Math.min(50, 5 + (performance.now() - seen.at)));
      }
    };
    return {
      measure: async (seconds) => {
        // What is on its way while the link changes is of both; shares of work follow the speed of the answers.
        const first = await nextUpdate((await look()).updates + 1);
        let last = first;
        while (last.updates < first.updates + 2 || last.at - first.at < 1000 * seconds)
          last = await nextUpdate(last.updates);
        return {
          steps: last.steps - first.steps,
          wallSeconds: (last.at - first.at) / 1000,
          computeSeconds: last.computeSeconds - first.computeSeconds,
          bytesIn: last.bytesIn - first.bytesIn,
          bytesOut: last.bytesOut - first.bytesOut,
        };
      },
      end: () => this.#stop(children),
    };
  }

  close(): void {
    this.#stop([...this.#children]);
    ip("netns", "delete", space);
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
