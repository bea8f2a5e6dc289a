// Flags of the programs that developers start by hand: what is not known is refused in a line, --help lists what is.
import { type ParseArgsConfig, parseArgs } from "node:util";
import { messageOf } from "../shared/errors.ts";

type Flags = NonNullable<ParseArgsConfig["options"]>;

/** @param program as it is started, such as "npm run bench --" */
export function flagsOf<const T extends Flags>(
  program: string,
  options: T,
): ReturnType<typeof parseArgs<{ options: T }>>["values"] {
  const known = Object.entries<Flags[string]>(options).map(
    ([name, { type, default: initial }]) =>
      `  --${name}${type === "string" ? ` VALUE${initial === undefined || initial === "" ? "" : ` (${initial})`}` : ""}`,
  );
  try {
    const { values } = parseArgs({ options: { ...options, help: { type: "boolean" } } });
    if (!(values as { help?: boolean }).help) return values as ReturnType<typeof flagsOf<T>>;
    console.log(`${program}\n${known.join("\n")}`);
    process.exit(0);
  } catch (error) {
    console.error(`${program} ${messageOf(error)}; there are\n${known.join("\n")}`);
    process.exit(1);
  }
}
