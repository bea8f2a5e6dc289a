// The folder in which OpenAI released GPT-2: hparams.json, encoder.json, vocab.bpe and a TensorFlow checkpoint whose
// variables are model/wte, model/h0/attn/c_attn/w and so on. https://github.com/openai/gpt-2
import { join } from "node:path";
import { z } from "zod";
import { checked } from "../check.ts";
import { ConfigError } from "../errors.ts";
import type { ParameterKey } from "../family/family.ts";
import { layoutOf } from "../family/layout.ts";
import { isAbsent, readJson, readText } from "../json.ts";
import { modelSchema } from "../model.ts";
import { floats, type Pretrained } from "./pretrained.ts";
import { readBundle, readBundleFloats } from "./tensorflow-bundle.ts";

export const hyperparametersName = "hparams.json";

const hyperparametersSchema = z.object({
  n_vocab: z.int(),
  n_ctx: z.int(),
  n_embd: z.int(),
  n_head: z.int(),
  n_layer: z.int(),
});

/** Tokenizer files of the release, and the names that Hugging Face gives the same contents. */
export const releaseTokenizerFiles: ReadonlyMap<string, string> = new Map([
  ["encoder.json", "vocab.json"],
  ["vocab.bpe", "merges.txt"],
]);

/** @throws ConfigError naming the file, the tensor and both shapes where they do not fit */
export async function readRelease(directory: string): Promise<Pretrained> {
  const path = join(directory, hyperparametersName);
  const hyperparameters = checked(hyperparametersSchema, await readJson(path), `${path}: not GPT-2's`);
  const { n_vocab, n_ctx, n_embd, n_head, n_layer } = hyperparameters;
  const sizes = { vocabSize: n_vocab, blockSize: n_ctx, nLayer: n_layer, nHead: n_head, nEmbd: n_embd };
  const fixed = { bias: true, dropout: 0.1, activation: "gelu_tanh", tiedHead: true, layerNormEps: 1e-5 };
  const model = checked(modelSchema, { family: "gpt2", ...sizes, ...fixed }, path);
  const layout = layoutOf(model);
  const prefix = join(directory, await checkpointName(directory));
  const entries = await readBundle(prefix);
  const wanted = layout.parameters.map(({ key, shape, offset, size }) => {
    const variable = variableOf(key);
    const entry = entries.get(variable);
    entries.delete(variable);
    if (!entry) throw new ConfigError(`${prefix}: variable ${variable} is missing; hparams.json asks for [${shape}]`);
    // Matrices are stored as the kernels of convolutions of width 1: [1, in, out].
    const stored = entry.shape.length === 3 && entry.shape[0] === 1 ? entry.shape.slice(1) : entry.shape;
    if (stored.join() !== shape.join())
      throw new ConfigError(`${prefix}: variable ${variable} is [${stored}], hparams.json asks for [${shape}]`);
    return { entry, offset, size };
  });
  for (const { name, shape } of entries.values())
    throw new ConfigError(`${prefix}: surplus variable ${name} [${shape}]: the model of hparams.json has none`);
  const weights = floats(layout.size, directory);
  for (const { entry, offset, size } of wanted) await readBundleFloats(entry, weights.subarray(offset, offset + size));
  return { model, layout, weights };
}

/** What the release calls each role: embeddings have no suffix, norms g and b, linear layers w and b. */
const roleNames: Readonly<Record<string, string>> = {
  tokens: "wte",
  positions: "wpe",
  finalNorm: "ln_f",
  norm1: "ln_1",
  norm2: "ln_2",
  qkv: "attn/c_attn",
  projection: "attn/c_proj",
  expand: "mlp/c_fc",
  contract: "mlp/c_proj",
};

/** "3.norm1.weight" is model/h3/ln_1/g. */
function variableOf(key: ParameterKey): string {
  const [, block, role, part] = /^(?:(\d+)\.)?(\w+)\.(weight|bias)$/.exec(key)!;
  const name = `model/${block === undefined ? "" : `h${block}/`}${roleNames[role!]}`;
  if (role === "tokens" || role === "positions") return name;
  return `${name}/${part === "bias" ? "b" : role!.includes("orm") ? "g" : "w"}`;
}

/** The newest checkpoint's name, from the text that TensorFlow writes beside it. */
async function checkpointName(directory: string): Promise<string> {
  const path = join(directory, "checkpoint");
  const text = await readText(path).catch((error) => {
    if (isAbsent(error)) return 'model_checkpoint_path: "model.ckpt"';
    throw error;
  });
  const named = /^model_checkpoint_path:\s*"(?:[^"]*[/\\])?([^"/\\\p{Cc}]{1,200})"/mu.exec(text)?.[1];
  if (!named) throw new ConfigError(`${path}: names no model_checkpoint_path`);
  return named;
}
