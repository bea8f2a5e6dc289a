import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { helpOf } from "../cli/options.ts";
import { flagOf, type OptionSpec, optionTable } from "../shared/config.ts";

const readme = readFileSync(join(import.meta.dirname, "../README.md"), "utf8");

/** The rows that README must have, from the table in shared/config.ts. */
function rows(): string[] {
  return (Object.entries(optionTable) as [string, OptionSpec][]).map(([name, spec]) => {
    const flag = spec.default === true ? flagOf(name).replace("--", "--no-") : flagOf(name);
    const value = spec.value ? ` ${spec.value.replaceAll("|", "\\|")}` : "";
    const initial = spec.defaultText ?? (spec.value ? `\`${spec.default}\`` : "");
    return `| \`${flag}${value}\` | ${initial} | ${helpOf(spec).replaceAll("|", "\\|")} |`;
  });
}

test("README's table of options is the program's", () => {
  const written = readme.split("\n").filter((line) => line.startsWith("| `--"));
  const plain = (line: string) => line.replace(/ +/g, " ");
  expect(written.map(plain)).toEqual(rows().map(plain));
});
