// What the families of transformers share: the parts of a block, and the sizes in Hugging Face's configuration. Weights
// are normal with deviation 0.02 at the start, biases 0, norms 1 (Radford et al. 2018 and 2019).
import { z } from "zod";
import { checked } from "../check.ts";
import { ConfigError } from "../errors.ts";
import type { BlockRole, ParameterKey, Role, Shape, Slot } from "./family.ts";

const deviation = 0.02;

/** One parameter table, such as an embedding. */
export const table = (key: ParameterKey, name: string, shape: readonly number[]): Slot => ({
  key,
  name,
  shape,
  start: { deviation },
});

/** A layer norm over C: weight, and bias where the model has biases. */
export function norm(role: Role, name: string, { nEmbd: C, bias }: Shape): Slot[] {
  const weight: Slot = { key: `${role}.weight`, name: `${name}.weight`, shape: [C], start: 1 };
  return bias ? [weight, { key: `${role}.bias`, name: `${name}.bias`, shape: [C], start: 0 }] : [weight];
}

/** A linear layer of (in, out) weights, as Hugging Face's Conv1D has them. */
function linear(
  role: Role,
  name: string,
  [inputs, outputs]: readonly [number, number],
  { bias }: Shape,
  spread = deviation,
): Slot[] {
  const weight: Slot = {
    key: `${role}.weight`,
    name: `${name}.weight`,
    shape: [inputs, outputs],
    start: { deviation: spread },
  };
  return bias ? [weight, { key: `${role}.bias`, name: `${name}.bias`, shape: [outputs], start: 0 }] : [weight];
}

/**
 * The parameters of block l, its parts in the given order; GPT-1 and GPT-2 call them the same.
 * @param root  the block's name
 * @param ontoStream deviation of the two projections back into the residual stream
 */
export function block(
  shape: Shape,
  l: number,
  root: string,
  order: readonly ("norm1" | "attention" | "norm2" | "mlp")[],
  ontoStream = deviation,
): Slot[] {
  const C = shape.nEmbd;
  const role = (part: BlockRole): Role => `${l}.${part}`;
  const parts = {
    norm1: () => norm(role("norm1"), `${root}.ln_1`, shape),
    norm2: () => norm(role("norm2"), `${root}.ln_2`, shape),
    attention: () => [
      ...linear(role("qkv"), `${root}.attn.c_attn`, [C, 3 * C], shape),
      ...linear(role("projection"), `${root}.attn.c_proj`, [C, C], shape, ontoStream),
    ],
    mlp: () => [
      ...linear(role("expand"), `${root}.mlp.c_fc`, [C, 4 * C], shape),
      ...linear(role("contract"), `${root}.mlp.c_proj`, [4 * C, C], shape, ontoStream),
    ],
  };
  return order.flatMap((part) => parts[part]());
}

/** The head's own weights, where it does not share the token embedding's. */
export const head = ({ tiedHead, vocabSize: V, nEmbd: C }: Shape): Slot[] =>
  tiedHead ? [] : [table("head.weight", "lm_head.weight", [V, C])];

export function problem({ nLayer, nHead, nEmbd }: Shape): string | undefined {
  if (nLayer < 1 || nHead < 1 || nEmbd < 1) return "a transformer needs nLayer, nHead and nEmbd of at least 1";
  if (nEmbd % nHead !== 0) return `nEmbd ${nEmbd} does not divide into nHead ${nHead} heads`;
  return undefined;
}

export const summary = ({ nLayer, nHead, nEmbd, blockSize, vocabSize }: Shape): string =>
  `${nLayer} layers, ${nHead} heads, ${nEmbd} wide, block ${blockSize}, vocabulary ${vocabSize}`;

// ---- Hugging Face's config.json ----

/** The entries that every GPT of `transformers` has. */
export const writtenSizes = (shape: Shape): Record<string, unknown> => ({
  vocab_size: shape.vocabSize,
  n_positions: shape.blockSize,
  n_embd: shape.nEmbd,
  n_layer: shape.nLayer,
  n_head: shape.nHead,
  embd_pdrop: shape.dropout,
  attn_pdrop: shape.dropout,
  resid_pdrop: shape.dropout,
  layer_norm_epsilon: shape.layerNormEps,
  tie_word_embeddings: shape.tiedHead,
  // transformers fills in 50256 where these are absent, which a small vocabulary does not have.
  bos_token_id: null,
  eos_token_id: null,
  torch_dtype: "float32",
});

const probability = z.number().min(0).max(1).default(0.1);

/** Nothing, or nothing in it. */
const empty = (message: string) =>
  z
    .unknown()
    .refine((x) => x == null || (typeof x === "object" && Object.keys(x).length === 0), message)
    .optional();

/** What they are read as; `weft` holds what transformers' configuration cannot say. */
export const sizesSchema = z.object({
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
  quantization_config: empty("quantized weights, which Weft does not have; save the model in float16 or float32"),
  pruned_heads: empty("attention heads were taken out, which Weft does not have"),
  add_cross_attention: z.literal(false, "attention to an encoder, which Weft does not have").default(false),
  weft: z.object({ bias: z.boolean(), activation: z.enum(["gelu", "gelu_tanh"]).optional() }).optional(),
});

/** Other names of the sizes: attribute_map of transformers' GPT2Config and OpenAIGPTConfig. */
const otherNames = {
  hidden_size: "n_embd",
  max_position_embeddings: "n_positions",
  num_attention_heads: "n_head",
  num_hidden_layers: "n_layer",
} as const;

/**
 * A config.json under the names of the schema, with transformers' defaults for what it leaves out.
 * @throws ConfigError on what does not fit the schema, and where two names of one size disagree
 */
export function readConfig<T>(
  schema: z.ZodType<T>,
  config: unknown,
  defaults: Readonly<Record<string, number>>,
  where: string,
): T {
  const given = checked(z.record(z.string(), z.unknown()), config, where);
  const named = { ...given };
  for (const [other, name] of Object.entries(otherNames)) {
    if (given[other] === undefined) continue;
    if (given[name] !== undefined && given[name] !== given[other])
      throw new ConfigError(
        `${where}: ${other} is ${JSON.stringify(given[other])} and ${name} ${JSON.stringify(given[name])}, two names of one size; leave one out`,
      );
    named[name] = given[other];
  }
  return checked(schema, { ...defaults, ...named }, where);
}

/**
 * Dropout has no weights and training sets its own: of three that differ, the residual's is the model's, unless it is 1,
 * with which nothing could be trained.
 */
export function shapeOf(c: z.infer<typeof sizesSchema>, activation: Shape["activation"]): Shape {
  return {
    vocabSize: c.vocab_size,
    blockSize: c.n_positions,
    nLayer: c.n_layer,
    nHead: c.n_head,
    nEmbd: c.n_embd,
    bias: c.weft?.bias ?? true,
    dropout: c.resid_pdrop < 1 ? c.resid_pdrop : 0,
    activation,
    tiedHead: c.tie_word_embeddings,
    layerNormEps: c.layer_norm_epsilon,
  };
}
