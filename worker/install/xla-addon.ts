// The addon of the xla engine (worker/engine/xla/binding/): compiled on this machine, once for these very sources, into
// the cache folder. It links nothing of XLA; plugins are opened when they are needed.
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { cacheDir } from "../../shared/cache.ts";
import { ConfigError } from "../../shared/errors.ts";
import { findCompiler, run } from "./tools.ts";

/** This file is worker/install/ of the sources, or of dist/ beside them. */
const root = ["../..", "../../.."]
  .map((up) => join(import.meta.dirname, up))
  .find((folder) => existsSync(join(folder, "package.json")))!;
const binding = join(root, "worker/engine/xla/binding");
const nodeApi = join(root, "worker/engine/native/core/napi.h");

let digest: string | undefined;

function sources(): string {
  const hash = createHash("sha256");
  for (const name of readdirSync(binding).sort()) hash.update(readFileSync(join(binding, name)));
  return hash.update(readFileSync(nodeApi)).digest("hex").slice(0, 16);
}

/** Where the addon of these sources is, or will be. */
export function addonPath(cache: string): string {
  digest ??= sources();
  return join(cache, `xla-addon-${digest}-${process.arch}.node`);
}

/** The addon, where it has been built. */
export function addonFile(cache: string = cacheDir()): string | undefined {
  const file = addonPath(cache);
  return existsSync(file) ? file : undefined;
}

/** @throws ConfigError without a compiler, or with its words */
export async function buildAddon(cache: string, note: (line: string) => void): Promise<string> {
  const file = addonPath(cache);
  if (existsSync(file)) return file;
  const compiler = await findCompiler("install xla");
  note(`compiling its addon with ${compiler.join(" ")}`);
  const headers = dirname(createRequire(import.meta.url).resolve("node-api-headers/include/node_api.h"));
  await mkdir(cache, { recursive: true });
  const temporary = `${file}.${process.pid}`;
  const { status, stderr } = await run(compiler, [
    ...["-std=c++17", "-O2", "-fPIC", "-shared", "-DNAPI_VERSION=8", "-I", headers],
    ...[join(binding, "addon.cpp"), "-o", temporary, "-ldl", "-lpthread"],
  ]);
  if (status !== 0) {
    await rm(temporary, { force: true });
    const first = stderr.split("\n").find((line) => /error|No space/i.test(line)) ?? stderr.split("\n")[0];
    throw new ConfigError(
      `install xla: ${compiler.join(" ")} could not compile the addon (status ${status}): ${first}; ` +
        "it needs C++17: try a newer compiler through CXX",
    );
  }
  await rename(temporary, file);
  return file;
}
