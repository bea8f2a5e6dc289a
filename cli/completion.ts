// `weft completion`: what a shell needs to complete our commands, written from the commands themselves.
import { Argument, Command, type Option } from "commander";
import { presets } from "../shared/presets.ts";
import { tell } from "./terminal.ts";

const shells = ["bash", "zsh", "fish"] as const;

/** A command by the words that lead to it, "" for the program itself. */
interface Place {
  readonly path: string;
  readonly commands: readonly Command[];
  /** What may stand as its argument. */
  readonly choices: readonly string[];
  readonly options: readonly Option[];
}

function placesOf(command: Command, path = ""): Place[] {
  const help = command.createHelp();
  const commands = help.visibleCommands(command);
  const choices = command.registeredArguments.flatMap((argument) => argument.argChoices ?? []);
  const here = { path, commands, choices, options: help.visibleOptions(command) };
  const below = command.commands
    .filter((child) => commands.includes(child))
    .map((child) => placesOf(child, `${path} ${child.name()}`.trim()));
  return [here, ...below.flat()];
}

/** What may stand behind an option; none where it is a file, or anything. */
function valuesOf(option: Option): readonly string[] {
  return option.long === "--preset" ? Object.keys(presets) : (option.argChoices ?? []);
}

const takesValue = (option: Option): boolean => option.required || option.optional;

/** Files where nothing of ours fits: -o default. */
function bash(places: readonly Place[]): string {
  const deeper = places.slice(1).map(({ path }) => {
    const [, parent = "", name] = /^(?:(.*) )?(\S+)$/.exec(path)!;
    return `      "${parent}:${name}") path="${path}" ;;`;
  });
  const values = places.flatMap(({ path, options }) =>
    options
      .filter(takesValue)
      .map((option) => `    "${path}:${option.long}") words="${valuesOf(option).join(" ")}" ;;`),
  );
  const words = places.map(({ path, commands, choices, options }) => {
    const flags = options.flatMap(({ long }) => (long ? [long] : []));
    return `    "${path}:"*) words="${[...commands.map((child) => child.name()), ...choices, ...flags].join(" ")}" ;;`;
  });
  return `_weft() {
  local cur="\${COMP_WORDS[COMP_CWORD]}" prev="\${COMP_WORDS[COMP_CWORD-1]}" path="" words="" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$path:\${COMP_WORDS[i]}" in
${deeper.join("\n")}
    esac
  done
  case "$path:$prev" in
${values.join("\n")}
${words.join("\n")}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _weft weft`;
}

/** zsh runs what bash does. */
const zsh = (places: readonly Place[]): string =>
  `autoload -Uz compinit bashcompinit && compinit && bashcompinit\n${bash(places)}`;

function fish(places: readonly Place[]): string {
  const quoted = (text: string): string => `'${text.replace(/[\\']/g, "\\$&").replace(/\s+/g, " ")}'`;
  const lines = places.flatMap(({ path, commands, choices, options }) => {
    const seen = path.split(" ").filter((word) => word !== "");
    const within = seen.map((word) => `__fish_seen_subcommand_from ${word}`);
    const names = commands.map((child) => child.name()).join(" ");
    const before = [...within, ...(names === "" ? [] : [`not __fish_seen_subcommand_from ${names}`])].join("; and ");
    const start = (condition: string): string =>
      `complete -c weft${condition === "" ? "" : ` -n ${quoted(condition)}`}`;
    return [
      ...commands.map((child) => `${start(before)} -f -a ${child.name()} -d ${quoted(child.description())}`),
      ...choices.map((choice) => `${start(before)} -f -a ${choice}`),
      ...options
        .filter(({ long }) => long)
        .map((option) => {
          const values = valuesOf(option);
          const value = !takesValue(option) ? "" : values.length > 0 ? ` -x -a ${quoted(values.join(" "))}` : " -r";
          return `${start(before)} -l ${option.long!.slice(2)}${value} -d ${quoted(option.description)}`;
        }),
    ];
  });
  return lines.join("\n");
}

export function completionCommand(): Command {
  return new Command("completion")
    .description("what a shell needs to complete these commands")
    .addArgument(new Argument("<SHELL>", "whose script to write").choices(shells))
    .action((shell: (typeof shells)[number], _options: object, command: Command) => {
      tell({ bash, zsh, fish }[shell](placesOf(command.parent!)));
    });
}
