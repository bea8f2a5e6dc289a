// Compiled programs, each compiled once: kept on disk by program, flags, plugin and kind of device. A file that does not
// load any more is compiled again; the oldest go when there are many.
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { cacheDir } from "../../../shared/cache.ts";
import type { Clock } from "../../../shared/clock.ts";
import { EngineError, messageOf } from "../../../shared/errors.ts";
import { compileOptions, type XlaFlags } from "./compile-options.ts";
import type { ExecutableHandle, OpenClient } from "./pjrt.ts";

/** Programs that are kept, and the bytes they may take. */
const mostFiles = 256;
const mostBytes = 2e9;

const folder = (): string => join(cacheDir(), "xla-programs");

/** Who waits for a program, and for which. */
export interface Waiting {
  /** "the gradient of 8 x 1024 tokens" */
  readonly what: string;
  readonly note: (line: string) => void;
  readonly clock: Clock;
}

/** What takes no longer is not worth two lines. */
const silentMs = 1000;

/** @throws EngineError with XLA's words */
export async function executable(
  client: OpenClient,
  program: string,
  flags: XlaFlags,
  waiting?: Waiting,
): Promise<ExecutableHandle> {
  const { pjrt, handle, identity } = client;
  const began = waiting?.clock.now() ?? 0;
  const seconds = () => `${((waiting!.clock.now() - began) / 1000).toFixed(1)} s`;
  const key = createHash("sha256")
    .update(JSON.stringify([identity, flags]))
    .update(program)
    .digest("hex");
  const file = join(folder(), key);
  const kept = await readFile(file).catch(() => undefined);
  if (kept) {
    try {
      const loaded = await pjrt.load(handle, kept);
      await utimes(file, new Date(), new Date()).catch(() => {
        // Another process tidied up; it is loaded all the same.
      });
      waiting?.note(`XLA: ${waiting.what} came from the cache in ${seconds()}`);
      return loaded;
    } catch {
      // Cut short, or of a plugin that calls itself the same: it is written anew below.
    }
  }
  let isSlow = false;
  const timer = waiting?.clock.after(
    silentMs,
    () => {
      isSlow = true;
      waiting.note(`XLA compiles ${waiting.what}; the next start finds it in the cache`);
    },
    true,
  );
  let compiled: ExecutableHandle;
  try {
    compiled = await pjrt.compile(handle, program, compileOptions(flags));
  } catch (error) {
    throw new EngineError(`engine xla: XLA does not compile the program: ${messageOf(error)}`, { cause: error });
  } finally {
    timer?.cancel();
  }
  if (isSlow) waiting!.note(`XLA compiled ${waiting!.what} in ${seconds()}`);
  await keep(file, await pjrt.serialize(compiled).catch(() => undefined));
  return compiled;
}

/** A cache that cannot be written costs time at the next start, and nothing else. */
async function keep(file: string, bytes: Uint8Array | undefined): Promise<void> {
  if (!bytes) return;
  const temporary = `${file}.${process.pid}`;
  try {
    await mkdir(folder(), { recursive: true, mode: 0o700 });
    await writeFile(temporary, bytes, { mode: 0o600 });
    await rename(temporary, file);
    await tidy();
  } catch {
    await rm(temporary, { force: true }).catch(() => {});
  }
}

async function tidy(): Promise<void> {
  const names = await readdir(folder());
  const files = await Promise.all(
    names.map(async (name) => {
      const { mtimeMs, size } = await stat(join(folder(), name));
      return { name, mtimeMs, size };
    }),
  );
  files.sort((a, b) => b.mtimeMs - a.mtimeMs);
  let bytes = 0;
  for (const [i, { name, size }] of files.entries()) {
    bytes += size;
    if (i >= mostFiles || bytes > mostBytes) await rm(join(folder(), name), { force: true });
  }
}
