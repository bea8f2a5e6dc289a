// JSON files that other people or other processes wrote.
import { readFile } from "node:fs/promises";
import { ConfigError } from "./errors.ts";

/** @throws ConfigError where the file cannot be read (the cause says why: see isAbsent) or is not JSON */
export async function readJson(path: string): Promise<unknown> {
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    throw new ConfigError(`${path}: cannot be read (${error.code})`, { cause: error });
  });
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ConfigError(`${path}: not JSON: ${(error as Error).message}`, { cause: error });
  }
}

/** Was this thrown, or caused, because there is no such file? */
export function isAbsent(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return ("code" in error && error.code === "ENOENT") || isAbsent(error.cause);
}
