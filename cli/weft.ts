#!/usr/bin/env node
// The program, and how its errors reach people. ConfigError and EngineError are for the user to act on and
// are printed alone; anything else is our bug and keeps its stack.
import { didYouMean } from "../shared/config.ts";
import { diskError } from "../shared/disk.ts";
import { ConfigError, EngineError, Interrupted, ProtocolError } from "../shared/errors.ts";
import { weftProgram } from "./program.ts";
import { say } from "./terminal.ts";

const program = await weftProgram(process.argv[2]);

// A reader such as head that has seen enough ends the program and is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  const refused = diskError(error, "standard output", "written");
  if (!(refused instanceof ConfigError)) throw error;
  say(refused.message);
  process.exit(1);
});
// Where the log cannot go, nothing can be said; what is computed is still worth keeping.
process.stderr.on("error", () => {});

/** "help smaple" names no command: that is said, as for "smaple" alone. */
function checkHelp(words: readonly string[]): void {
  const at = words.indexOf("help");
  const parent =
    at === 0 ? program : at === 1 ? program.commands.find((known) => known.name() === words[0]) : undefined;
  const asked = words[at + 1];
  const known = parent?.commands.map((command) => command.name()) ?? [];
  if (known.length === 0 || asked === undefined || asked.startsWith("-") || known.includes(asked)) return;
  throw new ConfigError(`unknown command "${asked}"${didYouMean(asked, known) || `; there are ${known.join(", ")}`}`);
}

try {
  checkHelp(process.argv.slice(2));
  await program.parseAsync();
} catch (raw) {
  const error = diskError(raw);
  const isForUser = [ConfigError, EngineError, ProtocolError, Interrupted].some((kind) => error instanceof kind);
  say(isForUser ? (error as Error).message : String((error as Error).stack));
  process.exitCode ??= 1;
}
