// Every way in which `weft install xla` can fail, with stand-ins for the programs it runs. The real thing, from a clean
// cache, is scripts/ci-xla.sh.
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { installXla } from "../../../worker/install/xla-install.ts";
import { findPlugin, type PluginKind, pluginDir, pluginPaths, recordName } from "../../../worker/install/xla-plugin.ts";
import { wheels } from "../../../worker/install/xla-wheels.ts";
import { testOn } from "../../where.ts";

/** Stand-ins that do the least: a wheel of an empty plugin, an empty addon. */
const working: Record<string, string> = {
  python3: `case "$*" in
      "-m pip --version") exit 0;;
    esac
    while [ "$1" != --target ]; do shift; done
    mkdir -p "$2/xla_plugins/xla_cpu_pjrt"
    : > "$2/${pluginPaths.cpu}"`,
  "c++": `while [ $# -gt 1 ]; do [ "$1" = -o ] && : > "$2"; shift; done`,
  nm: "",
};

let folder: string;
let cache: string;
const path = process.env.PATH;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "weft-install-"));
  cache = join(folder, "cache");
  mkdirSync(join(folder, "bin"));
});
afterEach(() => {
  process.env.PATH = path;
  rmSync(folder, { recursive: true });
});

/** Install with the working stand-ins and `changed` ones; undefined takes the program away. */
async function install(changed: Record<string, string | undefined> = {}, kind: PluginKind = "cpu", from?: string) {
  const bin = join(folder, "bin");
  for (const name of ["sh", "mkdir"]) {
    const real = path!.split(":").find((entry) => existsSync(join(entry, name)));
    writeFileSync(join(bin, name), `#!/bin/sh\nPATH='${path}' exec '${real}/${name}' "$@"\n`);
  }
  for (const [name, script] of Object.entries({ ...working, ...changed }))
    if (script !== undefined) writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`);
  for (const name of readdirSync(bin)) chmodSync(join(bin, name), 0o755);
  process.env.PATH = bin;
  await installXla({ kind, cache, note: () => {}, showProgress: false, ...(from !== undefined && { from }) });
}

const onLinux = testOn(process.platform === "linux" && process.arch === "x64", "Linux on x64");
const fails = (name: string, changed: Record<string, string | undefined>, message: RegExp) =>
  onLinux(name, async () => {
    await expect(install(changed)).rejects.toThrow(message);
    const left = existsSync(cache) ? readdirSync(cache).filter((entry) => !/^xla-addon-.*\.node$/.test(entry)) : [];
    expect(left, "nothing but the addon is left behind").toEqual([]);
  });

fails("no Python and no pip", { python3: undefined }, /^install xla: neither python3 nor pip is here/);
fails("no compiler", { "c++": undefined }, /^install xla: no C\+\+ compiler here \(tried c\+\+, g\+\+, clang\+\+\)/);
fails(
  "the compiler refuses the sources",
  { "c++": `[ "$1" = --version ] && exit 0; echo "a.cpp:1: error: no member named 'exchange'" >&2; exit 1` },
  /could not compile the addon \(status 1\): a\.cpp:1: error: .*exchange'; it needs C\+\+17/,
);
const pipSays = (words: string) => ({ python3: `[ "$3" = --version ] && exit 0; echo "${words}" >&2; exit 1` });
fails(
  "a wheel that is not the one that was pinned",
  pipSays("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE."),
  /^install xla: XLA's wheels: the download broke off or was refused; nothing was kept.*DO NOT MATCH/,
);
fails(
  "the disk fills up",
  pipSays("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"),
  /XLA's wheels: the disk is full; make room or name another folder with --dir/,
);
fails("wheels without the plugin", { python3: "exit 0" }, /the wheels brought no xla_plugins\/xla_cpu_pjrt/);
fails("a plugin that does not run", {}, /xla_cpu_pjrt\.so does not run here \(status 1\): /);

/** A folder of Python packages with these empty files. */
function site(...files: string[]): string {
  const env = join(folder, "env");
  for (const file of files) {
    const at = join(env, "lib/python3.12/site-packages", file);
    mkdirSync(dirname(at), { recursive: true });
    writeFileSync(at, "");
  }
  mkdirSync(env, { recursive: true });
  return env;
}

onLinux("--from: a folder without the plugin, and one without ptxas", async () => {
  const empty = site();
  await expect(install({}, "cuda12", empty)).rejects.toThrow(
    /env holds no jax_plugins\/xla_cuda12\/xla_cuda_plugin\.so \(looked there and in lib\/python\*\/site-packages\)/,
  );
  await expect(install({}, "cuda12", site(pluginPaths.cuda12))).rejects.toThrow(
    /ptxas and libdevice are missing in .*site-packages; add nvidia-cuda-nvcc-cu12 there/,
  );
});

test("a recorded plugin is found where it lies, with its version; one that is gone is not", () => {
  const env = site(pluginPaths.cuda13, "jax_cuda13_pjrt-0.12.0.1.dist-info/METADATA");
  const packages = join(env, "lib/python3.12/site-packages");
  const dir = pluginDir(cache, "cuda13");
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, recordName), JSON.stringify({ kind: "cuda13", site: packages }));
  const named = process.env.WEFT_XLA_PLUGIN;
  delete process.env.WEFT_XLA_PLUGIN;
  try {
    expect(findPlugin(true, cache)).toEqual({
      file: join(packages, pluginPaths.cuda13),
      gpu: true,
      identity: "jax-cuda13-pjrt 0.12.0.1",
    });
    expect(findPlugin(false, cache)).toBeUndefined();
    rmSync(env, { recursive: true });
    expect(findPlugin(true, cache)).toBeUndefined();
  } finally {
    if (named !== undefined) process.env.WEFT_XLA_PLUGIN = named;
  }
});

test("every wheel is pinned by version and sha256", () => {
  for (const list of Object.values(wheels))
    for (const [requirement, sha256] of list) {
      expect(requirement).toMatch(/^[a-z0-9-]+==\d+(\.\d+)+$/);
      expect(sha256).toMatch(/^[0-9a-f]{64}$/);
    }
});
