// The reference numbers from PyTorch, in oracles/ beside this file.
import { join } from "node:path";
import { readBytes, readFloats, readHeader } from "../shared/checkpoint/safetensors.ts";
import { layoutOf } from "../shared/family/layout.ts";
import type { ModelConfig } from "../shared/model.ts";
import { modelSchema } from "../shared/model.ts";

const folder = join(import.meta.dirname, "oracles");

export interface Oracle {
  readonly model: ModelConfig;
  /** A scalar or curve of the metadata, parsed from its JSON. */
  meta<T>(key: string): T;
  readonly names: readonly string[];
  floats(name: string): Promise<Float32Array>;
  ints(name: string): Promise<Int32Array>;
  shape(name: string): readonly number[];
}

export async function openOracle(name: string): Promise<Oracle> {
  const path = join(folder, `${name}.safetensors`);
  const { metadata, tensors } = await readHeader(path);
  const entry = (tensor: string) => {
    const found = tensors.get(tensor);
    if (!found) throw new Error(`${path} has no ${tensor}`);
    return found;
  };
  return {
    model: modelSchema.parse({
      family: metadata.family,
      vocabSize: Number(metadata.vocabSize),
      blockSize: Number(metadata.blockSize),
      nLayer: Number(metadata.nLayer),
      nHead: Number(metadata.nHead),
      nEmbd: Number(metadata.nEmbd),
      bias: metadata.bias === "true",
      dropout: 0,
      activation: "gelu",
      tiedHead: metadata.tiedHead === "true",
      layerNormEps: Number(metadata.layerNormEps ?? 1e-5),
    }),
    meta: (key) => JSON.parse(metadata[key]!),
    names: [...tensors.keys()],
    floats: async (tensor) => {
      const out = new Float32Array(entry(tensor).length / 4);
      await readFloats(path, entry(tensor), out);
      return out;
    },
    ints: async (tensor) => {
      const out = new Int32Array(entry(tensor).length / 4);
      await readBytes(path, entry(tensor), new Uint8Array(out.buffer));
      return out;
    },
    shape: (tensor) => entry(tensor).shape,
  };
}

/** (P) the weights before the first step, in the layout's order. */
export async function startWeights(oracle: Oracle): Promise<Float32Array> {
  const layout = layoutOf(oracle.model);
  const weights = new Float32Array(layout.size);
  for (const { name, offset } of layout.parameters) weights.set(await oracle.floats(`param.${name}`), offset);
  return weights;
}
