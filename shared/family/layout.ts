// The one list of a model's parameters. Engines, optimizer, wire and checkpoints derive names, shapes and offsets of
// the flat weight vector from it. Names and shapes are those of Hugging Face's GPT2LMHeadModel and OpenAIGPTModel:
// the Conv1D weights are [in, out].
import type { ModelConfig } from "../model.ts";

export interface Parameter {
  readonly name: string;
  readonly shape: readonly number[];
  /** Position of the first element in the flat vector, in floats. */
  readonly offset: number;
  /** Number of elements. */
  readonly size: number;
  /** Weight decay applies: tensors of two or more dimensions, as in nanoGPT. */
  readonly decay: boolean;
}

export interface Layout {
  readonly parameters: readonly Parameter[];
  /** P: floats in the flat vector, which holds the parameters one after another without padding. */
  readonly size: number;
  readonly byName: ReadonlyMap<string, Parameter>;
}

/** The parameters of a model in the order of the flat vector. */
export function layoutOf(model: ModelConfig): Layout {
  const parameters: Parameter[] = [];
  let offset = 0;
  const add = (name: string, ...shape: number[]): void => {
    const size = shape.reduce((product, dimension) => product * dimension, 1);
    parameters.push({ name, shape, offset, size, decay: shape.length >= 2 });
    offset += size;
  };
  const { vocabSize: V, blockSize: T, nEmbd: C, nLayer: L, bias } = model;

  const norm = (name: string): void => {
    add(`${name}.weight`, C);
    if (bias) add(`${name}.bias`, C);
  };
  const linear = (name: string, inputs: number, outputs: number): void => {
    add(`${name}.weight`, inputs, outputs);
    if (bias) add(`${name}.bias`, outputs);
  };
  const attention = (block: string): void => {
    linear(`${block}.attn.c_attn`, C, 3 * C);
    linear(`${block}.attn.c_proj`, C, C);
  };
  const mlp = (block: string): void => {
    linear(`${block}.mlp.c_fc`, C, 4 * C);
    linear(`${block}.mlp.c_proj`, 4 * C, C);
  };

  switch (model.family) {
    case "bigram":
      add("token_embedding_table.weight", V, V);
      break;
    case "gpt1":
      add("tokens_embed.weight", V, C);
      add("positions_embed.weight", T, C);
      for (let l = 0; l < L; l++) {
        attention(`h.${l}`);
        norm(`h.${l}.ln_1`);
        mlp(`h.${l}`);
        norm(`h.${l}.ln_2`);
      }
      break;
    case "gpt2":
      add("transformer.wte.weight", V, C);
      add("transformer.wpe.weight", T, C);
      for (let l = 0; l < L; l++) {
        norm(`transformer.h.${l}.ln_1`);
        attention(`transformer.h.${l}`);
        norm(`transformer.h.${l}.ln_2`);
        mlp(`transformer.h.${l}`);
      }
      norm("transformer.ln_f");
      break;
  }
  if (model.family !== "bigram" && !model.tiedHead) add("lm_head.weight", V, C);
  return { parameters, size: offset, byName: new Map(parameters.map((p) => [p.name, p])) };
}
