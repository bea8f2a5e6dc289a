// Tokenizer folders against the real transformers, 4.38 and the newest: what Weft writes opens there with equal ids and
// equal text, what people have is read as it is there. Needs Pythons with transformers: scripts/ci-transformers.sh makes
// them. WEFT_WRITE_GOLDEN=1 writes test/shared/tokenizers/folders.golden.json anew.
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CharTokenizer } from "../../shared/tokenizers/char.ts";
import { openTokenizer } from "../../shared/tokenizers/open.ts";
import type { Tokenizer } from "../../shared/tokenizers/tokenizer.ts";
import { WordTokenizer } from "../../shared/tokenizers/word.ts";
import { folders, folderTexts } from "../shared/tokenizers/folders.ts";
import { RandomText } from "../shared/tokenizers/random-text.ts";

const pythons = process.env.WEFT_TOKENIZER_PYTHONS?.split(" ") ?? [];
if (pythons.length === 0) throw new Error("WEFT_TOKENIZER_PYTHONS names no Pythons; run scripts/ci-transformers.sh");
const strings = Number(process.env.WEFT_ORACLE_STRINGS ?? 300);

type Answer = { ids: number[][]; decoded: string[]; eos: number | null; error?: undefined } | { error: string };

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "weft-tokenizers-"));
});
afterAll(() => rm(directory, { recursive: true }));

function ask(python: string, asked: readonly { folder: string; texts: readonly string[] }[]) {
  const script = join(import.meta.dirname, "../../scripts/transformers-tokenizers.py");
  const answer = execFileSync(python, [script], { input: JSON.stringify(asked), encoding: "utf8", maxBuffer: 2 ** 30 });
  return JSON.parse(answer) as { version: string; answers: Answer[] };
}

async function save(name: string, files: Iterable<readonly [string, string]>): Promise<string> {
  const folder = join(directory, name.replaceAll(/\W+/g, "-"));
  await mkdir(folder, { recursive: true });
  for (const [file, text] of files) await writeFile(join(folder, file), text);
  return folder;
}

const textOf = (content: unknown): string => (typeof content === "string" ? content : JSON.stringify(content));
const random = new RandomText(5);

test("what people have is read as transformers reads it, or refused", async () => {
  const woven = ["<|user|>", "<|bot|>", "<|endoftext|>", "<new>", "hello", "Hello", "the", "<U>", "<pad>", "fox"];
  const texts = [...folderTexts, ...Array.from({ length: strings }, () => random.text(16, woven))];
  const asked: { folder: string; texts: string[] }[] = [];
  for (const [name, files] of Object.entries(folders))
    asked.push({
      folder: await save(
        name,
        Object.entries(files).map(([file, content]) => [file, textOf(content)]),
      ),
      texts,
    });
  const golden: Record<string, Record<string, number[][] | null>> = {};
  for (const python of pythons) {
    const { version, answers } = ask(python, asked);
    console.log(`transformers ${version}: ${answers.length} folders, ${texts.length} texts each`);
    golden[version] = {};
    for (const [i, name] of Object.keys(folders).entries()) {
      const answer = answers[i]!;
      if (answer.error !== undefined) console.log(`${name}: transformers ${version} refuses: ${answer.error}`);
      golden[version][name] = answer.error === undefined ? answer.ids.slice(0, folderTexts.length) : null;
      const ours = await openTokenizer(asked[i]!.folder).catch((error: Error) => error);
      if (ours instanceof Error) console.log(`${name}: refused: ${ours.message}`);
      else if (answer.error === undefined)
        for (const [j, text] of texts.entries()) {
          const where = `${name}, transformers ${version}: ${JSON.stringify(text)}`;
          const ids = encodeOrRefuse(ours, text);
          if (ids) expect(ids, where).toEqual(answer.ids[j]);
        }
    }
  }
  if (process.env.WEFT_WRITE_GOLDEN)
    await writeFile(
      join(import.meta.dirname, "../shared/tokenizers/folders.golden.json"),
      `${JSON.stringify(golden)}\n`,
    );
});

/** A token that the files and the library disagree about is refused in a text by its name. */
function encodeOrRefuse(tokenizer: Tokenizer, text: string): number[] | undefined {
  try {
    return [...tokenizer.encode(text)];
  } catch (error) {
    if (/^the added token .* has another id/.test((error as Error).message)) return undefined;
    throw error;
  }
}

test("what Weft writes opens in transformers with equal ids and equal text", async () => {
  const characters = " \n\tabcdefghijklmnopqrstuvwxyzABC.,'!0123\u0085\u00a0éß日本🙂👩\\\"$^[]";
  const words = "all not heroes the wear . capes \n don't __proto__ 日本".split(" ");
  const written: { name: string; tokenizer: Tokenizer; texts: string[] }[] = [
    {
      name: "char",
      tokenizer: CharTokenizer.of(characters),
      texts: Array.from({ length: strings }, () =>
        Array.from({ length: random.below(30) }, () => random.of([...characters])).join(""),
      ),
    },
    {
      name: "word",
      tokenizer: new WordTokenizer(words),
      texts: Array.from({ length: strings }, () =>
        Array.from({ length: 1 + random.below(30) }, () => random.of(words)).join(" "),
      ),
    },
  ];
  for (const [name, files] of Object.entries(folders)) {
    const from = await save(
      name,
      Object.entries(files).map(([file, content]) => [file, textOf(content)]),
    );
    const tokenizer = await openTokenizer(from).catch(() => undefined);
    const woven = ["<|user|>", "<|endoftext|>", "<new>", "hello", "the", "<U>"];
    if (tokenizer && !/with a gap/.test(name))
      written.push({ name, tokenizer, texts: Array.from({ length: strings }, () => random.text(16, woven)) });
  }
  const asked = [];
  for (const { name, tokenizer, texts } of written) {
    const config: [string, string] = ["config.json", '{"model_type": "gpt2"}'];
    asked.push({ folder: await save(`written ${name}`, [...tokenizer.toFiles(), config]), texts });
  }
  for (const python of pythons) {
    const { version, answers } = ask(python, asked);
    for (const [i, { name, tokenizer, texts }] of written.entries()) {
      const answer = answers[i]!;
      if (answer.error !== undefined) throw new Error(`${name}: transformers ${version}: ${answer.error}`);
      expect(answer.eos ?? undefined, `${name}, ${version}: eos`).toBe(tokenizer.endOfText);
      for (const [j, text] of texts.entries()) {
        const where = `${name}, transformers ${version}: ${JSON.stringify(text)}`;
        const ids = [...tokenizer.encode(text)];
        expect(answer.ids[j], where).toEqual(ids);
        // An added token that is found in normalized text: older libraries write it as it was added.
        if (name === "gpt1 with tokens" && text.includes("<U>")) continue;
        expect(answer.decoded[j], where).toBe(tokenizer.decode(ids));
      }
    }
  }
});
