// What Weft writes opens in the real transformers with the same logits, and what transformers writes opens here with
// the same bits. Needs Python with both packages: scripts/ci-transformers.sh makes one and runs this file.
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { configOf, readPretrained, tensorsOf } from "../shared/huggingface.ts";
import { encode } from "../shared/safetensors.ts";
import { openOracle, oraclesPresent, startWeights } from "./oracle.ts";

const python = process.env.WEFT_TRANSFORMERS_PYTHON;
const cases = ["gpt2-tiny", "gpt2-nobias", "gpt2-odd", "gpt1-tiny"];

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "weft-transformers-"));
});
afterAll(() => rm(directory, { recursive: true }));

describe.skipIf(!python)("the real transformers (skipped without WEFT_TRANSFORMERS_PYTHON)", () => {
  test.skipIf(!oraclesPresent && !process.env.CI)("opens our models with PyTorch's own logits", async () => {
    for (const name of cases) {
      const oracle = await openOracle(name);
      const { model } = oracle;
      const path = join(directory, name);
      await mkdir(path);
      await writeFile(join(path, "config.json"), JSON.stringify(configOf(model)));
      const tensors = encode(tensorsOf(model, await startWeights(oracle)), { format: "pt" });
      await writeFile(join(path, "model.safetensors"), Buffer.concat(tensors));
      const [, , T] = oracle.shape("input.tokens") as [number, number, number];
      const logits = await oracle.floats("logits");
      const expected = {
        tokens: [...(await oracle.ints("input.tokens")).subarray(0, T)],
        logits: Array.from({ length: T }, (_, t) => [
          ...logits.subarray(t * model.vocabSize, (t + 1) * model.vocabSize),
        ]),
        exactGelu: model.family === "gpt1",
      };
      await writeFile(join(path, "expected.json"), JSON.stringify(expected));
    }
    const script = join(import.meta.dirname, "../scripts/transformers-logits.py");
    console.log(execFileSync(python!, [script, ...cases.map((name) => join(directory, name))], { encoding: "utf8" }));
    for (const name of cases) {
      const back = await readPretrained(join(directory, name, "again"));
      const weights = await startWeights(await openOracle(name));
      const differs = back.weights.findIndex((x, i) => !Object.is(x, weights[i]));
      expect(differs, `${name}[${differs}]: ${back.weights[differs]} for ${weights[differs]}`).toBe(-1);
    }
  });
});
