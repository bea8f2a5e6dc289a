import { expect, test } from "vitest";
import { EngineError } from "../../../shared/errors.ts";
import type { ModelConfig } from "../../../shared/model.ts";
import { chooseEngine, openEngine } from "../../../worker/engine/choose.ts";
import type { Engine, EngineKind, EngineOptions } from "../../../worker/engine/contract.ts";

const model: ModelConfig = {
  family: "bigram",
  vocabSize: 5,
  blockSize: 4,
  nLayer: 0,
  nHead: 0,
  nEmbd: 0,
  bias: true,
  dropout: 0,
  activation: "gelu",
  tiedHead: true,
  layerNormEps: 1e-5,
};
const options: EngineOptions = { model, maxRows: 1, precision: "float32", threads: 1, device: "auto" };

/** A kind that is usable on these devices and answers with what it was asked. */
function stand(name: Engine["name"], ...devices: string[]): EngineKind {
  return {
    name,
    probe: async ({ device }) => ({ usable: devices.includes(device), why: `${name} on ${device}` }),
    create: async ({ device }) => ({ name, device }) as Engine,
  };
}

test.each([
  ["a GPU before a faster CPU engine", [stand("native", "cpu"), stand("tfjs", "gpu", "cpu")], {}, "tfjs", "gpu"],
  ["the first CPU engine without a GPU", [stand("native", "cpu"), stand("tfjs", "cpu")], {}, "native", "cpu"],
  ["what is left", [stand("native"), stand("tfjs", "cpu")], {}, "tfjs", "cpu"],
  [
    "the engine of a named backend",
    [stand("native", "auto"), stand("tfjs", "auto")],
    { backend: "wasm" },
    "tfjs",
    "auto",
  ],
  ["xla on a GPU before others", [stand("xla", "gpu", "cpu"), stand("tfjs", "gpu", "cpu")], {}, "xla", "gpu"],
  ["xla on a CPU never by itself", [stand("xla", "cpu"), stand("tfjs", "cpu")], {}, "tfjs", "cpu"],
  ["the engine of a named isa", [stand("tfjs", "cpu"), stand("native", "cpu")], { isa: "plain" }, "native", "cpu"],
] as [string, EngineKind[], Partial<EngineOptions>, string, string][])(
  "auto takes %s",
  async (_, from, change, name, device) => {
    const { engine } = await openEngine("auto", { ...options, ...change }, from);
    expect(engine).toEqual({ name, device });
  },
);

test("the reason names what was passed over on the same device", async () => {
  const { why } = await openEngine("auto", options, [stand("native"), stand("tfjs", "cpu")]);
  expect(why).toBe("not native on cpu; tfjs on cpu");
});

test("a GPU that is passed over for what else was asked is named", async () => {
  const tf32: EngineKind = {
    ...stand("tfjs"),
    probe: async ({ device }) => ({ usable: false, isMissed: device === "gpu", why: `tfjs on ${device} is tf32` }),
  };
  const { why } = await openEngine("auto", options, [stand("native", "cpu"), tf32]);
  expect(why).toBe("not tfjs on gpu is tf32; native on cpu");
});

test("what was asked for and is not usable is refused, never replaced", async () => {
  const from = [stand("native"), stand("tfjs", "auto", "cpu")];
  await expect(openEngine("native", options, from)).rejects.toThrow(/"native".*native on auto/);
  await expect(openEngine("auto", { ...options, device: "gpu" }, from)).rejects.toThrow(EngineError);
  await expect(openEngine("tfjs", { ...options, precision: "bf16", backend: "wasm" })).rejects.toThrow(/float32/);
  for (const name of ["native", "xla", "tfjs"] as const)
    await expect(openEngine(name, { ...options, precision: "tf32", device: "cpu" })).rejects.toThrow(/tf32|no plugin/);
  await expect(openEngine("tfjs", { ...options, device: "gpu", backend: "wasm" })).rejects.toThrow(/wasm.*gpu/);
});

test("wasm is always there", async () => {
  const { engine, why } = await openEngine("tfjs", { ...options, backend: "wasm" });
  expect([engine.name, engine.arithmetic]).toEqual(["tfjs", "tfjs wasm float32"]);
  expect(why).toContain("wasm");
  await engine.dispose();
});

test("what an engine would take is told without loading TensorFlow.js", async () => {
  const { kind, asked } = await chooseEngine("tfjs", { ...options, backend: "wasm" });
  expect(await kind.planned!(asked)).toEqual({
    bytes: expect.any(Number),
    addressableBytes: 0.875 * (2 ** 32 - 65_536),
  });
  await chooseEngine("tfjs", { ...options, backend: "tensorflow" }).catch(() => {});
  expect(globalThis).not.toHaveProperty("_tfengine");
});
