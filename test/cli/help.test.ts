// Every command's help: its examples are commands of the program, its lines fit the terminal; and completion in a real bash.
import { execFileSync, spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { expect, test } from "vitest";
import { examples } from "../../cli/examples.ts";
import { weftProgram } from "../../cli/program.ts";
import { temporary } from "../system/weft.ts";

/** The commands that do something, by the words that lead to them. */
function leaves(command: Command, path: string[] = []): [string, Command][] {
  const shown = (parent: Command) =>
    parent
      .createHelp()
      .visibleCommands(parent)
      .filter((child) => child.name() !== "help");
  return shown(command).flatMap((child): [string, Command][] => {
    const here = [...path, child.name()];
    return shown(child).length > 0 ? leaves(child, here) : [[here.join(" "), child]];
  });
}

const commands = new Map(leaves(await weftProgram()));

test("every command has examples, of commands and flags that there are", () => {
  expect([...commands.keys()].sort()).toEqual(Object.keys(examples).sort());
  for (const [path, lines] of Object.entries(examples))
    for (const line of lines) {
      const [, words = ""] = /weft ((?:\S+)(?: .*)?)$/.exec(line.replace(/ (?:>|&&|<) .*|\)$/, ""))!;
      expect(words.startsWith(path), line).toBe(true);
      const flags = commands.get(path)!.options.map(({ long }) => long);
      for (const flag of words.match(/--[\w-]+/g) ?? []) expect(flags, line).toContain(flag);
    }
});

test("a relay has no options that only its coordinator can follow", () => {
  const flags = commands.get("relay")!.options.map(({ long }) => long);
  for (const own of ["--verify", "--on-liar", "--allow", "--steps"]) expect(flags).not.toContain(own);
  expect(flags).toContain("--max-workers");
});

test.each([60, 80, 120])("help on %i columns", async (columns) => {
  const program = await weftProgram();
  for (const [path] of commands) {
    let command = program;
    for (const word of path.split(" ")) command = command.commands.find((child) => child.name() === word)!;
    command.configureOutput({ getOutHelpWidth: () => columns });
    const wide = command
      .helpInformation()
      .split("\n")
      .filter((line) => line.length > columns && / /.test(line.trim()));
    expect(wide, path).toEqual([]);
  }
});

const script = (shell: string): string =>
  execFileSync(process.execPath, [join(import.meta.dirname, "../../dist/cli/weft.js"), "completion", shell], {
    encoding: "utf8",
  });

test("completion in a real bash: commands, flags, and what may stand behind them", () => {
  const file = join(temporary(), "weft.bash");
  writeFileSync(file, script("bash"));
  const complete = (...words: string[]): string[] => {
    const quoted = ["weft", ...words].map((word) => `'${word}'`).join(" ");
    const line = `source ${file}; COMP_WORDS=(${quoted}); COMP_CWORD=${words.length}; _weft; echo "\${COMPREPLY[@]}"`;
    return execFileSync("bash", ["--norc", "-c", line], { encoding: "utf8" }).trim().split(" ");
  };
  expect(complete("t")).toEqual(["train"]);
  expect(complete("co").sort()).toEqual(["completion", "convert", "coordinator"]);
  expect(complete("data", "")).toEqual(expect.arrayContaining(["prepare", "info", "train-tokenizer"]));
  expect(complete("data", "prepare", "--tok")).toEqual(["--tokenizer"]);
  expect(complete("train", "--engine", "")).toEqual(["auto", "native", "xla", "tfjs"]);
  expect(complete("train", "--preset", "gpt2-1")).toEqual(["gpt2-124m", "gpt2-1558m"]);
  expect(complete("train", "--steps", "10", "--dry")).toEqual(["--dry-run"]);
  expect(complete("worker", "--dry")).toEqual([""]);
  expect(complete("train", "--data", "")).toEqual([""]);
  expect(complete("completion", "z")).toEqual(["zsh"]);
});

test("an unknown shell is refused by those that there are", () => {
  const weft = join(import.meta.dirname, "../../dist/cli/weft.js");
  const { status, stderr } = spawnSync(process.execPath, [weft, "completion", "tcsh"], { encoding: "utf8" });
  expect([status, stderr]).toEqual([1, expect.stringMatching(/Allowed choices are bash, zsh, fish/)]);
});

for (const shell of ["zsh", "fish"])
  test.skipIf(spawnSync(shell, ["--version"]).error)(`${shell} can read its script (needs ${shell})`, () => {
    const file = join(temporary(), `weft.${shell}`);
    writeFileSync(file, script(shell));
    expect(spawnSync(shell, ["-n", file], { encoding: "utf8" })).toMatchObject({ status: 0, stderr: "" });
  });
