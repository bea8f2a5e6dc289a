// Hugging Face's way of writing a model down: config.json and named tensors in safetensors, as `transformers` opens
// them. What each family is called there stands in its own file (shared/family/).
import { z } from "zod";
import { checked } from "../check.ts";
import { ConfigError } from "../errors.ts";
import { families, familyNames, familyOf } from "../family/families.ts";
import type { Slot } from "../family/family.ts";
import { layoutOf } from "../family/layout.ts";
import { type ModelConfig, modelSchema } from "../model.ts";
import type { TensorToWrite } from "./safetensors.ts";

/**
 * The contents of config.json.
 * @param endOfText what ends a text, so that transformers' generate() ends too; it begins one there as well
 */
export function configOf(model: ModelConfig, endOfText?: number): Record<string, unknown> {
  const { modelType, write } = familyOf(model).huggingFace;
  const ids = endOfText === undefined ? {} : { bos_token_id: endOfText, eos_token_id: endOfText };
  return { model_type: modelType, ...write(model), ...ids };
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
  return checked(modelSchema, { family, ...families[family].huggingFace.read(config, where) }, where);
}

/** What PyTorch's compiled and distributed models put before every name. */
const wrappers = /^(?:(?:_orig_mod|module)\.)+/;

/** A tensor's name without the prefix, which a model with a head writes and one without does not. */
export function bareName(model: ModelConfig, name: string): string {
  const { prefix } = familyOf(model).huggingFace;
  const own = name.replace(wrappers, "");
  return own.startsWith(prefix) ? own.slice(prefix.length) : own;
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
