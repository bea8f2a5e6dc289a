// `weft data`: look at a text or at token files, make token files of a text of any size, train a tokenizer.
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { Command } from "commander";
import { openDataset, openDocuments, type Split } from "../coordinator/data/dataset.ts";
import { prepareData } from "../coordinator/data/prepare.ts";
import { documentEnd, withProgress } from "../coordinator/data/text-source.ts";
import { optionTable } from "../shared/config.ts";
import { makeFolder, onDisk } from "../shared/disk.ts";
import { skippingUnknown, tokenizerNamed } from "../shared/tokenizers/open.ts";
import { BpeTrainer } from "../shared/tokenizers/train-bpe.ts";
import { addOptions, type Own, optionsOf } from "./options.ts";
import { progressOf } from "./progress.ts";
import { say, tell } from "./terminal.ts";

const sourceHelp =
  "a file of UTF-8 text, JSON lines (.jsonl) or Parquet, also .gz, a folder of them, a glob in quotes, - for standard input, or `shakespeare`";

const count = (n: number): string => n.toLocaleString("en");

/** Which split a file is, where it is one of a folder's two. */
function partOf(source: string): Split | undefined {
  const split = ({ "train.bin": "train", "val.bin": "val" } as const)[basename(source)];
  const both = ["train.bin", "val.bin"].every((name) => existsSync(join(dirname(source), name)));
  return both ? split : undefined;
}

const prepareOwn = {
  out: { required: true, help: "folder to make; train from it with --data DIR" },
  tokenizer: {},
  unknown: {},
  textColumn: {},
  threads: { help: "threads that encode, each files of its own", defaultText: "one for each core" },
  valFraction: {},
} satisfies Own;
const infoOwn = {
  tokenizer: { default: "", help: `${optionTable.tokenizer.help}; for token files without one beside them` },
  json: {},
} satisfies Own;
const trainOwn = {
  out: { required: true, help: "folder for tokenizer.json; use it with --tokenizer DIR" },
  vocabSize: {},
  textColumn: {},
} satisfies Own;

export function dataCommand(): Command {
  const command = new Command("data").description("prepare and inspect training data, train a tokenizer");

  const prepare = command
    .command("prepare")
    .description(
      "encode text once into token files, which training reads by offset, however large they are; goes on when started again",
    )
    .argument("<SOURCE>", sourceHelp)
    .action(async (source: string) => {
      const options = await optionsOf(prepare, prepareOwn);
      const { out, valFraction, textColumn, threads } = options;
      const named = await tokenizerNamed(options.tokenizer);
      const skips = options.unknown === "skip";
      const tokenizer = named && skips ? skippingUnknown(named) : named;
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
          textColumn,
          skips,
          ...(threads > 0 && { threads }),
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

  addOptions(prepare, [], prepareOwn);

  const info = command
    .command("info")
    .description("what a data source holds; token files are read whole and checked")
    .argument("<SOURCE>", `${sourceHelp}, a .bin or .npy file, or a prepared folder`)
    .action(async (source: string) => {
      const options = await optionsOf(info, infoOwn);
      const tokenizer = options.tokenizer === "" ? undefined : await tokenizerNamed(options.tokenizer);
      const data = await openDataset({
        source,
        blockSize: 0,
        anySplit: true,
        verify: true,
        notify: say,
        ...(tokenizer && { tokenizer }),
      });
      try {
        const part = partOf(source);
        const split = part ?? (data.train.length > 0 ? "train" : "val");
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

  addOptions(info, [], infoOwn);

  const train = command
    .command("train-tokenizer")
    .description("train a byte-level BPE and save it as Hugging Face's tokenizer.json")
    .argument("<SOURCE>", sourceHelp)
    .action(async (source: string) => {
      const { out, vocabSize, textColumn } = await optionsOf(train, trainOwn);
      const trainer = new BpeTrainer();
      const bar = progressOf(process.stderr, "counting words");
      try {
        for (const document of withProgress(await openDocuments({ source, textColumn, notify: say }), bar.show)) {
          for await (const piece of document.pieces())
            if (piece === documentEnd) trainer.endDocument();
            else trainer.push(piece);
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
  addOptions(train, [], trainOwn);

  return command;
}
