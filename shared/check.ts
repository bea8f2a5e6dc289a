// Values that come from outside, held against a schema; what does not fit is said in one line that people understand.
import type { z } from "zod";
import { ConfigError } from "./errors.ts";

/** Complaints that are shown; a file of another kind would give hundreds. */
const shown = 3;

/** @throws ConfigError `where: field: expected number, got "x"; ...` */
export function checked<T>(schema: z.ZodType<T>, value: unknown, where: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new ConfigError(`${where}: ${explain(parsed.error, value)}`);
}

/** What is wrong with a value, in one line. */
export function explain(error: z.ZodError, value: unknown): string {
  const issues = error.issues.slice(0, shown).map((issue) => complaint(issue, value));
  const more = error.issues.length - issues.length;
  return issues.join("; ") + (more > 0 ? `; and ${more} more` : "");
}

function complaint(issue: z.core.$ZodIssue, value: unknown): string {
  const path = issue.path.map(String);
  const name = path
    .join(".")
    .replace(/\p{Cc}/gu, "?")
    .slice(0, 200);
  const where = path.length > 0 ? `${name}: ` : "";
  if (issue.code === "unrecognized_keys") {
    const keys = issue.keys.map((key) => JSON.stringify(key)).join(", ");
    return `${where}has an unknown field ${keys.slice(0, 200)}`;
  }
  const at = path.reduce<unknown>((inside, key) => (inside as Record<string, unknown> | undefined)?.[key], value);
  if (at === undefined && path.length > 0) return `${name} is missing`;
  if (issue.code === "invalid_key") return `${where}${issue.issues[0]?.message ?? "is no name for a field"}`;
  if (issue.code === "custom") return `${where}${issue.message}`;
  const expected = issue.message.replace(/^(Invalid|Too) \w+: (?=expected)/, "").replace(/, received .*$/, "");
  return `${where}${expected === "Invalid input" ? "of another kind than expected" : expected}, got ${brief(at)}`;
}

/** A value, of others' making, as a message shows it: its beginning, in JSON. */
export function brief(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length <= 60 ? text : `${text.slice(0, 57)}...`;
}
