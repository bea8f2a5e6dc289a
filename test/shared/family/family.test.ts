import { describe, expect, test } from "vitest";
import { families, familyNames, familyOf } from "../../../shared/family/families.ts";
import type { Architecture, BlockRole } from "../../../shared/family/family.ts";
import { initialWeights } from "../../../shared/family/init.ts";
import { layoutOf } from "../../../shared/family/layout.ts";
import { type ModelConfig, modelSchema, summaryOf } from "../../../shared/model.ts";

const shape = {
  vocabSize: 11,
  blockSize: 6,
  nLayer: 2,
  nHead: 2,
  nEmbd: 8,
  bias: true,
  dropout: 0,
  activation: "gelu",
  tiedHead: true,
  layerNormEps: 1e-5,
} as const;

const modelOf = (family: ModelConfig["family"], changes: Partial<ModelConfig> = {}): ModelConfig => ({
  ...shape,
  ...(families[family].architecture === "table" && { nLayer: 0, nHead: 0, nEmbd: 0 }),
  family,
  ...changes,
});

/** The roles that an engine asks for, with their shapes, said once more. */
function wanted(architecture: Architecture, { bias, tiedHead }: ModelConfig): Map<string, string> {
  const [V, T, C] = [11, 6, 8];
  if (architecture === "table") return new Map([["table.weight", `${V},${V}`]]);
  const all = new Map([
    ["tokens.weight", `${V},${C}`],
    ["positions.weight", `${T},${C}`],
  ]);
  const pair = (role: string, weight: number[], width: number) => {
    all.set(`${role}.weight`, weight.join());
    if (bias) all.set(`${role}.bias`, `${width}`);
  };
  const parts: Record<BlockRole, [number[], number]> = {
    norm1: [[C], C],
    qkv: [[C, 3 * C], 3 * C],
    projection: [[C, C], C],
    norm2: [[C], C],
    expand: [[C, 4 * C], 4 * C],
    contract: [[4 * C, C], C],
  };
  for (const l of [0, 1])
    for (const [role, [weight, width]] of Object.entries(parts)) pair(`${l}.${role}`, weight, width);
  if (architecture === "pre-norm") pair("finalNorm", [C], C);
  if (!tiedHead) all.set("head.weight", `${V},${C}`);
  return all;
}

describe.each(familyNames)("%s", (family) => {
  test.each([{}, { bias: false }, { tiedHead: false }])(
    "every role of its architecture once, and no other: %o",
    (changes) => {
      const model = modelOf(family, changes);
      const layout = layoutOf(model);
      const keys = layout.parameters.map(({ key, shape }): [string, string] => [key, shape.join()]);
      expect(keys.sort()).toEqual([...wanted(familyOf(model).architecture, model)].sort());
      expect([layout.byKey.size, layout.byName.size]).toEqual([keys.length, keys.length]);
    },
  );

  test("config.json brings the same model back", () => {
    const model = modelOf(family, { activation: "gelu_tanh", dropout: 0.25 });
    const { write, read } = familyOf(model).huggingFace;
    expect({ family, ...read(JSON.parse(JSON.stringify(write(model))), "config.json") }).toEqual(model);
  });

  test("a shape without blocks is a model only where there are none", () => {
    const none = modelOf(family, { nLayer: 0, nHead: 0, nEmbd: 0 });
    expect(modelSchema.safeParse(none).success).toBe(families[family].architecture === "table");
  });
});

test("summaries", () => {
  expect(summaryOf(modelOf("gpt2"))).toBe("gpt2: 2 layers, 2 heads, 8 wide, block 6, vocabulary 11");
  expect(summaryOf(modelOf("bigram"))).toBe("bigram: block 6, vocabulary 11");
});

test("the first weights: deviation 0.02, 0.02 / sqrt(2 L) onto GPT-2's stream, 1 in a table; norms 1, biases 0", () => {
  const wide = { nEmbd: 64, vocabSize: 300, nLayer: 8 };
  const spread = (family: ModelConfig["family"], key: Parameters<ReturnType<typeof layoutOf>["byKey"]["get"]>[0]) => {
    const layout = layoutOf(modelOf(family, wide));
    const { offset, size } = layout.byKey.get(key)!;
    const values = initialWeights(layout, 5).subarray(offset, offset + size);
    const mean = values.reduce((a, b) => a + b, 0) / size;
    return Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / size);
  };
  expect(spread("gpt2", "tokens.weight")).toBeCloseTo(0.02, 3);
  expect(spread("gpt2", "3.expand.weight")).toBeCloseTo(0.02, 3);
  expect(spread("gpt2", "3.contract.weight")).toBeCloseTo(0.005, 3);
  expect(spread("gpt2", "3.projection.weight")).toBeCloseTo(0.005, 3);
  expect(spread("gpt1", "3.projection.weight")).toBeCloseTo(0.02, 3);
  expect(spread("bigram", "table.weight")).toBeCloseTo(1, 1);
  const layout = layoutOf(modelOf("gpt2"));
  const weights = initialWeights(layout, 5);
  const value = (key: "1.norm2.weight" | "1.norm2.bias") => weights[layout.byKey.get(key)!.offset];
  expect([value("1.norm2.weight"), value("1.norm2.bias")]).toEqual([1, 0]);
});
