// Hugging Face's way of writing a model down: config.json and named tensors in safetensors, as GPT2LMHeadModel and
// OpenAIGPTLMHeadModel of `transformers` open them. What their configuration cannot say stands under "weft".
import { z } from "zod";
import { ConfigError } from "../errors.ts";
import { layoutOf } from "../family/layout.ts";
import { type ModelConfig, modelSchema } from "../model.ts";
import type { TensorToWrite } from "./safetensors.ts";

/** The contents of config.json. */
export function configOf(model: ModelConfig): Record<string, unknown> {
  const { vocabSize, blockSize, nLayer, nHead, nEmbd, bias, dropout, activation, tiedHead, layerNormEps } = model;
  if (model.family === "bigram") return { model_type: "weft-bigram", weft: model };
  const sizes = {
    vocab_size: vocabSize,
    n_positions: blockSize,
    n_embd: nEmbd,
    n_layer: nLayer,
    n_head: nHead,
    embd_pdrop: dropout,
    attn_pdrop: dropout,
    resid_pdrop: dropout,
    layer_norm_epsilon: layerNormEps,
    tie_word_embeddings: tiedHead,
    // transformers fills in 50256 where these are absent, which a small vocabulary does not have.
    bos_token_id: null,
    eos_token_id: null,
    torch_dtype: "float32",
  };
  if (model.family === "gpt2")
    return {
      architectures: ["GPT2LMHeadModel"],
      model_type: "gpt2",
      ...sizes,
      activation_function: activation === "gelu" ? "gelu" : "gelu_new",
      weft: { bias },
    };
  return {
    architectures: ["OpenAIGPTLMHeadModel"],
    model_type: "openai-gpt",
    ...sizes,
    // The only GELU that their OpenAIGPT has; it is the tanh approximation.
    afn: "gelu",
    weft: { bias, activation },
  };
}

/** What `transformers` will compute differently from this model, for people; empty where nothing. */
export function differencesInTransformers(model: ModelConfig): string[] {
  if (model.family === "bigram") return ["transformers has no bigram model: only Weft opens this directory"];
  if (model.family === "gpt1" && model.activation === "gelu")
    return [
      "transformers computes OpenAIGPT's GELU by the tanh approximation, this model is exact: logits differ by 1e-3",
    ];
  return [];
}

const extrasSchema = z.object({ bias: z.boolean(), activation: z.enum(["gelu", "gelu_tanh"]).optional() });
const probability = z.number().min(0).lt(1).default(0.1);
const transformerFields = {
  vocab_size: z.int(),
  n_positions: z.int(),
  n_embd: z.int(),
  n_layer: z.int(),
  n_head: z.int(),
  embd_pdrop: probability,
  attn_pdrop: probability,
  resid_pdrop: probability,
  layer_norm_epsilon: z.number().default(1e-5),
  tie_word_embeddings: z.boolean().default(true),
  weft: extrasSchema.optional(),
};
const configSchema = z.discriminatedUnion("model_type", [
  z.object({ model_type: z.literal("weft-bigram"), weft: modelSchema }),
  z.object({
    model_type: z.literal("gpt2"),
    ...transformerFields,
    activation_function: z.enum(["gelu", "gelu_new", "gelu_pytorch_tanh"]).default("gelu_new"),
    n_inner: z.int().nullish(),
    scale_attn_weights: z.literal(true).default(true),
    scale_attn_by_inverse_layer_idx: z.literal(false).default(false),
  }),
  z.object({ model_type: z.literal("openai-gpt"), ...transformerFields, afn: z.literal("gelu").default("gelu") }),
]);

/**
 * The model that a config.json describes.
 * @param where the file's path, for messages
 * @throws ConfigError on a model that Weft does not have
 */
export function modelOf(config: unknown, where: string): ModelConfig {
  const parsed = configSchema.safeParse(config);
  if (!parsed.success) throw new ConfigError(`${where}: not a model that Weft has:\n${z.prettifyError(parsed.error)}`);
  const c = parsed.data;
  if (c.model_type === "weft-bigram") return c.weft;
  if (c.embd_pdrop !== c.attn_pdrop || c.attn_pdrop !== c.resid_pdrop)
    throw new ConfigError(
      `${where}: dropout is ${c.embd_pdrop} (embedding), ${c.attn_pdrop} (attention), ${c.resid_pdrop} (residual); Weft has one for all three: make them equal`,
    );
  if (c.model_type === "gpt2" && c.n_inner != null && c.n_inner !== 4 * c.n_embd)
    throw new ConfigError(`${where}: n_inner is ${c.n_inner}, Weft has 4 * n_embd = ${4 * c.n_embd}`);
  const exact = c.model_type === "gpt2" ? c.activation_function === "gelu" : c.weft?.activation === "gelu";
  return checkedModel(
    {
      family: c.model_type === "gpt2" ? "gpt2" : "gpt1",
      vocabSize: c.vocab_size,
      blockSize: c.n_positions,
      nLayer: c.n_layer,
      nHead: c.n_head,
      nEmbd: c.n_embd,
      bias: c.weft?.bias ?? true,
      dropout: c.resid_pdrop,
      activation: exact ? "gelu" : "gelu_tanh",
      tiedHead: c.tie_word_embeddings,
      layerNormEps: c.layer_norm_epsilon,
    },
    where,
  );
}

function checkedModel(model: ModelConfig, where: string): ModelConfig {
  const parsed = modelSchema.safeParse(model);
  if (!parsed.success) throw new ConfigError(`${where}: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

/** Names differ by the prefix only: GPT2LMHeadModel writes it, GPT2Model does not. */
export const bare = (name: string): string =>
  name.startsWith("transformer.") ? name.slice("transformer.".length) : name;

/**
 * The tensors of model.safetensors, the prefix on all but the head. A model without biases gets zero ones, because
 * transformers' models always have them.
 * @param weights (P) in the layout's order; the tensors are views of it
 */
export function tensorsOf(model: ModelConfig, weights: Float32Array): TensorToWrite[] {
  const own = layoutOf(model).byName;
  return layoutOf({ ...model, bias: true }).parameters.map(({ name, shape, size }) => {
    const offset = own.get(name)?.offset;
    return {
      name: model.family === "bigram" || name === "lm_head.weight" ? name : `transformer.${bare(name)}`,
      shape,
      data: offset === undefined ? new Float32Array(size) : weights.subarray(offset, offset + size),
    };
  });
}
