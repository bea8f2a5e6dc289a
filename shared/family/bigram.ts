// A table of token pairs: the logits after a token are its row of a (V, V) table, a standard normal at the start, as
// torch.nn.Embedding draws it. nLayer, nHead and nEmbd are 0.
import { z } from "zod";
import { checked } from "../check.ts";
import { type Family, shapeSchema } from "./family.ts";

const configSchema = z.object({ weft: shapeSchema.extend({ family: z.literal("bigram") }) });

export const bigram: Family = {
  about: "a table of token pairs",
  architecture: "table",
  slots: ({ vocabSize: V }) => [
    { key: "table.weight", name: "token_embedding_table.weight", shape: [V, V], start: { deviation: 1 } },
  ],
  problem: () => undefined,
  summary: ({ blockSize, vocabSize }) => `block ${blockSize}, vocabulary ${vocabSize}`,
  huggingFace: {
    modelType: "weft-bigram",
    prefix: "",
    write: (shape) => ({ weft: { ...shape, family: "bigram" } }),
    read(config, where) {
      const { family: _, ...shape } = checked(configSchema, config, where).weft;
      return shape;
    },
    differences: () => ["transformers has no bigram model: only Weft opens this directory"],
  },
};
