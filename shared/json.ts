// Text and JSON files that other people or other processes wrote.
import { readFile } from "node:fs/promises";
import { ConfigError, messageOf } from "./errors.ts";

/**
 * A text file: UTF-8, with or without a byte order mark, which is no part of the text.
 * @param what the file's name in messages, such as "--prompt-file p.txt"
 * @throws ConfigError where it cannot be read (the cause says why: see isAbsent) or is not UTF-8
 */
export async function readText(path: string, what = path): Promise<string> {
  const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    throw new ConfigError(`${what}: cannot be read (${error.code})`, { cause: error });
  });
  return decodeText(bytes, what);
}

/** @throws ConfigError where the bytes are not UTF-8 */
export function decodeText(bytes: Uint8Array, what: string): string {
  const other = otherEncoding(bytes);
  if (other) throw new ConfigError(`${what}: is ${other} text; convert it to UTF-8 first`);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    if (error instanceof RangeError || (error as NodeJS.ErrnoException).code === "ERR_STRING_TOO_LONG")
      throw new ConfigError(`${what}: ${bytes.length} bytes are too many to be read as one text`, { cause: error });
    throw new ConfigError(`${what}: not UTF-8 text; convert it to UTF-8 first`, { cause: error });
  }
}

/** The encoding that a byte order mark or many NULs announce, where it is not UTF-8: Windows writes such files. */
export function otherEncoding(bytes: Uint8Array): string | undefined {
  const [a, b, c, d] = bytes;
  if ((a === 0xff && b === 0xfe && c === 0 && d === 0) || (a === 0 && b === 0 && c === 0xfe && d === 0xff))
    return "UTF-32";
  if ((a === 0xff && b === 0xfe) || (a === 0xfe && b === 0xff)) return "UTF-16";
  const start = bytes.subarray(0, 1024);
  const nuls = start.reduce((count, byte) => count + (byte === 0 ? 1 : 0), 0);
  if (4 * nuls > start.length) return "UTF-16 (by its many NUL bytes)";
  return undefined;
}

/** @throws ConfigError where the text is not JSON */
export function parseJson(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ConfigError(`${where}: not JSON: ${messageOf(error).replace(/\s+/g, " ")}`, { cause: error });
  }
}

/** A line of a log of ours; undefined where it is none: a sentence, or what a connection that broke left of one. */
export function logLine(text: string): Record<string, unknown> | undefined {
  if (!text.startsWith("{")) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** @throws ConfigError where the file cannot be read (the cause says why: see isAbsent) or is not JSON */
export async function readJson(path: string): Promise<unknown> {
  const text = await readText(path);
  // As a key it would be lost in silence on the way through objects.
  if (text.includes('"__proto__"'))
    throw new ConfigError(`${path}: has "__proto__", which is no field or name of ours`);
  return parseJson(text, path);
}

/** Was this thrown, or caused, because there is no such file? */
export function isAbsent(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return ("code" in error && error.code === "ENOENT") || isAbsent(error.cause);
}
