// A prepared data set: a folder with train.bin and val.bin, as nanoGPT writes them, or shards of them, data.json, and the
// tokenizer's files. data.json is what makes the .bin files trustworthy; folders without it (nanoGPT's own) open too,
// when the tokenizer is named.
import { createHash } from "node:crypto";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { checked } from "../../shared/check.ts";
import { optionTable } from "../../shared/config.ts";
import { ConfigError } from "../../shared/errors.ts";
import { isAbsent, readJson } from "../../shared/json.ts";
import { widthOf } from "../../shared/token-array.ts";
import { openTokenizer } from "../../shared/tokenizers/open.ts";
import { NoTokenizerError, type Tokenizer } from "../../shared/tokenizers/tokenizer.ts";
import { findShards } from "./shards.ts";
import { concatenate, slice, TokenFile, type Tokens } from "./tokens.ts";

export const descriptionFile = "data.json";

export const descriptionSchema = z.strictObject({
  format: z.literal("weft-tokens"),
  version: z.literal(1),
  /** What it was made from. */
  source: z.string(),
  tokenizer: z.string(),
  vocabSize: z.int().min(1),
  dtype: z.enum(["uint16", "uint32"]),
  trainTokens: z.int().min(0),
  valTokens: z.int().min(0),
  /** sha256 of all ids in order, train and then val. */
  sha256: z.hash("sha256"),
});

export type Description = z.infer<typeof descriptionSchema>;

export interface TokenFolder {
  readonly tokenizer: Tokenizer;
  readonly train: Tokens;
  readonly val: Tokens;
  /** sha256 of all ids in order, train and then val. */
  readonly fingerprint: string;
  close(): Promise<void>;
}

const widths = { uint16: 2, uint32: 4 } as const;
/** Files beyond this size are trusted by their length where data.json describes them; `weft data info` reads them whole. */
const hashedAtOpenBytes = 256 * 2 ** 20;

/**
 * Open a folder with train.bin and val.bin or shards of them, or files whose last part is the validation split.
 * @param options.tokenizer what made the tokens; must be the one that lies beside them, where one does
 * @param options.valFraction where the files are not split already
 * @param options.verify read all of every file and compare its digest, however large it is
 * @throws ConfigError where files are missing, were changed, or the tokenizer is unknown
 */
export async function openTokenFiles(
  source: string,
  options: {
    tokenizer?: Tokenizer | undefined;
    valFraction?: number | undefined;
    whole?: boolean;
    verify?: boolean;
    notify?: (line: string) => void;
  } = {},
): Promise<TokenFolder> {
  const { folder, all, train: trainFiles, val: valFiles } = await findShards(source);
  if (valFiles && options.valFraction !== undefined && !options.whole)
    throw new ConfigError(`data ${source}: has a validation split of its own, val.bin; leave out --val-fraction`);
  const description = all ? await readDescription(folder) : undefined;
  const tokenizer = await tokenizerOf(source, folder, options.tokenizer, description);

  const files: TokenFile[] = [];
  const close = async (): Promise<void> => void (await Promise.all(files.map((file) => file.close())));
  try {
    for (const open of [...trainFiles, ...(valFiles ?? [])])
      files.push(await TokenFile.open(await open(), tokenizer, description && widths[description.dtype]));
    for (const { path, format } of files)
      if (!description && (format.start > 0 || format.width !== widthOf(tokenizer.vocabSize)))
        options.notify?.(`data: ${path} is read as ${format.name}`);
    const first = concatenate(files.slice(0, trainFiles.length));
    const second = valFiles && concatenate(files.slice(trainFiles.length));
    const lengths = { train: first.length, val: second?.length ?? 0 };
    const fingerprint = await fingerprintOf(source, files, lengths, description, options.verify ?? false);
    const [train, val] = second ? [first, second] : splitTokens(first, options.valFraction);
    return { tokenizer, train, val, fingerprint, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The part of a text that is kept for validation where nothing else is said: nanoGPT's last tenth. */
export const defaultValFraction = optionTable.valFraction.default;

/** The first part for training and the last for validation. */
export function splitTokens(tokens: Tokens, valFraction?: number): [train: Tokens, val: Tokens] {
  const cut = trainLength(tokens.length, valFraction);
  return [slice(tokens, 0, cut), slice(tokens, cut, tokens.length - cut)];
}

/** Tokens of the training split: int(length * 0.9), as nanoGPT cuts. */
export function trainLength(length: number, valFraction = defaultValFraction): number {
  return Math.floor(length * (1 - valFraction));
}

async function readDescription(folder: string): Promise<Description | undefined> {
  const path = join(folder, descriptionFile);
  const value = await readJson(path).catch((error) => {
    if (isAbsent(error)) return undefined;
    throw error;
  });
  if (value === undefined) return undefined;
  return checked(descriptionSchema, value, `${path}: not what "weft data prepare" writes`);
}

/** The tokenizer that lies in the folder, or the one that was named where none does. */
async function tokenizerOf(
  source: string,
  folder: string,
  named: Tokenizer | undefined,
  description: Description | undefined,
): Promise<Tokenizer> {
  const beside = await openTokenizer(folder).catch((error) => {
    if (!(error instanceof NoTokenizerError)) throw error;
    if (named) return undefined;
    throw new ConfigError(
      `data ${source}: which tokenizer made it? ${error.message}; name it with --tokenizer gpt2 or a folder. Of char ` +
        `alone the characters are not known: write them into weft-tokenizer.json, {"kind": "char", "version": 1, ` +
        `"tokens": ["\\n", " ", ...]}, in the order of their ids`,
      { cause: error },
    );
  });
  const tokenizer = (beside ?? named)!;
  if (named && beside && !isDeepStrictEqual(named.toFiles(), beside.toFiles()))
    throw new ConfigError(
      `data ${source}: made with the tokenizer ${beside.name} of ${beside.vocabSize} tokens that lies beside it, not ` +
        `with the ${named.name} of ${named.vocabSize} that was named; prepare the data again with that one`,
    );
  if (description && description.vocabSize !== tokenizer.vocabSize)
    throw new ConfigError(
      `data ${source}: ${descriptionFile} says ${description.vocabSize} tokens, its tokenizer has ` +
        `${tokenizer.vocabSize}; prepare the data again`,
    );
  return tokenizer;
}

async function fingerprintOf(
  source: string,
  files: readonly TokenFile[],
  lengths: { train: number; val: number },
  description: Description | undefined,
  verify: boolean,
): Promise<string> {
  for (const split of ["train", "val"] as const)
    if (description && lengths[split] !== description[`${split}Tokens`])
      throw new ConfigError(
        `data ${source}: its ${split}.bin, or the shards of it, hold ${lengths[split]} tokens, its ${descriptionFile} says ` +
          `${description[`${split}Tokens`]}; a file is missing, was changed or cut short: prepare the data again`,
      );
  const total = files.reduce((sum, file) => sum + file.length, 0);
  if (description && !verify && total * 4 > hashedAtOpenBytes) return description.sha256;

  const digest = createHash("sha256");
  for (const file of files) await file.addTo(digest);
  const found = digest.digest("hex");
  if (description && found !== description.sha256)
    throw new ConfigError(
      `${nameOf(files)}: sha256 of the tokens is ${found}, ${descriptionFile} says ` +
        `${description.sha256}; the files were changed: prepare the data again`,
    );
  return found;
}

/** The file, or the first and last of many. */
function nameOf(files: readonly TokenFile[]): string {
  const paths = files.map(({ path }) => path);
  return paths.length < 4 ? paths.join(", ") : `${paths[0]} ... ${paths.at(-1)} (${paths.length} files)`;
}
