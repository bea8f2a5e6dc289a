// Hugging Face's way of writing a model down: config.json and named tensors in safetensors, as `transformers` opens
// them. What each family is called there stands in its own file (shared/family/).
import { z } from "zod";
import { ConfigError } from "../errors.ts";
import { families, familyNames, familyOf } from "../family/families.ts";
import type { Slot } from "../family/family.ts";
import { layoutOf } from "../family/layout.ts";
import { type ModelConfig, modelSchema } from "../model.ts";
import type { TensorToWrite } from "./safetensors.ts";

/** The contents of config.json. */
export function configOf(model: ModelConfig): Record<string, unknown> {
  const { modelType, write } = familyOf(model).huggingFace;
  return { model_type: modelType, ...write(model) };
}

/** What `transformers` will compute differently from this model, for people; empty where nothing. */
export function differencesInTransformers(model: ModelConfig): string[] {
  return familyOf(model).huggingFace.differences(model);
}

const typeSchema = z.object({ model_type: z.string() });

/**
 * The model that a config.json describes.
 * @param where the file's path, for messages
 * @throws ConfigError on a model that Weft does not have
 */
export function modelOf(config: unknown, where: string): ModelConfig {
  const type = typeSchema.safeParse(config).data?.model_type;
  const family = familyNames.find((name) => families[name].huggingFace.modelType === type);
  if (!family) {
    const known = familyNames.map((name) => `"${families[name].huggingFace.modelType}"`).join(", ");
    throw new ConfigError(
      `${where}: not a model that Weft has: its model_type is ${JSON.stringify(type?.slice(0, 80)) ?? "absent"}, expected one of ${known}`,
    );
  }
  const model = modelSchema.safeParse({ family, ...families[family].huggingFace.read(config, where) });
  if (!model.success) throw new ConfigError(`${where}: ${z.prettifyError(model.error)}`);
  return model.data;
}

/** A tensor's name without the prefix, which a model with a head writes and one without does not. */
export function bareName(model: ModelConfig, name: string): string {
  const { prefix } = familyOf(model).huggingFace;
  return name.startsWith(prefix) ? name.slice(prefix.length) : name;
}

function fileName(model: ModelConfig, { key, name }: Slot): string {
  return key === "head.weight" ? name : `${familyOf(model).huggingFace.prefix}${bareName(model, name)}`;
}

/**
 * The tensors of model.safetensors, the prefix on all but the head. A model without biases gets zero ones, because
 * transformers' models always have them.
 * @param weights (P) in the layout's order; the tensors are views of it
 */
export function tensorsOf(model: ModelConfig, weights: Float32Array): TensorToWrite[] {
  const own = layoutOf(model).byKey;
  return layoutOf({ ...model, bias: true }).parameters.map((parameter) => {
    const offset = own.get(parameter.key)?.offset;
    const { shape, size } = parameter;
    return {
      name: fileName(model, parameter),
      shape,
      data: offset === undefined ? new Float32Array(size) : weights.subarray(offset, offset + size),
    };
  });
}
