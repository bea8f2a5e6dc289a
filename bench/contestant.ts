// One engine under measurement, in a process of its own: `node contestant.js '{"setting":"a","engine":"native",...}'`.
// It says when it is ready, then answers each line {"steps": n} with the seconds of n training steps: the weights to the
// engine, forward, backward (until here: gradientSeconds), clipping to norm 1, AdamW. nanogpt.py speaks the same.

import { createInterface } from "node:readline";
import { nativeAddon, nativeOps } from "../shared/arithmetic/native.ts";
import { scalarOps } from "../shared/arithmetic/vector.ts";
import { layoutOf } from "../shared/family/layout.ts";
import { openEngine } from "../worker/engine/choose.ts";
import { shardGradient } from "../worker/engine/shards.ts";
import { quickWeights, settings, tokensOf } from "./settings.ts";

export interface Contest {
  readonly setting: string;
  readonly engine: "native" | "tfjs" | "xla";
  readonly backend?: "tensorflow" | "wasm" | "webgpu";
  readonly precision: "float32" | "bf16";
  readonly threads: number;
}

const contest: Contest = JSON.parse(process.argv[2]!);
const setting = settings.find(({ name }) => name === contest.setting)!;
const { model, rows } = setting;
const layout = layoutOf(model);
const addon = nativeAddon();
const ops = addon ? nativeOps(new addon.Vectors(contest.threads, "auto")) : scalarOps;
const { engine } = await openEngine(contest.engine, {
  model,
  maxRows: rows,
  precision: contest.precision,
  threads: contest.threads,
  device: contest.engine === "xla" ? "cpu" : "auto",
  backend: contest.backend ?? "auto",
});

const weights = quickWeights(model);
const gradient = new Float32Array(layout.size);
const first = new Float32Array(layout.size);
const second = new Float32Array(layout.size);
const stream = Int32Array.from(
  { length: tokensOf(setting) + 1 },
  (_, i) => (i * 7919 + Math.floor(i / 3)) % model.vocabSize,
);
const tokens = stream.subarray(0, -1);
const targets = stream.subarray(1);
let count = 0;

const seconds: number[] = [];
const gradientSeconds: number[] = [];

async function step(): Promise<void> {
  const started = process.hrtime.bigint();
  await engine.setWeights(weights);
  await shardGradient(engine, tokens, targets, rows, { seed: 1337, step: count, shard: 0 }, gradient);
  const computed = process.hrtime.bigint();
  const norm = Math.sqrt(ops.sumOfSquares(gradient));
  count++;
  for (const { offset, size, decay } of layout.parameters) {
    const part = (x: Float32Array) => x.subarray(offset, offset + size);
    ops.adamw(part(weights), part(gradient), part(first), part(second), {
      learningRate: 1e-4,
      beta1: 0.9,
      beta2: 0.95,
      eps: 1e-8,
      weightDecay: decay ? 0.1 : 0,
      count,
      gradientScale: Math.min(1, 1 / (norm + 1e-6)),
    });
  }
  seconds.push(Number(process.hrtime.bigint() - started) / 1e9);
  gradientSeconds.push(Number(computed - started) / 1e9);
}

const answer = (value: object) => process.stdout.write(`${JSON.stringify(value)}\n`);

await step();
await step();
answer({ ready: `${engine.arithmetic}, ${engine.device}` });
for await (const line of createInterface({ input: process.stdin })) {
  const { steps } = JSON.parse(line);
  seconds.length = gradientSeconds.length = 0;
  for (let i = 0; i < steps; i++) await step();
  answer({ seconds, gradientSeconds, peakBytes: process.resourceUsage().maxRSS * 1024 });
}
await engine.dispose();
