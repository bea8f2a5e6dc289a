// The table of options as flags of a command, and the way back: flags, config file and preset as sources of options.
import { type Command, Option } from "commander";
import { parse as parseYaml } from "yaml";
import { z } from "zod";
import {
  flagOf,
  flagsFor,
  type OptionGroup,
  type OptionName,
  type OptionSpec,
  type Options,
  offFlagOf,
  optionTable,
  parseFlag,
} from "../shared/config.ts";
import { ConfigError, messageOf } from "../shared/errors.ts";
import { readText } from "../shared/json.ts";
import { presets } from "../shared/presets.ts";
import { asked, type Resolved, resolveOptions, type Sources } from "../shared/resolve.ts";

const entries = Object.entries(optionTable) as [OptionName, OptionSpec][];

/** What a command has of the table's options beside whole groups: some alone, or with another default or help. */
export type Own = {
  readonly [K in OptionName]?: {
    readonly default?: Options[K];
    readonly defaultText?: string;
    readonly help?: string;
    /** The command does not begin without it. */
    readonly required?: true;
  };
};

/** Add the flags of some groups; their defaults show in --help and stay unset, so that a preset can give them. */
export function addOptions(command: Command, groups: readonly OptionGroup[], own: Own = {}): Command {
  if (groups.includes("training")) {
    const list = Object.entries(presets).map(([name, { about }]) => `${name} (${about})`);
    command.option("--preset <NAME>", `ready settings: ${list.join("; ")}`);
  }
  command.option("--config <FILE>", "JSON or YAML file of options, keys as in camelCase");
  for (const [name, ofTable] of entries) {
    if (!groups.includes(ofTable.group) && !own[name]) continue;
    const spec = { ...ofTable, ...own[name] };
    const heading = `${spec.group[0]!.toUpperCase()}${spec.group.slice(1)}:`;
    if (spec.value === undefined) {
      // A switch is shown in the direction in which it changes something.
      const [on, off] = [flagOf(name), offFlagOf(name)];
      const shownAs = spec.default ? off : on;
      for (const flag of [on, off])
        command.addOption(new Option(flag, helpOf(spec)).hideHelp(flag !== shownAs).helpGroup(heading));
    } else {
      const { default: ownDefault, defaultText, required = false } = own[name] ?? {};
      const shown = defaultText ?? (ownDefault === undefined ? spec.defaultText : undefined);
      const initial = spec.default === "" ? "none" : JSON.stringify(spec.default);
      const help = required ? helpOf(spec) : `${helpOf(spec)} [default: ${shown ?? initial}]`;
      const choices = spec.schema instanceof z.ZodEnum ? spec.schema.options.map(String) : undefined;
      const option = new Option(`${flagOf(name)} <${choices ? "WHICH" : spec.value}>`, help)
        .argParser((raw, before) => parseFlag(name, raw, before))
        .helpGroup(heading)
        .makeOptionMandatory(required);
      if (choices) option.argChoices = choices; // shown and completed; checked with all else
      command.addOption(option);
    }
  }
  return command;
}

/** A flag of the table with its help, for commands that read their flags by themselves. */
export function flagAndHelp(name: OptionName, help = helpOf(optionTable[name])): [flag: string, help: string] {
  const { value }: OptionSpec = optionTable[name];
  return [value === undefined ? flagOf(name) : `${flagOf(name)} <${value}>`, help];
}

/** What a flag does, in the direction in which it is shown. */
export function helpOf({ help, helpWhenOff, unit }: OptionSpec): string {
  return `${helpWhenOff ?? help}${unit ? ` (${unit})` : ""}`;
}

/** What a parsed command line asks for, and from where. @throws ConfigError */
export async function sourcesOf(command: Command, own: Own = {}): Promise<Sources> {
  const { preset, config, ...given } = command.opts<Record<string, unknown>>();
  const flags = Object.fromEntries(
    Object.entries(given).filter(
      ([name]) => Object.hasOwn(optionTable, name) && command.getOptionValueSource(name) === "cli",
    ),
  );
  const defaults = Object.entries(own).flatMap(([name, { default: initial }]) =>
    initial === undefined ? [] : [[name, initial]],
  );
  return {
    defaults: Object.fromEntries(defaults),
    preset: preset as string | undefined,
    file: config === undefined ? undefined : { path: config as string, values: await readConfig(config as string) },
    flags,
  };
}

/** The options of a command that owns no run. @throws ConfigError */
export async function optionsOf(command: Command, own: Own = {}): Promise<Options> {
  return resolveOptions(await sourcesOf(command, own)).options;
}

/** What was asked for, by flag or file, as flags again. @param also options beside those of the groups */
export function askedFor(
  { options, origins, preset }: Omit<Resolved, "notes">,
  groups: readonly OptionGroup[],
  without: readonly OptionName[] = [],
  also: readonly OptionName[] = [],
): string[] {
  const names = entries
    .filter(([name, { group }]) => (groups.includes(group) || also.includes(name)) && !without.includes(name))
    .map(([name]) => name)
    .filter((name) => asked(origins[name]));
  const flags = flagsFor(Object.fromEntries(names.map((name) => [name, options[name]])));
  return preset !== undefined && groups.includes("training") ? ["--preset", preset, ...flags] : flags;
}

async function readConfig(path: string): Promise<Record<string, unknown>> {
  const text = await readText(path, `config: --config ${path}`);
  let values: unknown;
  try {
    values = parseYaml(text) ?? {}; // JSON is YAML
  } catch (error) {
    const [where] = messageOf(error).split("\n");
    throw new ConfigError(`config: ${path} is neither JSON nor YAML: ${where}`, { cause: error });
  }
  // Every key of its own, "__proto__" too: who takes the options refuses what is none.
  if (Object.getPrototypeOf(values) === Object.prototype) return values as Record<string, unknown>;
  const came = Array.isArray(values) ? "a list" : `a single ${typeof values}`;
  throw new ConfigError(`config: ${path} must hold options by name, such as "steps: 1000"; it holds ${came}`);
}
