// `node dist/bench/links.js`: tokens a second against the speed of the link, as a picture in docs/ with what `weft doctor`
// predicts. The coordinator here, the workers in a network namespace of their own, one veth between them that `tc` shapes
// at both ends. As root on Linux, with iproute2. Results are kept in a JSON file, so that a long picture can be made in
// several goes: only what is missing is measured.
//
//   node dist/bench/links.js [--settings a,b] [--workers 1,2,4,8] [--links 10,100,1000,10000] [--ways NAME,...]
//                            [--seconds 3] [--longest 20] [--limit 0] [--out docs/links]
//
// Workers of one machine share its cores. What counts is therefore the step as measured, without the computing of its last
// worker, with what that takes a worker that is alone. What shares the cores beside (encoding, checksums, sums) is not taken
// out: where there are more workers than cores, dots are hollow and too low.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { dirname } from "node:path";
import { type Planned, predict, type Way } from "../cli/advice.ts";
import { measureSpeed } from "../cli/doctor.ts";
import type { LinkReport } from "../cli/doctor-link.ts";
import { type Handling, measureHandling } from "../cli/handling.ts";
import { modelOf } from "../shared/config.ts";
import { layoutOf } from "../shared/family/layout.ts";
import { resolveOptions } from "../shared/resolve.ts";
import { flagsOf } from "./flags.ts";
import { linksChart } from "./links-chart.ts";
import { Site } from "./site.ts";

const values = flagsOf("node dist/bench/links.js", {
  settings: { type: "string", default: "a,b" },
  workers: { type: "string", default: "1,2,4,8" },
  links: { type: "string", default: "10,100,1000,10000" },
  ways: { type: "string", default: "" },
  seconds: { type: "string", default: "3" },
  longest: { type: "string", default: "20" },
  limit: { type: "string", default: "0" },
  out: { type: "string", default: "docs/links" },
});
const list = (text: string): string[] => text.split(",");

/** Eight shards and replicas, so that eight workers have work; the preset's model and, where it is that, batch. */
const settings = {
  a: { flags: { preset: "shakespeare-cpu", batchSize: 16, shards: 8, replicas: 8, dropout: 0 } },
  b: { flags: { preset: "shakespeare-char", batchSize: 8, shards: 8, replicas: 8, dropout: 0 } },
} as const;
type SettingName = keyof typeof settings;

export const ways: Readonly<Record<string, Way>> = {
  "star float32": { topology: "star", localSteps: 1, wire: "float32" },
  "star bf16": { topology: "star", localSteps: 1, wire: "bf16" },
  "relay float32": { topology: "relay", localSteps: 1, wire: "float32" },
  "H 20 int8": { topology: "star", localSteps: 20, wire: "int8" },
  "H 100 int8": { topology: "star", localSteps: 100, wire: "int8" },
};

export interface Cell {
  readonly setting: SettingName;
  readonly way: string;
  readonly workers: number;
  readonly mbps: number;
  /** Not measured where two updates would take longer than --longest. */
  readonly measured?: {
    readonly steps: number;
    readonly stepSeconds: number;
    /** Of them, what the worker whose answer was the last to come computed. */
    readonly computeSeconds: number;
    /** With what that takes a worker that is alone. */
    readonly tokensPerSec: number;
    readonly utilisation: number;
    /** At the coordinator, a step. */
    readonly bytesOut: number;
    readonly bytesIn: number;
  };
  readonly predicted: { readonly tokensPerSec: number; readonly utilisation: number };
}

interface Found {
  machine: { cpu: string; cores: number; node: string; date: string; command: string };
  handling?: Handling;
  /** Of one worker with one thread, by its processor time: with a core to itself. */
  tokensPerSec: Partial<Record<SettingName, number>>;
  /** As doctor measured it, by Mbit/s. */
  links: Record<string, Pick<LinkReport, "roundTripMs" | "downMBps" | "upMBps">>;
  cells: Omit<Cell, "predicted">[];
}

const jsonPath = `${values.out}.json`;
const found: Found = existsSync(jsonPath)
  ? JSON.parse(readFileSync(jsonPath, "utf8"))
  : { machine: {}, tokensPerSec: {}, links: {}, cells: [] };
found.machine = {
  cpu: cpus()[0]!.model,
  cores: cpus().length,
  node: process.version,
  date: new Date().toISOString().slice(0, 10),
  command: `node dist/bench/links.js ${process.argv.slice(2).join(" ")}`.trim(),
};
/** Predictions are of the model as it is now, whenever a cell was measured. */
const predictedCells = (): Cell[] => found.cells.map((cell) => ({ ...cell, predicted: predictOf(cell) }));
function write(): void {
  mkdirSync(dirname(values.out), { recursive: true });
  writeFileSync(jsonPath, `${JSON.stringify(found, null, 1)}\n`);
  writeFileSync(`${values.out}.svg`, linksChart(predictedCells(), Object.keys(ways), found.machine.cores));
}

const links = list(values.links).map(Number);
const endAt = Number(values.limit) > 0 ? performance.now() + 1000 * Number(values.limit) : Number.POSITIVE_INFINITY;

function plannedOf(setting: SettingName): Planned & { options: ReturnType<typeof resolveOptions>["options"] } {
  const { preset, ...flags } = settings[setting].flags;
  const { options } = resolveOptions({ preset, flags });
  const model = modelOf(options, 65);
  return { options, model, parameters: layoutOf(model).size };
}

function predictOf({ setting, way, workers, mbps }: Pick<Cell, "setting" | "way" | "workers" | "mbps">) {
  const means = { workers, tokensPerSec: found.tokensPerSec[setting]!, atOnce: workers };
  const measured = { ...means, link: found.links[mbps]!, handling: found.handling! };
  return predict(plannedOf(setting), measured, ways[way]!);
}

/** By processor time: what a worker would do that shares its core with nobody. */
async function aloneSpeed(setting: SettingName): Promise<number> {
  const { options, model } = plannedOf(setting);
  const cpuMs = () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  };
  return (await measureSpeed(options, model, 1, cpuMs)).tokensPerSec;
}

async function measureCells(site: Site, setting: SettingName, name: string, workers: number): Promise<void> {
  const planned = plannedOf(setting);
  const way = ways[name]!;
  const predictAt = (mbps: number) => predictOf({ setting, way: name, workers, mbps });
  const missing = links.filter(
    (mbps) =>
      !found.cells.some(
        (cell) =>
          cell.setting === setting &&
          cell.way === name &&
          cell.workers === workers &&
          cell.mbps === mbps &&
          cell.measured,
      ),
  );
  const put = (mbps: number, measured?: Cell["measured"]): void => {
    found.cells = found.cells.filter(
      (cell) => cell.setting !== setting || cell.way !== name || cell.workers !== workers || cell.mbps !== mbps,
    );
    found.cells.push({ setting, way: name, workers, mbps, ...(measured && { measured }) });
    write();
    if (!measured) return;
    const { tokensPerSec } = predictAt(mbps);
    const both = `${Math.round(measured.tokensPerSec)} tokens/s measured, ${Math.round(tokensPerSec)} predicted`;
    console.log(`${setting}, ${name}, ${workers} workers, ${mbps} Mbit/s: ${both}`);
  };
  const seconds = (mbps: number): number => {
    // Here they share the cores.
    const { stepSeconds, computeSeconds } = predictAt(mbps);
    return way.localSteps * stepSeconds + computeSeconds * Math.max(0, workers / cpus().length - 1);
  };
  const short = missing.filter((mbps) => 2 * seconds(mbps) <= Number(values.longest));
  for (const mbps of missing) put(mbps);
  if (short.length === 0 || performance.now() > endAt) return;
  site.shape(short[0]!);
  const { preset, ...flags } = settings[setting].flags;
  const run = await site.train(
    { preset, flags: { ...flags, localSteps: way.localSteps, wire: way.wire } },
    workers,
    way.topology,
  );
  try {
    // From slow to fast: a run learns at once that its workers have become faster.
    for (const mbps of short) {
      if (performance.now() > endAt) return;
      site.shape(mbps);
      const { steps, wallSeconds, computeSeconds, bytesIn, bytesOut } = await run.measure(Number(values.seconds));
      const stepSeconds = wallSeconds / steps;
      const alone = predictAt(mbps);
      const aloneSeconds = alone.computeSeconds / way.localSteps;
      const scaled = stepSeconds - computeSeconds / steps + aloneSeconds;
      const { batchSize, blockSize } = planned.options;
      put(mbps, {
        ...{ steps, stepSeconds, computeSeconds: computeSeconds / steps },
        tokensPerSec: (batchSize * blockSize) / scaled,
        utilisation: (alone.utilisation * alone.stepSeconds) / scaled,
        ...{ bytesOut: bytesOut / steps, bytesIn: bytesIn / steps },
      });
    }
  } finally {
    run.end();
  }
}

const site = new Site();
try {
  found.handling ??= measureHandling(1);
  for (const setting of list(values.settings) as SettingName[])
    found.tokensPerSec[setting] ??= await aloneSpeed(setting);
  for (const mbps of links)
    if (!found.links[mbps]) {
      site.shape(mbps);
      found.links[mbps] = await site.linkAsDoctorFindsIt();
    }
  for (const setting of list(values.settings) as SettingName[])
    for (const name of values.ways ? list(values.ways) : Object.keys(ways))
      for (const workers of list(values.workers).map(Number)) await measureCells(site, setting, name, workers);
} finally {
  site.close();
  write();
}
for (const [who, isOf] of [
  ["workers with a core each", ({ workers }: Cell) => workers <= found.machine.cores],
  ["more workers than cores", ({ workers }: Cell) => workers > found.machine.cores],
] as const) {
  const errors = predictedCells()
    .filter(isOf)
    .flatMap(({ measured, predicted }) =>
      measured ? Math.abs(predicted.tokensPerSec / measured.tokensPerSec - 1) : [],
    );
  const near = errors.filter((error) => error <= 0.15).length;
  console.log(`${who}: ${near} of ${errors.length} predictions within 15%`);
}
