// The program as a tree of commands, each with its examples.
import { Command } from "commander";
import { weftVersion } from "../shared/version.ts";
import { auditCommand } from "./audit.ts";
import { chaosCommand } from "./chaos.ts";
import { completionCommand } from "./completion.ts";
import { convertCommand } from "./convert.ts";
import { coordinatorCommand } from "./coordinator.ts";
import { dataCommand } from "./data.ts";
import { doctorCommand } from "./doctor.ts";
import { evalCommand } from "./eval.ts";
import { examples } from "./examples.ts";
import { exportCommand } from "./export.ts";
import { installCommand } from "./install.ts";
import { launchCommand } from "./launch.ts";
import { pullCommand } from "./pull.ts";
import { relayCommand } from "./relay.ts";
import { runsCommand } from "./runs.ts";
import { sampleCommand } from "./sample.ts";
import { serveCommand } from "./serve.ts";
import { statusCommand } from "./status.ts";
import { onOneLine } from "./terminal.ts";
import { trainCommand } from "./train.ts";
import { workerCommand } from "./worker.ts";

export function weftProgram(): Command {
  const program = new Command("weft")
    .description("Train GPT models across machines: the same bits for any number of workers.")
    .version(weftVersion)
    .enablePositionalOptions() // install tensorflow has a --version of its own
    .configureOutput({ outputError: (text, write) => write(`${onOneLine(text)}\n`) })
    // What is said of an option is wrapped beside it on any terminal that has room for a few words.
    .configureHelp({ showGlobalOptions: false, minWidthToWrap: 20 });
  for (const command of [
    trainCommand(),
    coordinatorCommand(),
    workerCommand(),
    relayCommand(),
    launchCommand(),
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
    completionCommand(),
  ])
    program.addCommand(withExamples(command.copyInheritedSettings(program), command.name()));
  return program;
}

function withExamples(command: Command, path: string): Command {
  for (const child of command.commands) withExamples(child.copyInheritedSettings(command), `${path} ${child.name()}`);
  const lines = examples[path];
  return lines ? command.addHelpText("after", `\nExamples:\n  ${lines.join("\n  ")}`) : command;
}
