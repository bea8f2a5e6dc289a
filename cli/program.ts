// The program as a tree of commands, each with its examples.
import { Command } from "commander";
import { weftVersion } from "../shared/version.ts";
import { examples } from "./examples.ts";
import { onOneLine } from "./terminal.ts";

/** A command loads what it needs itself and nothing else: reading all of them takes a second of processor time. */
const commands: Readonly<Record<string, () => Promise<Command>>> = {
  train: async () => (await import("./train.ts")).trainCommand(),
  coordinator: async () => (await import("./coordinator.ts")).coordinatorCommand(),
  worker: async () => (await import("./worker.ts")).workerCommand(),
  relay: async () => (await import("./relay.ts")).relayCommand(),
  launch: async () => (await import("./launch.ts")).launchCommand(),
  sample: async () => (await import("./sample.ts")).sampleCommand(),
  pull: async () => (await import("./pull.ts")).pullCommand(),
  eval: async () => (await import("./eval.ts")).evalCommand(),
  serve: async () => (await import("./serve.ts")).serveCommand(),
  runs: async () => (await import("./runs.ts")).runsCommand(),
  status: async () => (await import("./status.ts")).statusCommand(),
  export: async () => (await import("./export.ts")).exportCommand(),
  data: async () => (await import("./data.ts")).dataCommand(),
  convert: async () => (await import("./convert.ts")).convertCommand(),
  audit: async () => (await import("./audit.ts")).auditCommand(),
  chaos: async () => (await import("./chaos.ts")).chaosCommand(),
  doctor: async () => (await import("./doctor.ts")).doctorCommand(),
  install: async () => (await import("./install.ts")).installCommand(),
  completion: async () => (await import("./completion.ts")).completionCommand(),
};

/** @param word the first word of the command line: where it names a command that looks at no other, the rest is left out */
export async function weftProgram(word?: string): Promise<Command> {
  const program = new Command("weft")
    .description("Train GPT models across machines: the same bits for any number of workers.")
    .version(weftVersion)
    .enablePositionalOptions() // install tensorflow has a --version of its own
    .configureOutput({ outputError: (text, write) => write(`${onOneLine(text)}\n`) })
    // What is said of an option is wrapped beside it on any terminal that has room for a few words.
    .configureHelp({ showGlobalOptions: false, minWidthToWrap: 20 });
  const alone = word !== undefined && word !== "completion" && Object.hasOwn(commands, word);
  const wanted = alone ? [word] : word === "--version" ? [] : Object.keys(commands);
  for (const name of wanted) {
    const command = await commands[name]!();
    program.addCommand(withExamples(command.copyInheritedSettings(program), name));
  }
  return program;
}

function withExamples(command: Command, path: string): Command {
  for (const child of command.commands) withExamples(child.copyInheritedSettings(command), `${path} ${child.name()}`);
  const lines = examples[path];
  return lines ? command.addHelpText("after", `\nExamples:\n  ${lines.join("\n  ")}`) : command;
}
