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
const known = (await weftProgram()).commands;

/** Command lines of a text: "weft train --preset ...", whatever stands before. */
function linesOf(text: string): string[][] {
  const names = known.map((command) => command.name()).join("|");
  const line = new RegExp(`(?:^|[$ "(])(?:npx )?weft ((?:${names})\\b.*)$`);
  return text.split("\n").flatMap((raw) => {
    const [, words] = line.exec(raw.replace(/ +#.*/, "")) ?? [];
    return words === undefined ? [] : [words.replaceAll(/["')]/g, "").split(/ +/)];
  });
}

/** Those of the fenced blocks of README and docs/, with the file. */
const documented = files.flatMap((file) =>
  [...read(file).matchAll(/^```\w*\n([\s\S]*?)^```/gm)].flatMap(([, block]) =>
    linesOf(block!).map((words) => ({ file, words })),
  ),
);
const flagsOf = (words: readonly string[]): string[] =>
  words.filter((word) => word.startsWith("--")).map((word) => word.split("=")[0]!);

test("every command of README and docs/ exists, with every flag", () => {
  for (const { file, words } of documented) {
    let command: Command = known.find((one) => one.name() === words[0])!;
    command = command.commands.find((sub) => sub.name() === words[1]) ?? command;
    const flags = command.options.map((option) => option.long);
    for (const flag of flagsOf(words)) expect(flags, `${file}: ${words.join(" ")}`).toContain(flag);
  }
  expect(documented.length).toBeGreaterThan(20);
});

test("scripts/ci-package.sh runs every one of them, with every flag", () => {
  const run = linesOf(read("scripts/ci-package.sh"));
  for (const { file, words } of documented) {
    const [name] = words;
    const there = run.filter((line) => line[0] === name).flatMap(flagsOf);
    expect(there.length + Number(run.some((line) => line[0] === name)), `${file}: weft ${name}`).toBeGreaterThan(0);
    for (const flag of flagsOf(words)) expect(there, `${file}: ${words.join(" ")}`).toContain(flag);
  }
});

test("every npm script that they name exists", () => {
  const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
  const names = files.flatMap((file) => [...read(file).matchAll(/\bnpm run ([\w:]+)/g)].map(([, name]) => name!));
  expect(names.length).toBeGreaterThan(5);
  expect(names.filter((name) => !(name in scripts))).toEqual([]);
});

test("every file that README and docs/ link to is there", () => {
  for (const file of files)
    for (const [, target] of read(file).matchAll(/\]\((?!https?:|#)([^)#]+)/g))
      expect([file, target, existsSync(join(root, dirname(file), target!))]).toEqual([file, target, true]);
});
