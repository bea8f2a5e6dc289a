// `node dist/bench/loss-table.js`: what local steps and small wires cost in loss at equal tokens, as a table in docs/. Results are
// kept beside it, a line of JSON each, so that a long table can be made in several goes: only what is missing is trained.
//
//   node dist/bench/loss-table.js [--preset shakespeare-cpu] [--data SOURCE] [--steps 2000] [--batch-size 48] [--seeds 1337,1,2]
//                         [--local-steps 1,5,20,50,100] [--replicas 2,4,8] [--wires float32,bf16,int8,int4]
//                         [--inner averaged,fresh] [--outer-learning-rate 0.7] [--outer-momentum 0.8] [--late]
//                         [--with nLayer=2,nEmbd=64] [--out docs/local-steps-loss]
//
// Equal tokens: a step is `--batch-size` windows whoever computes them, `batch-size / replicas` by each replica. One local
// step is synchronous training, in float32 and in the wires that are asked for.
//
// On many cores: a process for each part of the table, on a core of its own, all with the same --out; then the whole table
// again, which trains nothing. Lines of other machines are joined with `cat`.
//
//   for h in 1 5 20 50 100; do for s in 1337 1 2; do
//     taskset -c $((core++)) node dist/bench/loss-table.js --local-steps $h --seeds $s &
//   done; done; wait; node dist/bench/loss-table.js
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { dirname } from "node:path";
import { type Dataset, openDataset } from "../coordinator/data/dataset.ts";
import { type WireFormat, wireFormats } from "../shared/arithmetic/codec.ts";
import { modelOf, type Options, optionTable } from "../shared/config.ts";
import { ConfigError } from "../shared/errors.ts";
import { resolveOptions } from "../shared/resolve.ts";
import { openEngine } from "../worker/engine/choose.ts";
import type { Engine } from "../worker/engine/contract.ts";
import { flagsOf } from "./flags.ts";
import { trainLocally, trainSynchronously } from "./local.ts";

const values = flagsOf("node dist/bench/loss-table.js", {
  preset: { type: "string", default: "shakespeare-cpu" },
  data: { type: "string", default: "shakespeare" },
  steps: { type: "string", default: "2000" },
  "batch-size": { type: "string", default: "48" },
  seeds: { type: "string", default: "1337,1,2" },
  "local-steps": { type: "string", default: "1,5,20,50,100" },
  replicas: { type: "string", default: "2,4,8" },
  wires: { type: "string", default: wireFormats.join(",") },
  inner: { type: "string", default: "averaged" },
  "outer-learning-rate": { type: "string", default: String(optionTable.outerLearningRate.default) },
  "outer-momentum": { type: "string", default: String(optionTable.outerMomentum.default) },
  late: { type: "boolean", default: false },
  with: { type: "string", default: "" },
  out: { type: "string", default: "docs/local-steps-loss" },
});
/** Of the preset's numbers, those that are others. */
const changes = Object.fromEntries(
  values.with
    .split(",")
    .filter(Boolean)
    .map((pair) => pair.split("="))
    .map(([name, value]) => [name!, Number(value)]),
);
function refuse(text: string): never {
  console.error(text);
  process.exit(1);
}
const listed = <T extends string>(name: "wires" | "inner", all: readonly T[]): T[] =>
  values[name]
    .split(",")
    .map((given) => all.find((one) => one === given) ?? refuse(`--${name} ${given}: there are ${all.join(", ")}`));
const numbers = (name: "seeds" | "local-steps" | "replicas"): number[] =>
  values[name]
    .split(",")
    .map((given) => (/^\d+$/.test(given) ? Number(given) : refuse(`--${name} ${given} is no whole number`)));
const outer = {
  learningRate: Number(values["outer-learning-rate"]),
  momentum: Number(values["outer-momentum"]),
};
const [steps, batchSize] = [Number(values.steps), Number(values["batch-size"])];
const seeds = numbers("seeds");
/** Of a batch, where every step is exchanged. */
const shards = 4;

/** One trained cell: what it was, and how it ended. */
interface Cell {
  readonly name: string;
  readonly seed: number;
  readonly valLossNats: number;
  readonly arithmetic: string;
  readonly date: string;
}

interface Row {
  readonly label: readonly string[];
  readonly name: string;
  train(seed: number): Promise<{ valLossNats: number; arithmetic: string }>;
}

const cellsPath = `${values.out}.jsonl`;
mkdirSync(dirname(values.out), { recursive: true });

/** Those of other processes too. */
function find(name: string, seed: number): Cell | undefined {
  const lines = existsSync(cellsPath) ? readFileSync(cellsPath, "utf8").split("\n").filter(Boolean) : [];
  return lines.map((line): Cell => JSON.parse(line)).find((cell) => cell.name === name && cell.seed === seed);
}

/** @param train to a validation loss, on an engine of so many rows */
async function trained(
  rows: number,
  seed: number,
  train: (engine: Engine, dataset: Dataset, options: Options) => Promise<number>,
) {
  const options = resolveOptions({
    preset: values.preset,
    flags: { ...changes, data: values.data, steps, decaySteps: steps, batchSize, shards, seed },
  }).options;
  const dataset = await openDataset({ source: options.data, blockSize: options.blockSize });
  const model = modelOf(options, dataset.tokenizer.vocabSize);
  const { engine } = await openEngine("auto", {
    model,
    maxRows: rows,
    precision: "float32",
    threads: 0,
    device: "auto",
  });
  const valLossNats = await train(engine, dataset, options);
  await engine.dispose();
  return { valLossNats, arithmetic: engine.arithmetic };
}

const of = (what: string) =>
  `${[values.preset, values.data, values.with].filter(Boolean).join(" ")} ${steps} steps of ${batchSize}: ${what}`;
const tick = (what: string) => (step: number) => {
  if (step === steps || step % 100 === 0) process.stderr.write(`\r${what}: step ${step} of ${steps}   `);
};

const synchronous = (wire: WireFormat): Row => {
  const what = wire === "float32" ? "synchronous" : `synchronous ${wire}`;
  return {
    label: ["1", "1", wire, ""],
    name: of(what),
    train: (seed) => trained(batchSize / shards, seed, (...on) => trainSynchronously(...on, wire, tick(what))),
  };
};
const wires = listed("wires", wireFormats);
const exact = synchronous("float32");
const rows: Row[] = [];
for (const localSteps of numbers("local-steps"))
  if (localSteps === 1) rows.push(exact, ...wires.filter((wire) => wire !== "float32").map(synchronous));
  else
    for (const replicas of numbers("replicas"))
      for (const innerState of listed("inner", ["averaged", "fresh"]))
        for (const wire of wires) {
          const what = `H ${localSteps} R ${replicas} ${wire} ${innerState} outer ${outer.learningRate} ${outer.momentum}${values.late ? " late" : ""}`;
          rows.push({
            label: [String(localSteps), String(replicas), wire, innerState],
            name: of(what),
            train: (seed) => {
              const plan = { localSteps, replicas, wire, innerState, outer, late: values.late };
              return trained(batchSize / replicas, seed, (...on) => trainLocally(...on, plan, tick(what)));
            },
          });
        }

function write(): void {
  const mean = (name: string): number | undefined => {
    const losses = seeds.map((seed) => find(name, seed)?.valLossNats);
    return losses.some((loss) => loss === undefined) ? undefined : losses.reduce((a, b) => a! + b!, 0)! / seeds.length;
  };
  const reference = mean(exact.name);
  const lines = rows.map(({ label, name }) => {
    const loss = mean(name);
    const all = seeds.map((seed) => find(name, seed)?.valLossNats.toFixed(4) ?? "-").join(", ");
    const change = loss === undefined || reference === undefined ? "" : `${(100 * (loss / reference - 1)).toFixed(2)}%`;
    return `| ${label.join(" | ")} | ${loss?.toFixed(4) ?? ""} | ${change} | ${all} |`;
  });
  const text = [
    "# What local steps cost",
    "",
    `Validation loss in nats at equal tokens: preset \`${[values.preset, values.with].filter(Boolean).join("` with `")}\` on ${values.data}, ${steps.toLocaleString("en")} steps of`,
    `${batchSize} windows shared among the replicas, outer Nesterov momentum ${outer.momentum} at learning rate`,
    `${outer.learningRate}. Moments are averaged along the tree at each round, or begun anew; on a small wire they travel in`,
    "bf16. Updates down are in the wire's format too, with error feedback. The change is against synchronous training in float32.",
    "",
    `Made by \`node dist/bench/loss-table.js ${process.argv.slice(2).join(" ")}\` on ${cpus()[0]!.model}, ${new Date().toISOString().slice(0, 10)}; each run is one`,
    "function of its seed, so that anyone gets the same numbers on the same arithmetic.",
    "",
    `| H | R | wire | inner state | loss | change | seeds ${seeds.join(", ")} |`,
    "| --: | --: | --- | --- | --: | --: | --- |",
    ...lines,
    "",
  ];
  writeFileSync(`${values.out}.md`, text.join("\n"));
}

try {
  for (const seed of seeds)
    for (const row of rows) {
      if (find(row.name, seed)) continue;
      const result = await row.train(seed);
      const cell: Cell = { name: row.name, seed, ...result, date: new Date().toISOString() };
      appendFileSync(cellsPath, `${JSON.stringify(cell)}\n`);
      process.stderr.write("\n");
      console.log(`${row.name}, seed ${seed}: ${result.valLossNats.toFixed(4)}`);
      write();
    }
  write();
} catch (error) {
  if (!(error instanceof ConfigError)) throw error;
  refuse(error.message);
}
