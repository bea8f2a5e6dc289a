#!/usr/bin/env node
// The program: its commands, and how errors reach people. ConfigError and EngineError are for the user to act on and
// are printed alone; anything else is our bug and keeps its stack.
import { Command } from "commander";
import { didYouMean } from "../shared/config.ts";
import { diskError } from "../shared/disk.ts";
import { ConfigError, EngineError, ProtocolError } from "../shared/errors.ts";
import { weftVersion } from "../shared/version.ts";
import { auditCommand } from "./audit.ts";
import { chaosCommand } from "./chaos.ts";
import { convertCommand } from "./convert.ts";
import { coordinatorCommand } from "./coordinator.ts";
import { dataCommand } from "./data.ts";
import { doctorCommand } from "./doctor.ts";
import { evalCommand } from "./eval.ts";
import { exportCommand } from "./export.ts";
import { installCommand } from "./install.ts";
import { pullCommand } from "./pull.ts";
import { relayCommand } from "./relay.ts";
import { runsCommand } from "./runs.ts";
import { sampleCommand } from "./sample.ts";
import { serveCommand } from "./serve.ts";
import { statusCommand } from "./status.ts";
import { onOneLine, say } from "./terminal.ts";
import { trainCommand } from "./train.ts";
import { workerCommand } from "./worker.ts";

const program = new Command("weft")
  .description("Train GPT models across machines: the same bits for any number of workers.")
  .version(weftVersion)
  .enablePositionalOptions() // install tensorflow has a --version of its own
  .configureOutput({ outputError: (text, write) => write(`${onOneLine(text)}\n`) })
  .configureHelp({ showGlobalOptions: false });
for (const command of [
  trainCommand(),
  coordinatorCommand(),
  workerCommand(),
  relayCommand(),
  sampleCommand(),
  pullCommand(),
  evalCommand(),
  serveCommand(),
  runsCommand(),
  statusCommand(),
  exportCommand(),
  dataCommand(),
  convertCommand(),
  auditCommand(),
  chaosCommand(),
  doctorCommand(),
  installCommand(),
])
  program.addCommand(command.copyInheritedSettings(program));

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
  const isForUser = [ConfigError, EngineError, ProtocolError].some((kind) => error instanceof kind);
  say(isForUser ? (error as Error).message : String((error as Error).stack));
  process.exitCode ??= 1;
}
