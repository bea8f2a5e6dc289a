// Who guards the guard: the compiled program is broken in one place after another, and the worlds that notice are named.
// A place that no world notices ends with status 1.
//
//   npm run mutations [-- --worlds 2000] [--only NAME]
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { flagsOf } from "../../bench/flags.ts";

interface Mutation {
  readonly what: string;
  /** Below dist/. */
  readonly file: string;
  readonly from: string;
  readonly to: string;
  /** A liar is in each world, and so many leases are asked twice. */
  readonly verify?: string;
}

const mutations: readonly Mutation[] = [
  {
    what: "late leases are not repeated",
    file: "coordinator/crew/plan.js",
    from: "const late = this.#find(",
    to: "const late = undefined && this.#find(",
  },
  {
    what: "nothing is ever late",
    file: "coordinator/crew/plan.js",
    from: "const lateFactor = 2;",
    to: "const lateFactor = 1e9;",
  },
  {
    what: "copies of an answered part stay out",
    file: "coordinator/crew/dispatch.js",
    from: "for (const other of others)\n            this.#release(work, other);",
    to: "",
  },
  {
    what: "NaN and what is beyond float32 counts",
    file: "coordinator/crew/dispatch.js",
    from: "const refusal = round.refusal(",
    to: "const refusal = undefined && round.refusal(",
  },
  {
    what: "control messages are not checked",
    file: "shared/wire/protocol.js",
    from: "if (message.readUInt32LE(1) !== checksum(message, sequence))",
    to: "if (false)",
  },
  {
    what: "frames are not checked",
    file: "shared/wire/frame.js",
    from: "if (message.readUInt32LE(4) !== crc32(message.subarray(8)))",
    to: "if (false)",
  },
  {
    what: "weights of another step are computed with",
    file: "worker/session.js",
    from: "if (order.step !== this.#step)",
    to: "if (false)",
  },
  {
    what: "silence is not noticed",
    file: "shared/wire/channel.js",
    from: "if (silent > silenceMs)",
    to: "if (false)",
  },
  {
    what: "a worker whose answer could not count is asked again at once",
    file: "coordinator/crew/work.js",
    from: "this.refusals.set(unit, seen);",
    to: "",
  },
  {
    what: "the optimizer begins anew after a crash",
    file: "coordinator/loop.js",
    from: "setup.optimizer",
    to: "undefined",
  },
  {
    what: "second opinions are taken, whatever they say",
    file: "coordinator/crew/work.js",
    from: "other.worker !== worker && other.digest === digest",
    to: "other.worker !== worker",
    verify: "1",
  },
  {
    what: "what a liar gave before it was found out stays",
    file: "coordinator/crew/dispatch.js",
    from: "return this.#liars.splice(0);",
    to: "return [];",
    verify: "0.1",
  },
];

const values = flagsOf("npm run mutations --", {
  worlds: { type: "string", default: "2000" },
  only: { type: "string" },
});
const enough = 3;
const dist = join(import.meta.dirname, "../..");

/** The first worlds that fail with this change. */
async function noticed({ file, from, to, verify }: Mutation): Promise<string[]> {
  const broken = mkdtempSync(join(dist, "../dist-broken-"));
  try {
    cpSync(dist, broken, { recursive: true });
    const path = join(broken, file);
    const text = readFileSync(path, "utf8");
    if (text.split(from).length !== 2) throw new Error(`${file} has "${from}" ${text.split(from).length - 1} times`);
    writeFileSync(
      path,
      text.replace(from, () => to),
    );
    const flags = ["--seed", "1", "--worlds", values.worlds, ...(verify ? ["--verify", verify] : [])];
    const child = spawn(process.execPath, [join(broken, "test/simulator/main.js"), ...flags], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    const worlds: string[] = [];
    child.stderr.on("data", () => {});
    const ended = new Promise((resolve) => child.on("close", resolve));
    createInterface({ input: child.stdout }).on("line", (line) => {
      const world = /^world (\d+) FAILED/.exec(line);
      if (world && worlds.push(world[1]!) === enough) child.kill("SIGKILL");
    });
    const status = await ended;
    // What is thrown outside of every world ends them all.
    if (worlds.length === 0 && status !== 0) return ["the program itself"];
    return worlds;
  } finally {
    rmSync(broken, { recursive: true, force: true });
  }
}

let missed = 0;
for (const mutation of mutations.filter(({ what }) => values.only === undefined || what.includes(values.only))) {
  const worlds = await noticed(mutation);
  if (worlds.length === 0) missed++;
  console.log(`${worlds.length === 0 ? "MISSED " : "noticed"} ${mutation.what}: ${worlds.join(", ") || "no world"}`);
}
process.exitCode = missed > 0 ? 1 : 0;
