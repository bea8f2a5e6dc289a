// A folder with a tokenizer as transformers' AutoTokenizer reads it: tokenizer.json, or the older pair of
// vocab.json and merges.txt (OpenAI's encoder.json and vocab.bpe), with the tokens and options that tokenizer_config.json,
// special_tokens_map.json and added_tokens.json add. Where transformers' versions disagree, or these files with each
// other, the folder is refused by the name of what they disagree about.
import { z } from "zod";
import { brief, checked } from "../check.ts";
import { ConfigError } from "../errors.ts";
import type { AddedToken } from "./added.ts";
import { letterOfByte } from "./bytes.ts";
import { Adding, endOfTextToken, roles, type TokenizerPlan } from "./plan.ts";
import {
  addedToken,
  configJson,
  highestId,
  pairOf,
  parseJson,
  parseTokenizerJson,
  tokenizerJson,
  vocabularyOf,
} from "./tokenizer-json.ts";

/** Vocabulary and merges file: Hugging Face's names and OpenAI's. */
export const vocabularyPairs = [
  ["vocab.json", "merges.txt"],
  ["encoder.json", "vocab.bpe"],
] as const;

const mapJson = "special_tokens_map.json";
const addedJson = "added_tokens.json";

/** Classes that add nothing of their own to what is read here. */
const classes = /^(PreTrainedTokenizerFast|TokenizersBackend|GPT2Tokenizer(Fast)?|OpenAIGPTTokenizer(Fast)?)$/;

/** Roles that transformers' classes fill themselves, whatever tokenizer.json adds. */
const gpt2Roles = { bos_token: endOfTextToken, eos_token: endOfTextToken, unk_token: endOfTextToken };
const gpt1Roles = { unk_token: "<unk>" };

const anything = z.looseObject({});

/**
 * @param read the text of a file of the folder, undefined where there is none
 * @param at a file's path, for messages
 * @returns undefined where the folder holds no such tokenizer
 */
export async function readTokenizerFolder(
  read: (name: string) => Promise<string | undefined>,
  at: (name: string) => string,
): Promise<TokenizerPlan | undefined> {
  const whole = await read(tokenizerJson);
  const plan = whole === undefined ? await readPair(read, at) : parseTokenizerJson(whole, at(tokenizerJson));
  if (!plan) return undefined;
  const object = async (name: string): Promise<Record<string, unknown>> => {
    const text = await read(name);
    return text === undefined ? {} : checked(anything, parseJson(text, at(name)), at(name));
  };
  const files = { config: await object(configJson), map: await object(mapJson), added: await object(addedJson) };
  const modelType = files.config.tokenizer_class ? undefined : (await object("config.json")).model_type;
  return withConfig(plan, files, whole === undefined, modelType, at);
}

async function readPair(
  read: (name: string) => Promise<string | undefined>,
  at: (name: string) => string,
): Promise<TokenizerPlan | undefined> {
  for (const [vocabName, mergesName] of vocabularyPairs) {
    const vocab = await read(vocabName);
    const merges = await read(mergesName);
    if (vocab !== undefined && merges !== undefined) return parsePair(vocab, at(vocabName), merges, at(mergesName));
  }
  return undefined;
}

/** @throws ConfigError naming the file and line that cannot be read */
function parsePair(vocabJson: string, vocabPath: string, mergesTxt: string, mergesPath: string): TokenizerPlan {
  const { tokens, ids } = vocabularyOf(parseJson(vocabJson, vocabPath), vocabPath);
  const lines = mergesTxt.split("\n");
  const refuse = (what: string, fix: string): never => {
    throw new ConfigError(`${mergesPath}: ${what}, without which transformers 4 drops a merge; ${fix}`);
  };
  const first = lines[0]!.trimEnd();
  if (first !== "" && !first.startsWith("#version"))
    refuse("has no first line #version", 'put "#version: 0.2" before the merges');
  if (lines.at(-1) !== "") refuse("its last line has no line break", "put one there");
  const merges = lines.flatMap((ended, i) => {
    const line = ended.replace(/\r$/, "");
    return line === "" || line.startsWith("#version") ? [] : [pairOf(line, i, mergesPath)];
  });
  const gpt1 = merges.some(([, right]) => right.endsWith("</w>"));
  return {
    kind: gpt1 ? "gpt1" : "bytes",
    vocabulary: { tokens, merges, added: [] },
    own: ids,
    addPrefixSpace: false,
    cutWords: true,
    ignoreMerges: false,
    unknown: gpt1 && tokens.includes("<unk>") ? "<unk>" : undefined,
    fuseUnknown: false,
    before: [],
    after: [],
    endOfText: undefined,
    roles: gpt1 ? gpt1Roles : gpt2Roles,
  };
}

function withConfig(
  plan: TokenizerPlan,
  { config, map, added }: Record<"config" | "map" | "added", Record<string, unknown>>,
  isPair: boolean,
  modelType: unknown,
  at: (name: string) => string,
): TokenizerPlan {
  const where = at(configJson);
  const refuse = (what: string, why: string): never => {
    throw new ConfigError(`${where}: ${what}; ${why}`);
  };
  const className = config.tokenizer_class;
  if (className != null && !(typeof className === "string" && classes.test(className)))
    refuse(`tokenizer_class ${brief(className)}`, "Weft reads GPT-2's, OpenAI-GPT's and PreTrainedTokenizerFast");
  // Where no class is named, transformers takes the model's.
  const isGpt2 = modelType === "gpt2" || /^GPT2/.test(String(className ?? ""));
  const isGpt1 = modelType === "openai-gpt" || /^OpenAIGPT/.test(String(className ?? ""));
  const owner = `tokenizer_class ${className ?? `of model_type ${modelType}`}`;
  const { itself, fitting, isOther } = {
    bytes: { itself: "byte-level BPE", fitting: "GPT2Tokenizer", isOther: isGpt1 },
    gpt1: { itself: "GPT-1's BPE", fitting: "OpenAIGPTTokenizer", isOther: isGpt2 },
    words: { itself: "a WordLevel model", fitting: "PreTrainedTokenizerFast", isOther: isGpt1 || isGpt2 },
  }[plan.kind];
  if (isOther) refuse(owner, `${isPair ? "merges.txt" : tokenizerJson} has ${itself}: make it ${fitting}`);
  // Version 5 makes the model of these classes anew, without what tokenizer.json says of unknown symbols.
  if (isGpt1 && !isPair && plan.fuseUnknown)
    refuse(owner, "tokenizer.json has fuse_unk true, which not every version of transformers follows: make it false");
  if (isGpt2 && plan.unknown !== undefined && letterOfByte.some((letter) => !plan.own.has(letter)))
    refuse(
      owner,
      `its vocabulary lacks bytes, which not every version of transformers makes unk_token ${brief(plan.unknown)}: ` +
        "make it PreTrainedTokenizerFast",
    );
  for (const name of ["split_special_tokens", "add_eos_token"])
    if (config[name] === true && (isPair || name === "split_special_tokens"))
      refuse(name, "versions of transformers read it differently: set it to false");
  const prefixSaid = config.add_prefix_space ?? (isGpt2 && !isPair ? false : undefined);
  if (prefixSaid != null && typeof prefixSaid !== "boolean")
    refuse(`add_prefix_space ${brief(prefixSaid)}`, "expected true or false");
  if (!isPair && plan.kind === "bytes" && prefixSaid != null && prefixSaid !== plan.addPrefixSpace)
    refuse(
      `add_prefix_space ${prefixSaid}`,
      `tokenizer.json has ${plan.addPrefixSpace}, and it depends on the version of transformers which of the two counts: make them equal`,
    );
  if (!isPair && plan.addPrefixSpace && prefixSaid == null && (className != null || modelType !== undefined))
    refuse(
      "does not say add_prefix_space",
      "tokenizer.json has true, which not every version of transformers follows: say it here too",
    );

  const tokens = [...plan.vocabulary.tokens];
  const adding = new Adding(plan.own, tokens);
  for (const token of plan.vocabulary.added) adding.restore(token);

  // What is added, in transformers' order.
  const decoder = Object.entries(objectOf(config.added_tokens_decoder, `${where}: added_tokens_decoder`));
  for (const [key, value] of decoder.sort(([a], [b]) => Number(a) - Number(b))) {
    const said = Number(key);
    if (!/^\d+$/.test(key) || said > highestId) refuse(`added_tokens_decoder has ${brief(key)}`, "expected an id");
    addOrCompare(adding, addedToken(value, `${where}: added_tokens_decoder ${key}`), said, where);
  }
  const bare = config.added_tokens_decoder === undefined ? added : {};
  for (const [content, said] of Object.entries(bare).sort(([, a], [, b]) => Number(a) - Number(b))) {
    if (typeof said !== "number" || !Number.isInteger(said) || said < 0 || said > highestId || content === "")
      throw new ConfigError(`${at(addedJson)}: the id of ${brief(content)} is ${brief(said)}`);
    if (!adding.get(content)) adding.add(addedToken(content, at(addedJson)), said);
  }
  const named: Record<string, string> = {};
  const special = (name: string, value: unknown, path: string): string => {
    const token = addedToken(value, `${path}: ${name}`, true);
    const before = adding.get(token.content);
    if (!before) {
      adding.add(token, undefined);
      return token.content;
    }
    const isBare = Object.hasOwn(bare, token.content);
    const isRole = roles.some((role) => role === name);
    // A role's own flags count nowhere if the token has some; a list's do in transformers 4.
    if (typeof value === "object" && (isBare || !isRole))
      compareFlags(before, token, `${path}: ${name}`, isBare ? addedJson : `${tokenizerJson} or added_tokens_decoder`);
    // Version 5 leaves a token of a list as it is described elsewhere, and only decoding tells the difference.
    if (!before.special && (isBare || isRole)) adding.markSpecial(before);
    return token.content;
  };
  const ofClass = isGpt2 ? gpt2Roles : isGpt1 ? gpt1Roles : {};
  const defaults: Record<string, string | undefined> = isPair ? plan.roles : ofClass;
  for (const role of roles) {
    // null: the class's default is switched off.
    const [value, path] =
      role in map ? [map[role], at(mapJson)] : [role in config ? config[role] : defaults[role], where];
    if (value != null) named[role] = special(role, value, path);
  }
  for (const list of ["additional_special_tokens", "extra_special_tokens"]) {
    const [value, path] = list in map ? [map[list], at(mapJson)] : [config[list], where];
    const values = Array.isArray(value) ? value : Object.values(objectOf(value, `${path}: ${list}`));
    for (const token of values) special(list, token, path);
  }

  for (const [path, keys] of [[where, config] as const, [at(mapJson), map] as const])
    for (const [key, value] of Object.entries(keys)) {
      const isOwn = !key.endsWith("_token") || roles.some((role) => role === key) || typeof value === "boolean";
      if (!isOwn && value != null && !adding.get(addedToken(value, `${path}: ${key}`).content))
        throw new ConfigError(
          `${path}: ${key} ${brief(value)}; not every version of transformers adds such a token: name it in ` +
            "additional_special_tokens",
        );
    }

  const bos = named.bos_token;
  const before = [...plan.before];
  if (isPair && plan.kind === "bytes" && config.add_bos_token === true) {
    const id = bos === undefined ? undefined : adding.get(bos)?.id;
    if (id === undefined) refuse("add_bos_token", "there is no bos_token to add");
    else before.push(id);
  }
  const end = named.eos_token === undefined ? undefined : adding.get(named.eos_token)?.id;
  return {
    ...plan,
    vocabulary: { tokens, merges: plan.vocabulary.merges, added: adding.added },
    addPrefixSpace: isPair && plan.kind === "bytes" ? prefixSaid === true : plan.addPrefixSpace,
    before,
    endOfText: end ?? plan.endOfText,
    roles: { ...plan.roles, ...named },
  };
}

function objectOf(value: unknown, where: string): Record<string, unknown> {
  return value == null ? {} : checked(anything, value, where);
}

/** transformers lets tokenizer_config.json overrule tokenizer.json, the tokenizers library does not know of it. */
function addOrCompare(adding: Adding, token: Omit<AddedToken, "id">, said: number, where: string): void {
  const before = adding.get(token.content);
  if (!before) {
    adding.add(token, said);
    return;
  }
  compareFlags(before, token, where, tokenizerJson);
  if (token.special && !before.special) adding.markSpecial(before);
}

/** @throws ConfigError where two places describe a token that is found at different places in a text */
function compareFlags(before: AddedToken, token: Omit<AddedToken, "id">, where: string, other: string): void {
  for (const flag of ["lstrip", "rstrip", "singleWord"] as const)
    if (before[flag] !== token[flag])
      throw new ConfigError(
        `${where}: added token ${brief(token.content)} has ${flag} ${token[flag]}, ${other} ${before[flag]}: ` +
          (other === addedJson ? "describe it in added_tokens_decoder instead" : "make them equal"),
      );
}
