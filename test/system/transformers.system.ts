// What Weft writes opens in the real transformers with the same logits, and what transformers writes opens here with
// the same bits. Needs Python with both packages: scripts/ci-transformers.sh makes one and runs this file.
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { PhiloxStream } from "../../shared/arithmetic/philox.ts";
import { configOf, tensorsOf } from "../../shared/checkpoint/huggingface.ts";
import { readPretrained } from "../../shared/checkpoint/pretrained.ts";
import { encode } from "../../shared/checkpoint/safetensors.ts";
import { initialWeights } from "../../shared/family/init.ts";
import { layoutOf } from "../../shared/family/layout.ts";
import type { ModelConfig } from "../../shared/model.ts";
import { openEngine } from "../../worker/engine/choose.ts";
import { openOracle, startWeights } from "../oracle.ts";

const python = process.env.WEFT_TRANSFORMERS_PYTHON;
if (!python) throw new Error("WEFT_TRANSFORMERS_PYTHON names no Python; run scripts/ci-transformers.sh");

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "weft-transformers-"));
});
afterAll(() => rm(directory, { recursive: true }));

interface Case {
  readonly name: string;
  readonly model: ModelConfig;
  readonly weights: Float32Array;
  readonly tokens: Int32Array;
  /** (T, V) */
  readonly logits: Float32Array;
}

/** PyTorch's own logits. */
async function oracleCase(name: string): Promise<Case> {
  const oracle = await openOracle(name);
  const T = oracle.shape("input.tokens")[2]!;
  return {
    name,
    model: oracle.model,
    weights: await startWeights(oracle),
    tokens: (await oracle.ints("input.tokens")).subarray(0, T),
    logits: (await oracle.floats("logits")).subarray(0, T * oracle.model.vocabSize),
  };
}

/** Logits of our engine, for what the oracles do not have: the tanh approximation and a head of its own. */
async function engineCase(name: string, changes: Partial<ModelConfig>): Promise<Case> {
  const model: ModelConfig = {
    family: "gpt2",
    vocabSize: 61,
    blockSize: 12,
    nLayer: 2,
    nHead: 3,
    nEmbd: 24,
    bias: true,
    dropout: 0.1,
    activation: "gelu_tanh",
    tiedHead: true,
    layerNormEps: 1e-5,
    ...changes,
  };
  const random = new PhiloxStream(3, 0);
  const weights = initialWeights(layoutOf(model), 3).map((w) => w + 0.2 * random.normal());
  const tokens = Int32Array.from({ length: model.blockSize }, () => random.below(model.vocabSize));
  const options = { model, maxRows: 1, precision: "float32", threads: 1, device: "cpu" } as const;
  const { engine } = await openEngine("tfjs", options);
  try {
    await engine.setWeights(weights);
    return { name, model, weights, tokens, logits: await engine.logits(tokens, 1) };
  } finally {
    await engine.dispose();
  }
}

async function write({ name, model, weights, tokens, logits }: Case): Promise<string> {
  const path = join(directory, name);
  const V = model.vocabSize;
  const expected = {
    tokens: [...tokens],
    logits: Array.from(tokens, (_, t) => [...logits.subarray(t * V, (t + 1) * V)]),
    // A token of ours stands for the end.
    eos: name.endsWith("-eos") ? 7 : null,
    exactGelu: model.family === "gpt1" && model.activation === "gelu",
  };
  await mkdir(path);
  await writeFile(join(path, "config.json"), JSON.stringify(configOf(model, expected.eos ?? undefined)));
  await writeFile(join(path, "model.safetensors"), Buffer.concat(encode(tensorsOf(model, weights), { format: "pt" })));
  await writeFile(join(path, "expected.json"), JSON.stringify(expected));
  return path;
}

test("the real transformers opens what we write, and we what it writes", async () => {
  const cases = [
    ...(await Promise.all(["gpt2-tiny", "gpt2-nobias", "gpt2-odd", "gpt1-tiny"].map(oracleCase))),
    await engineCase("gpt2-tanh", {}),
    await engineCase("gpt2-eos", {}),
    await engineCase("gpt2-own-head", { tiedHead: false, bias: false }),
    await engineCase("gpt1-tanh", { family: "gpt1" }),
    await engineCase("gpt1-own-head", { family: "gpt1", tiedHead: false }),
  ];
  const paths = await Promise.all(cases.map(write));
  const script = join(import.meta.dirname, "../../scripts/transformers-logits.py");
  execFileSync(python, [script, ...paths], { stdio: "inherit" });
  for (const [i, { name, model, weights }] of cases.entries()) {
    const back = await readPretrained(join(paths[i]!, "again"));
    expect(back.model, name).toEqual(model);
    const differs = back.weights.findIndex((x, at) => !Object.is(x, weights[at]));
    expect(differs, `${name}[${differs}]: ${back.weights[differs]} for ${weights[differs]}`).toBe(-1);
  }
});
