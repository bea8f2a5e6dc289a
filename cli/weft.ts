#!/usr/bin/env node
// The program: its commands, and how errors reach people. ConfigError and EngineError are for the user to act on and
// are printed alone; anything else is our bug and keeps its stack.
import { Command } from "commander";
import { ConfigError, EngineError, ProtocolError } from "../shared/errors.ts";
import { weftVersion } from "../shared/version.ts";
import { convertCommand } from "./convert.ts";
import { coordinatorCommand } from "./coordinator.ts";
import { dataCommand } from "./data.ts";
import { doctorCommand } from "./doctor.ts";
import { evalCommand } from "./eval.ts";
import { installCommand } from "./install.ts";
import { pullCommand } from "./pull.ts";
import { sampleCommand } from "./sample.ts";
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
  sampleCommand(),
  pullCommand(),
  evalCommand(),
  dataCommand(),
  convertCommand(),
  doctorCommand(),
  installCommand(),
])
  program.addCommand(command.copyInheritedSettings(program));

// A reader such as head that has seen enough ends the program and is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  throw error;
});

try {
  await program.parseAsync();
} catch (error) {
  const isForUser = [ConfigError, EngineError, ProtocolError].some((kind) => error instanceof kind);
  say(isForUser ? (error as Error).message : String((error as Error).stack));
  process.exitCode = 1;
}
