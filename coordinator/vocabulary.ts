// A text that has characters outside the vocabulary: --unknown says whether they are left out, --extend-vocabulary lets
// the vocabulary of an --init-from grow by them.
import { growVocabulary } from "../shared/checkpoint/grow.ts";
import type { Pretrained } from "../shared/checkpoint/pretrained.ts";
import type { Options } from "../shared/config.ts";
import { ConfigError } from "../shared/errors.ts";
import { CharTokenizer } from "../shared/tokenizers/char.ts";
import { skippingUnknown } from "../shared/tokenizers/open.ts";
import type { Tokenizer } from "../shared/tokenizers/tokenizer.ts";
import { codePointsOf, openDocuments } from "./data/dataset.ts";
import { isTokenSource } from "./data/shards.ts";

export interface Fitted<M> {
  /** undefined: the characters of the text */
  readonly tokenizer: Tokenizer | undefined;
  /** The model to go on from, grown where the tokenizer is. */
  readonly start: M;
}

type Choices = Pick<Options, "unknown" | "extendVocabulary" | "data" | "textColumn" | "seed">;

/** @throws ConfigError where an option asks for what this tokenizer or data cannot do */
export async function fitVocabulary<M extends Pretrained | undefined>(
  choices: Choices,
  start: M,
  tokenizer: Tokenizer | undefined,
): Promise<Fitted<M>> {
  const fitted = choices.extendVocabulary ? await extend(choices, start, tokenizer) : { start, tokenizer };
  if (choices.unknown === "error" || !fitted.tokenizer) return fitted;
  return { start: fitted.start, tokenizer: skippingUnknown(fitted.tokenizer) };
}

async function extend<M extends Pretrained | undefined>(
  { data, textColumn, seed }: Choices,
  start: M,
  tokenizer: Tokenizer | undefined,
): Promise<Fitted<M>> {
  if (!start || !(tokenizer instanceof CharTokenizer))
    throw new ConfigError(
      "config: --extend-vocabulary adds characters to the vocabulary that lies beside the weights of --init-from; " +
        (start ? `theirs is ${tokenizer?.name ?? "not there"}, not one of characters` : "there is no --init-from"),
    );
  if (await isTokenSource(data))
    throw new ConfigError(
      `config: --extend-vocabulary reads text, ${data} is token files; name the text they are made of`,
    );
  const documents = await openDocuments({ source: data, textColumn });
  const extended = tokenizer.extendedBy(await codePointsOf(documents));
  return {
    start: { ...start, ...growVocabulary(start, tokenizer.vocabSize, extended.vocabSize, seed) },
    tokenizer: extended,
  };
}
