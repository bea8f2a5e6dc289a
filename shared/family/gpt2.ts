// GPT-2 (Radford et al. 2019): pre-norm blocks and a final norm; the projections back into the residual stream start
// 1 / sqrt(2 L) as wide (section 2.3). Names and configuration are those of GPT2LMHeadModel.
import { z } from "zod";
import { ConfigError } from "../errors.ts";
import type { Family, Shape } from "./family.ts";
import {
  block,
  head,
  norm,
  problem,
  readConfig,
  shapeOf,
  sizesSchema,
  summary,
  table,
  writtenSizes,
} from "./transformer.ts";

/** Names that transformers has for the two functions (its ACT2FN). */
const exactGelu = ["gelu", "gelu_python"];
const tanhGelu = ["gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate"];

/** Of GPT2Config. */
const releasedSizes = { vocab_size: 50_257, n_positions: 1024, n_embd: 768, n_layer: 12, n_head: 12 };

const configSchema = sizesSchema.extend({
  activation_function: z.enum([...exactGelu, ...tanhGelu]).default("gelu_new"),
  n_inner: z.int().nullish(),
  scale_attn_weights: z.literal(true).default(true),
  scale_attn_by_inverse_layer_idx: z.literal(false).default(false),
});

export const gpt2: Family = {
  about: "pre-norm",
  architecture: "pre-norm",
  slots(shape: Shape) {
    const { vocabSize: V, blockSize: T, nEmbd: C, nLayer: L } = shape;
    const order = ["norm1", "attention", "norm2", "mlp"] as const;
    return [
      table("tokens.weight", "transformer.wte.weight", [V, C]),
      table("positions.weight", "transformer.wpe.weight", [T, C]),
      ...Array.from({ length: L }, (_, l) =>
        block(shape, l, `transformer.h.${l}`, order, 0.02 / Math.sqrt(2 * L)),
      ).flat(),
      ...norm("finalNorm", "transformer.ln_f", shape),
      ...head(shape),
    ];
  },
  problem,
  summary,
  huggingFace: {
    modelType: "gpt2",
    prefix: "transformer.",
    surplus: /^h\.\d+\.attn\.(bias|masked_bias)$|^position_ids$/,
    write: (shape) => ({
      architectures: ["GPT2LMHeadModel"],
      ...writtenSizes(shape),
      activation_function: shape.activation === "gelu" ? "gelu" : "gelu_new",
      weft: { bias: shape.bias },
    }),
    read(config, where) {
      const sizes = readConfig(configSchema, config, releasedSizes, where);
      if (sizes.n_inner != null && sizes.n_inner !== 4 * sizes.n_embd)
        throw new ConfigError(`${where}: n_inner is ${sizes.n_inner}, Weft has 4 * n_embd = ${4 * sizes.n_embd}`);
      return shapeOf(sizes, exactGelu.includes(sizes.activation_function) ? "gelu" : "gelu_tanh");
    },
    differences: () => [],
  },
};
