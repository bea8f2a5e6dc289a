// A prepared data set: a folder with train.bin and val.bin, as nanoGPT writes them, data.json, and the tokenizer's
// files. data.json is what makes the two .bin files trustworthy; folders without it (nanoGPT's own) open too, when the
// tokenizer is named.
import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import { z } from "zod";
import { ConfigError } from "../shared/errors.ts";
import { openTokenizer, type Tokenizer } from "../shared/tokenizer.ts";
import { slice, TokenFile, type Tokens } from "./tokens.ts";

export const descriptionFile = "data.json";

const splitSchema = z.strictObject({ tokens: z.int().min(0), sha256: z.hash("sha256") });

export const descriptionSchema = z.strictObject({
  format: z.literal("weft-tokens"),
  version: z.literal(1),
  /** What it was made from. */
  source: z.string(),
  tokenizer: z.string(),
  vocabSize: z.int().min(1),
  dtype: z.enum(["uint16", "uint32"]),
  train: splitSchema,
  val: splitSchema,
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

/** Files beyond this size are trusted by their length; `weft data info` reads them whole. */
const hashedAtOpenBytes = 256 * 2 ** 20;

/** Is this source made of token files? */
export async function isTokenSource(source: string): Promise<boolean> {
  return extname(source) === ".bin" || (await isFile(join(source, "train.bin")));
}

/**
 * Open a folder with train.bin and val.bin, or one .bin file, whose last tenth then is the validation split.
 * @param tokenizer what made the tokens; must agree with the tokenizer that lies beside them, if there is one
 * @param verify read all of every file and compare its digest, however large it is
 * @throws ConfigError where files are missing, were changed, or the tokenizer is unknown
 */
export async function openTokenFiles(source: string, tokenizer?: Tokenizer, verify = false): Promise<TokenFolder> {
  const pair =
    !(await isFile(source)) || (/^(train|val)\.bin$/.test(basename(source)) && (await hasPair(dirname(source))));
  const folder = (await isFile(source)) ? dirname(source) : source;
  const description = pair ? await readDescription(folder) : undefined;
  const made = await tokenizerOf(source, folder, tokenizer, description);

  const files: TokenFile[] = [];
  const close = async (): Promise<void> => void (await Promise.all(files.map((file) => file.close())));
  try {
    for (const path of pair ? [join(folder, "train.bin"), join(folder, "val.bin")] : [source])
      files.push(await TokenFile.open(path, made.vocabSize));
    const fingerprint = await fingerprintOf(files, description, verify);
    const [first, second] = files as [TokenFile, TokenFile?];
    const [train, val] = second ? [first, second] : splitTokens(first);
    return { tokenizer: made, train, val, fingerprint, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The first nine tenths and the last one, as nanoGPT cuts them. */
export function splitTokens(tokens: Tokens): [train: Tokens, val: Tokens] {
  const cut = trainLength(tokens.length);
  return [slice(tokens, 0, cut), slice(tokens, cut, tokens.length - cut)];
}

/** Tokens of the training split. */
export function trainLength(length: number): number {
  return Math.floor(length * 0.9);
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() ?? false;
}

async function hasPair(folder: string): Promise<boolean> {
  return (await isFile(join(folder, "train.bin"))) && (await isFile(join(folder, "val.bin")));
}

export async function readDescription(folder: string): Promise<Description | undefined> {
  const path = join(folder, descriptionFile);
  let json: string;
  try {
    json = await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (error) {
    throw new ConfigError(`${path}: not JSON; prepare the data again`, { cause: error });
  }
  const parsed = descriptionSchema.safeParse(value);
  if (!parsed.success) throw new ConfigError(`${path}: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

async function tokenizerOf(
  source: string,
  folder: string,
  named: Tokenizer | undefined,
  description: Description | undefined,
): Promise<Tokenizer> {
  const tokenizer =
    named ??
    (await openTokenizer(folder).catch((error) => {
      throw new ConfigError(
        `data ${source}: which tokenizer made it? Name it with --tokenizer, or prepare the text with "weft data prepare" ` +
          `(${error.message})`,
        { cause: error },
      );
    }));
  if (description && description.vocabSize !== tokenizer.vocabSize)
    throw new ConfigError(
      `data ${source}: made with tokenizer ${description.tokenizer} of ${description.vocabSize} tokens, but tokenizer ` +
        `${tokenizer.name} has ${tokenizer.vocabSize}; prepare the data again with it`,
    );
  return tokenizer;
}

async function fingerprintOf(
  files: readonly TokenFile[],
  description: Description | undefined,
  verify: boolean,
): Promise<string> {
  if (description)
    files.forEach((file, i) => {
      const expected = (i === 0 ? description.train : description.val).tokens;
      if (file.length !== expected)
        throw new ConfigError(
          `${file.path}: holds ${file.length} tokens, its ${descriptionFile} says ${expected}; ` +
            "the file was changed or cut short: prepare the data again",
        );
    });
  const total = files.reduce((sum, file) => sum + file.length, 0);
  if (description && !verify && total * 4 > hashedAtOpenBytes) return description.sha256;

  const digest = createHash("sha256");
  for (const file of files) await file.addTo(digest);
  const found = digest.digest("hex");
  if (description && found !== description.sha256)
    throw new ConfigError(
      `${files.map(({ path }) => path).join(", ")}: sha256 of the tokens is ${found}, ${descriptionFile} says ` +
        `${description.sha256}; the files were changed: prepare the data again`,
    );
  return found;
}
