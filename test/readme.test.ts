// The table of docs/options.md is written by `WEFT_WRITE=1 npx vitest run test/readme.test.ts`.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { helpOf } from "../cli/options.ts";
import { flagOf, type OptionSpec, optionTable } from "../shared/config.ts";

const path = join(import.meta.dirname, "../docs/options.md");
const page = readFileSync(path, "utf8");

/** Its rows, from the table in shared/config.ts. */
function rows(): string[] {
  return (Object.entries(optionTable) as [string, OptionSpec][]).map(([name, spec]) => {
    const flag = spec.default === true ? flagOf(name).replace("--", "--no-") : flagOf(name);
    const value = spec.value ? ` ${spec.value.replaceAll("|", "\\|")}` : "";
    const initial = spec.defaultText ?? (spec.value ? `\`${spec.default}\`` : "");
    return `| \`${flag}${value}\` | ${initial} | ${helpOf(spec).replaceAll("|", "\\|")} |`;
  });
}

/** The whole table, its columns padded. */
function table(): string {
  const cells = rows().map((row) => row.slice(2, -2).split(/ \| /));
  const head = ["option", "default", "what it is"];
  const widths = head.map((title, i) => Math.max(title.length, ...cells.map((row) => row[i]!.length)));
  const line = (row: string[]) => `| ${row.map((cell, i) => cell.padEnd(widths[i]!)).join(" | ")} |`;
  const rule = `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`;
  return [line(head), rule, ...cells.map(line)].join("\n");
}

test("docs/options.md has the program's table of options", () => {
  const old = /^\|[\s\S]*\|$/m;
  if (process.env.WEFT_WRITE) writeFileSync(path, page.replace(old, table));
  else expect(old.exec(page)?.[0]).toBe(table());
});
