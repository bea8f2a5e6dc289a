// A model whose vocabulary grows, to fine-tune it on text with characters that it has never seen: the rows of the new ids
// in the token embedding, the head and a table of logits are drawn as at the start of a model, everything else stays.
import { initialWeights } from "../family/init.ts";
import { layoutOf } from "../family/layout.ts";
import type { Pretrained } from "./pretrained.ts";

/**
 * @param known ids below this have been learned; a model may have padded its vocabulary beyond them
 * @param vocabSize of the grown tokenizer
 * @param seed of the new rows: what a new model of that seed would have there
 */
export function growVocabulary(pretrained: Pretrained, known: number, vocabSize: number, seed: number): Pretrained {
  if (vocabSize <= known) return pretrained;
  const { layout } = pretrained;
  const model = { ...pretrained.model, vocabSize: Math.max(vocabSize, pretrained.model.vocabSize) };
  const target = layoutOf(model);
  const weights = initialWeights(target, seed);
  for (const { key, shape, offset } of target.parameters) {
    const old = layout.byKey.get(key)!;
    const grows = /^(tokens|head|table)\./.test(key);
    const rows = grows ? known : 1;
    const width = grows ? shape.slice(1).reduce((product, n) => product * n, 1) : old.size;
    const oldWidth = grows ? old.shape.slice(1).reduce((product, n) => product * n, 1) : old.size;
    const columns = key === "table.weight" ? known : oldWidth;
    for (let row = 0; row < rows; row++) {
      const from = old.offset + row * oldWidth;
      weights.set(pretrained.weights.subarray(from, from + columns), offset + row * width);
    }
  }
  return { model, layout: target, weights };
}
