// GPT (Radford et al. 2018): post-norm blocks, no final norm. Names and configuration are those of OpenAIGPTLMHeadModel.
import { z } from "zod";
import type { Family, Shape } from "./family.ts";
import { block, head, problem, readConfig, shapeOf, sizesSchema, summary, table, writtenSizes } from "./transformer.ts";

const configSchema = sizesSchema.extend({ afn: z.literal("gelu").default("gelu") });

/** Of OpenAIGPTConfig. */
const releasedSizes = { vocab_size: 40_478, n_positions: 512, n_embd: 768, n_layer: 12, n_head: 12 };

export const gpt1: Family = {
  about: "post-norm",
  architecture: "post-norm",
  slots(shape: Shape) {
    const { vocabSize: V, blockSize: T, nEmbd: C, nLayer: L } = shape;
    return [
      table("tokens.weight", "tokens_embed.weight", [V, C]),
      table("positions.weight", "positions_embed.weight", [T, C]),
      ...Array.from({ length: L }, (_, l) => block(shape, l, `h.${l}`, ["attention", "norm1", "mlp", "norm2"])).flat(),
      ...head(shape),
    ];
  },
  problem,
  summary,
  huggingFace: {
    modelType: "openai-gpt",
    prefix: "transformer.",
    surplus: /^h\.\d+\.attn\.(bias|masked_bias)$|^position_ids$/,
    write: (shape) => ({
      architectures: ["OpenAIGPTLMHeadModel"],
      ...writtenSizes(shape),
      // The only GELU that their OpenAIGPT has; it is the tanh approximation.
      afn: "gelu",
      weft: { bias: shape.bias, activation: shape.activation },
    }),
    read(config, where) {
      const sizes = readConfig(configSchema, config, releasedSizes, where);
      return shapeOf(sizes, sizes.weft?.activation ?? "gelu_tanh");
    },
    differences: ({ activation }) =>
      activation === "gelu"
        ? [
            "transformers computes OpenAIGPT's GELU by the tanh approximation, this model is exact: logits differ by 1e-3",
          ]
        : [],
  },
};
