// Reading the weights of a directory in Hugging Face's form, by name, with whatever transformers and its ancestors leave
// beside them.
import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { z } from "zod";
import { checked } from "../check.ts";
import { ConfigError } from "../errors.ts";
import { familyOf } from "../family/families.ts";
import { type Layout, layoutOf } from "../family/layout.ts";
import { isAbsent, readJson } from "../json.ts";
import type { ModelConfig } from "../model.ts";
import { bareName, modelOf } from "./huggingface.ts";
import { readFloats, readHeader } from "./safetensors.ts";
import { shown, type TensorEntry } from "./safetensors-header.ts";

export interface Pretrained {
  readonly model: ModelConfig;
  readonly layout: Layout;
  /** (P) in the layout's order */
  readonly weights: Float32Array;
}

/**
 * Read a model's directory: config.json with model.safetensors, or its shards and their index. Every name and shape is
 * checked before memory is taken and the first weight is read.
 * @returns with the names of tensors that were left out: heads for other tasks, which transformers' language model
 * ignores too
 * @throws ConfigError naming the file, the tensor and both shapes where they do not fit
 */
export async function readPretrained(directory: string): Promise<Pretrained & { others: readonly string[] }> {
  const configPath = join(directory, "config.json");
  const model = modelOf(await readJson(configPath), configPath);
  const layout = layoutOf(model);
  const found = await findTensors(directory, model);
  const headCopy = takeTiedHead(found, model, layout);
  const wanted = layoutOf({ ...model, bias: true }).parameters.map((parameter) => {
    const name = bareName(model, parameter.name);
    const tensor = found.get(name);
    found.delete(name);
    if (tensor) checkShape(tensor, parameter.shape);
    else if (layout.byKey.has(parameter.key))
      throw new ConfigError(`${directory}: tensor ${name} is missing; config.json asks for [${parameter.shape}]`);
    return { ...parameter, tensor };
  });
  const others = dropOthers(found, model);
  for (const { path, entry } of found.values())
    throw new ConfigError(
      `${path}: surplus tensor ${shown(entry.name)} [${entry.shape}]: the ${model.family} of config.json has none of that name`,
    );

  const weights = floats(layout.size, directory);
  for (const { key, size, tensor } of wanted) {
    const own = layout.byKey.get(key);
    if (own && tensor) await readFloats(tensor.path, tensor.entry, weights.subarray(own.offset, own.offset + size));
    else if (tensor) await checkZeros(tensor, size);
  }
  if (headCopy) await checkTied(headCopy, weights.subarray(layout.byKey.get("tokens.weight")!.offset));
  return { model, layout, weights, others };
}

interface FoundTensor {
  readonly path: string;
  readonly entry: TensorEntry;
}

const indexSchema = z.object({
  weight_map: z.record(
    z.string().regex(/^\P{Cc}{1,200}$/u, "expected the name of a tensor"),
    z.string().regex(/^[^/\\\p{Cc}]{1,255}$/u, "expected the name of a file beside it"),
  ),
});

/** Every tensor of the directory by its bare name. */
async function findTensors(directory: string, model: ModelConfig): Promise<Map<string, FoundTensor>> {
  const bare = (name: string) => bareName(model, name);
  const single = join(directory, "model.safetensors");
  const indexPath = `${single}.index.json`;
  const found = new Map<string, FoundTensor>();
  // As transformers does: an index beside a whole model is of an earlier one.
  const isFile = await stat(single).then(
    (found) => found.isFile(),
    () => false,
  );
  const indexJson = isFile ? undefined : await readJson(indexPath).catch(unlessAbsent);
  const weightMap = indexJson === undefined ? undefined : checked(indexSchema, indexJson, indexPath).weight_map;
  if (!weightMap) await refuseOtherFormats(directory);
  const files = weightMap ? [...new Set(Object.values(weightMap))] : ["model.safetensors"];
  for (const file of files) {
    const path = join(directory, file);
    for (const entry of (await readHeader(path)).tensors.values()) {
      const twin = found.get(bare(entry.name));
      if (twin)
        throw new ConfigError(
          `${path}: tensor ${shown(entry.name)} is also in ${twin.path} as ${shown(twin.entry.name)}`,
        );
      found.set(bare(entry.name), { path, entry });
    }
  }
  for (const [name, file] of Object.entries(weightMap ?? {}))
    if (found.get(bare(name))?.path !== join(directory, file))
      throw new ConfigError(`${join(directory, file)}: ${basename(indexPath)} announces tensor ${name} there, absent`);
  return found;
}

function unlessAbsent(error: unknown): undefined {
  if (!isAbsent(error)) throw error;
}

/** Memory for weights. @throws ConfigError where this machine has not so much */
export function floats(length: number, where: string): Float32Array {
  try {
    return new Float32Array(length);
  } catch (error) {
    throw new ConfigError(
      `${where}: its ${length.toLocaleString("en")} weights do not fit into this machine's memory`,
      {
        cause: error,
      },
    );
  }
}

/** Say what to do where the weights are there, but only in a format that can hold code. */
async function refuseOtherFormats(directory: string): Promise<void> {
  const names = await readdir(directory);
  const pickle = names.find((name) => /^pytorch_model.*\.bin$/.test(name));
  if (pickle && !names.includes("model.safetensors"))
    throw new ConfigError(
      `${directory}: ${pickle} can hold code and is not opened; save the model again with transformers, as model.safetensors`,
    );
}

/** Of the head's weights in every family that has a head. */
const headName = "lm_head.weight";

/**
 * Take out the head where it is the token embedding under a second name. A file may hold that tensor under either name
 * or under both: safetensors' save_model keeps one.
 * @returns the copy, where there are two
 */
function takeTiedHead(found: Map<string, FoundTensor>, model: ModelConfig, layout: Layout): FoundTensor | undefined {
  const tokens = layout.byKey.get("tokens.weight");
  const head = found.get(headName);
  if (!tokens || !model.tiedHead || !head) return undefined;
  checkShape(head, tokens.shape);
  found.delete(headName);
  const name = bareName(model, tokens.name);
  if (found.has(name)) return head;
  found.set(name, head);
  return undefined;
}

/** Leave out causal masks that old versions saved, and heads for other tasks. @returns the names of those heads */
function dropOthers(found: Map<string, FoundTensor>, model: ModelConfig): string[] {
  const { surplus, prefix } = familyOf(model).huggingFace;
  const modules = layoutOf({ ...model, tiedHead: true }).parameters.map(({ name }) => bareName(model, name));
  const ofTransformer = new Set(modules.map((name) => name.split(".", 1)[0]));
  const others: string[] = [];
  for (const [name, { entry }] of found) {
    const isOther = !entry.name.includes(prefix) && !ofTransformer.has(name.split(".", 1)[0]);
    if (isOther) others.push(entry.name);
    if (isOther || surplus?.test(name)) found.delete(name);
  }
  return others;
}

function checkShape({ path, entry }: FoundTensor, shape: readonly number[]): void {
  if (entry.shape.join() !== shape.join())
    throw new ConfigError(`${path}: tensor ${entry.name} is [${entry.shape}], config.json asks for [${shape}]`);
}

/** A bias that transformers' models have and this one does not. */
async function checkZeros({ path, entry }: FoundTensor, size: number): Promise<void> {
  const bias = new Float32Array(size);
  await readFloats(path, entry, bias);
  const nonzero = bias.findIndex((x) => x !== 0);
  if (nonzero >= 0)
    throw new ConfigError(
      `${path}: tensor ${entry.name}[${nonzero}] is ${bias[nonzero]}, but config.json says that the model has no biases`,
    );
}

/** @param tokens weights that begin with the token embedding */
async function checkTied({ path, entry }: FoundTensor, tokens: Float32Array): Promise<void> {
  const copy = new Float32Array(entry.shape.reduce((product, dimension) => product * dimension, 1));
  await readFloats(path, entry, copy);
  const differs = copy.findIndex((x, i) => x !== tokens[i]);
  if (differs >= 0)
    throw new ConfigError(
      `${path}: ${entry.name}[${differs}] is ${copy[differs]}, the embedding has ${tokens[differs]}, but config.json says that they are tied; set "tie_word_embeddings": false`,
    );
}
