// The words: every weft command of README and docs/ is one that the program has, with flags that it has; every file and
// address that docs/ link to is there. scripts/ci-package.sh runs the commands from the packed tarball.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Command } from "commander";
import { expect, test } from "vitest";
import { weftProgram } from "../cli/program.ts";

const root = join(import.meta.dirname, "..");
const docs = readdirSync(join(root, "docs")).filter((name) => name.endsWith(".md"));
const files = ["README.md", "CONTRIBUTING.md", ...docs.map((name) => `docs/${name}`)];
const read = (file: string): string => readFileSync(join(root, file), "utf8");
const { commands } = weftProgram();

/** Command lines of the fenced blocks: "weft train --preset ...", whatever stands before. */
function lines(text: string): string[][] {
  const fenced = [...text.matchAll(/^```\w*\n([\s\S]*?)^```/gm)].flatMap(([, block]) => block!.split("\n"));
  return fenced.flatMap((line) => {
    const [, words] = /(?:^|[$ ])(?:npx )?weft ([a-z]+\b.*)$/.exec(line) ?? [];
    return words === undefined ? [] : [words.replace(/ +#.*/, "").split(/ +/)];
  });
}

test("every command of README and docs/ exists, with every flag", () => {
  let count = 0;
  for (const file of files)
    for (const [name, ...words] of lines(read(file))) {
      let command: Command = commands.find((known) => known.name() === name)!;
      const sub = command.commands.find((known) => known.name() === words[0]);
      if (sub) command = sub;
      const flags = command.options.map((option) => option.long);
      for (const flag of words.filter((word) => word.startsWith("--")))
        expect([file, name, flags.includes(flag.split("=")[0])], `${name} ${flag}`).toEqual([file, name, true]);
      count++;
    }
  expect(count).toBeGreaterThan(12);
});

test("every file that README and docs/ link to is there", () => {
  for (const file of files)
    for (const [, target] of read(file).matchAll(/\]\((?!https?:|#)([^)#]+)/g))
      expect([file, target, existsSync(join(root, dirname(file), target!))]).toEqual([file, target, true]);
});
