// `weft data`: look at a text or at token files, make token files of a text of any size, train a tokenizer.
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { Command, InvalidArgumentError, Option } from "commander";
import { openDataset, openDocuments, type Split } from "../coordinator/data/dataset.ts";
import { prepareData } from "../coordinator/data/prepare.ts";
import { defaultValFraction } from "../coordinator/data/prepared.ts";
import { withProgress } from "../coordinator/data/text-source.ts";
import { optionTable } from "../shared/config.ts";
import { makeFolder, onDisk } from "../shared/disk.ts";
import { skippingUnknown, tokenizerNamed } from "../shared/tokenizers/open.ts";
import { BpeTrainer } from "../shared/tokenizers/train-bpe.ts";
import { progressOf } from "./progress.ts";
import { say, tell } from "./terminal.ts";

const sourceHelp =
  "`shakespeare`, a UTF-8 text file, a folder of .txt files, a glob in quotes, or - for standard input";
const tokenizerHelp = "char, gpt2, word:FILE (a word a line), or a folder that holds a tokenizer";

const count = (n: number): string => n.toLocaleString("en");

function numberIn(check: (n: number) => boolean, expected: string): (text: string) => number {
  return (text) => {
    const n = Number(text);
    if (text.trim() === "" || !check(n)) throw new InvalidArgumentError(`expected ${expected}`);
    return n;
  };
}

/** Which split a file is, where it is one of a folder's two. */
function partOf(source: string): Split | undefined {
  const split = ({ "train.bin": "train", "val.bin": "val" } as const)[basename(source)];
  const both = ["train.bin", "val.bin"].every((name) => existsSync(join(dirname(source), name)));
  return both ? split : undefined;
}

interface PrepareFlags {
  readonly out: string;
  readonly tokenizer: string;
  readonly unknown: "error" | "skip";
  readonly valFraction: number;
}

export function dataCommand(): Command {
  const command = new Command("data").description("prepare and inspect training data, train a tokenizer");

  command
    .command("prepare")
    .description("encode text once into train.bin and val.bin, which training reads by offset, however large they are")
    .argument("<SOURCE>", sourceHelp)
    .requiredOption("--out <DIR>", "folder to make; train from it with --data DIR")
    .option("--tokenizer <NAME>", tokenizerHelp, "char")
    .addOption(
      new Option("--unknown <error|skip>", optionTable.unknown.help).choices(["error", "skip"]).default("error"),
    )
    .option(
      "--val-fraction <N>",
      "last part of the tokens, kept for validation",
      numberIn((n) => n >= 0 && n < 1, "a number from 0 to below 1"),
      defaultValFraction,
    )
    .action(async (source: string, options: PrepareFlags) => {
      const { out, valFraction } = options;
      const named = await tokenizerNamed(options.tokenizer);
      const tokenizer = named && options.unknown === "skip" ? skippingUnknown(named) : named;
      const bars = {
        vocabulary: progressOf(process.stderr, "finding characters"),
        tokens: progressOf(process.stderr, "encoding"),
      };
      try {
        const made = await prepareData({
          source,
          out,
          ...(tokenizer && { tokenizer }),
          valFraction,
          notify: say,
          progress: (pass, done, total) => {
            if (pass === "tokens") bars.vocabulary.stop();
            bars[pass].show(done, total);
          },
        });
        for (const bar of Object.values(bars)) bar.stop();
        tell(
          `${out}: ${count(made.trainTokens)} + ${count(made.valTokens)} tokens (${made.dtype}, ` +
            `${made.tokenizer} of ${count(made.vocabSize)}); train with: weft train --data ${out}`,
        );
      } finally {
        for (const bar of Object.values(bars)) bar.stop();
      }
    });

  command
    .command("info")
    .description("what a data source holds; token files are read whole and checked")
    .argument("<SOURCE>", `${sourceHelp}, a .bin or .npy file, or a prepared folder`)
    .option("--tokenizer <NAME>", `${tokenizerHelp}; needed for token files without one beside them`)
    .option("--json", "one JSON object for programs", false)
    .action(async (source: string, options: { tokenizer?: string; json: boolean }) => {
      const tokenizer = options.tokenizer === undefined ? undefined : await tokenizerNamed(options.tokenizer);
      const data = await openDataset({
        source,
        blockSize: 0,
        verify: true,
        notify: say,
        ...(tokenizer && { tokenizer }),
      });
      try {
        const part = partOf(source);
        const split = part ?? "train";
        const first = new Int32Array(Math.min(60, data[split].length));
        await data.read(split, 0, first.length, first);
        const facts = {
          source: part === undefined ? data.name : dirname(source),
          ...(part && { file: `${basename(source)}, the ${part} split: ${count(data[part].length)} tokens` }),
          tokenizer: data.tokenizer.name,
          vocabSize: data.tokenizer.vocabSize,
          trainTokens: data.train.length,
          valTokens: data.val.length,
          sha256: data.fingerprint,
          begins: data.tokenizer.decode(first),
        };
        if (options.json) tell(JSON.stringify(facts));
        else
          for (const [name, value] of Object.entries(facts))
            tell(`${name.padEnd(12)} ${typeof value === "number" ? count(value) : value}`.replaceAll("\n", "\\n"));
      } finally {
        await data.close();
      }
    });

  command
    .command("train-tokenizer")
    .description("train a byte-level BPE and save it as Hugging Face's tokenizer.json")
    .argument("<SOURCE>", sourceHelp)
    .requiredOption("--out <DIR>", "folder for tokenizer.json; use it with --tokenizer DIR")
    .option(
      "--vocab-size <N>",
      "tokens in all: 256 bytes, the merges, and <|endoftext|>",
      numberIn((n) => Number.isInteger(n) && n > 256 && n <= 1_000_000, "a whole number from 257 to 1000000"),
      1024,
    )
    .action(async (source: string, { out, vocabSize }: { out: string; vocabSize: number }) => {
      const trainer = new BpeTrainer();
      const bar = progressOf(process.stderr, "counting words");
      try {
        for (const document of withProgress(await openDocuments({ source, notify: say }), bar.show)) {
          for await (const piece of document.pieces()) trainer.push(piece);
          trainer.endDocument();
        }
      } finally {
        bar.stop();
      }
      const tokenizer = trainer.train(vocabSize);
      await makeFolder(out);
      for (const [name, content] of tokenizer.toFiles()) {
        const path = join(out, name);
        await onDisk(path, "written", () => writeFile(path, content, { flush: true }));
      }
      tell(
        `${out}: ${count(vocabSize)} tokens, ${count(tokenizer.vocabulary.merges.length)} merges; ` +
          `use it with: weft data prepare ... --tokenizer ${out}`,
      );
    });

  return command;
}
