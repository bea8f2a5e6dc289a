// Every way in which `weft install tensorflow` can fail, one by one, with stand-ins for the programs it runs. The real
// thing, from a clean cache, is scripts/ci-tensorflow.sh.
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { cacheDir } from "../../../shared/cache.ts";
import { buildDir, findBuild, parts, readBuild } from "../../../worker/install/build.ts";
import type { GpuFacts } from "../../../worker/install/gpu.ts";
import { explainNoGpu } from "../../../worker/install/gpu.ts";
import { installTensorflow, wheelArguments } from "../../../worker/install/install.ts";
import { checkPlatform, checkSpace } from "../../../worker/install/tools.ts";
import { testOn } from "../../where.ts";

/** Stand-ins that do the least that passes: a wheel of two libraries, a package of one source, an empty addon. */
const working: Record<string, string> = {
  python3: `case "$*" in
      "-m pip --version") exit 0;;
    esac
    while [ "$1" != --target ]; do shift; done
    mkdir -p "$2/tensorflow/include"
    : > "$2/tensorflow/libtensorflow_cc.so.2"
    : > "$2/tensorflow/libtensorflow_framework.so.2"`,
  npm: `[ "$1" = pack ] || exit 0
    mkdir -p package/binding package/dist
    : > package/binding/a.cc
    : > package/dist/register_all_kernels.js
    tar -czf a.tgz package
    echo '[{"name": "@tensorflow/tfjs-node", "filename": "a.tgz"}]'`,
  "c++": `while [ $# -gt 1 ]; do [ "$1" = -o ] && : > "$2"; shift; done`,
  nm: `[ "$2" = --undefined-only ] && echo "  U TF_Version@tensorflow" || echo "00 T TF_Version@@tensorflow"`,
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

/** Install with the working stand-ins and `changed` ones; an empty script takes the program away. */
async function install(changed: Record<string, string> = {}, cuda = false): Promise<string[]> {
  const bin = join(folder, "bin");
  for (const name of ["sh", "tar", "gzip", "mkdir"]) {
    const real = path!.split(":").find((entry) => existsSync(join(entry, name)));
    writeFileSync(join(bin, name), `#!/bin/sh\nPATH='${path}' exec '${real}/${name}' "$@"\n`);
  }
  for (const [name, script] of Object.entries({ ...working, ...changed })) {
    if (script) writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`);
    else rmSync(join(bin, name), { force: true });
  }
  for (const name of readdirSync(bin)) chmodSync(join(bin, name), 0o755);
  process.env.PATH = bin;
  const lines: string[] = [];
  const note = (line: string) => lines.push(line);
  await installTensorflow({ version: "2.21.0", cuda, cache, note, showProgress: false });
  return lines;
}

const onLinux = testOn(process.platform === "linux", "Linux");
const fails = (name: string, changed: Record<string, string>, message: RegExp, cuda = false) =>
  onLinux(name, async () => {
    await expect(install(changed, cuda)).rejects.toThrow(message);
    expect(existsSync(cache) ? readdirSync(cache) : [], "nothing is left behind").toEqual([]);
  });

fails("no Python and no pip", { python3: "" }, /neither python3 nor pip is here.*apt-get install python3-pip/);
fails("Python without pip", { python3: `[ "$1" != -m ]` }, /python3 is here but pip is not \(tried python3 -m pip/);
fails("no compiler", { "c++": "" }, /no C\+\+ compiler here \(tried c\+\+, g\+\+, clang\+\+\); install one.*CXX/);
fails("no nm", { nm: "" }, /no nm here.*binutils/);
fails("no npm", { npm: "" }, /no npm on PATH/);

const pipSays = (words: string) => ({
  python3: `[ "$3" = --version ] && exit 0; echo "Collecting" >&2; echo "${words}" >&2; exit 1`,
});
fails(
  "the disk fills up during the download",
  pipSays("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"),
  /tensorflow-cpu==2.21.0: the disk is full; make room or name another folder with --dir \(status 1: ERROR/,
);
fails(
  "a version that does not exist",
  pipSays("ERROR: No matching distribution found for tensorflow-cpu==2.21.0"),
  /no such version for this machine; choose another with --version/,
);
fails(
  "a download that breaks off",
  pipSays("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE."),
  /broke off or was refused; nothing was kept, run this again \(status 1: ERROR: THESE PACKAGES DO NOT MATCH/,
);
fails(
  "npm cannot fetch the package",
  { npm: `[ "$1" = pack ] || exit 0; echo "npm error code ECONNRESET" >&2; exit 1` },
  /@tensorflow\/tfjs-node@4\.22\.0, google-protobuf@.*broke off.*ECONNRESET/,
);
fails(
  "an archive that is no archive",
  { npm: `[ "$1" = pack ] || exit 0; : > a.tgz; echo '[{"name": "x", "filename": "a.tgz"}]'; echo junk > a.tgz` },
  /tar could not unpack .*a\.tgz/,
);
fails(
  "the compiler refuses the sources",
  { "c++": `[ "$1" = --version ] && exit 0; echo "a.cc:1: error: no type named 'TF_Op'" >&2; exit 1` },
  /could not compile tfjs-node's addon \(status 1\): a\.cc:1: error: no type named 'TF_Op'/,
);
fails(
  "a TensorFlow without a function that the addon calls",
  { nm: `[ "$2" = --undefined-only ] && echo "  U TFE_Execute@tensorflow" || echo "00 T TF_Version@@tensorflow"` },
  /TensorFlow 2\.21\.0 does not export TFE_Execute, which tfjs-node's addon calls/,
);
fails("an addon that cannot be loaded", {}, /TensorFlow's addon does not run here \(status 1\): .*Error: .*too short/);
fails("a TensorFlow from before pip's CUDA packages", {}, /names no CUDA packages .*2\.14/, true);

test("too little disk space is said before anything is fetched", async () => {
  await expect(checkSpace(folder, 2e9, 0.5e9)).rejects.toThrow(
    /2\.0 GB are needed.*0\.5 GB are free; make room.*--dir/,
  );
  await checkSpace(folder, 1e3);
});

test("platforms without a wheel are named", () => {
  const on = (cuda: boolean, platform: string, arch: string, glibc?: string) => () =>
    checkPlatform(cuda, "TensorFlow", { platform, arch, glibc });
  on(true, "linux", "x64", "2.36")();
  on(false, "linux", "arm64", "2.27")();
  expect(on(true, "linux", "arm64", "2.36")).toThrow(/CUDA wheels are for x64, this is linux arm64/);
  expect(on(false, "darwin", "arm64")).toThrow(/for Linux x64 and arm64.*this is darwin arm64/);
  expect(on(false, "linux", "x64")).toThrow(/this is linux x64 without glibc/);
  expect(on(false, "linux", "x64", "2.17")).toThrow(/need glibc 2\.27, this system has 2\.17/);
});

test("pip is asked for the wheel of the machine, not of the Python that runs it", () => {
  expect(wheelArguments("2.21.0", false, "x64").at(-1)).toBe("tensorflow-cpu==2.21.0");
  expect(wheelArguments("2.21.0", true, "x64").at(-1)).toBe("tensorflow==2.21.0");
  expect(wheelArguments("2.21.0", false, "arm64")).toContain("manylinux_2_27_aarch64");
});

/** A finished build as the installer records it. */
function writeBuild(version: string, cuda = false): string {
  const dir = buildDir(cache, version, cuda);
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, parts.addon), "addon");
  const record = { tensorflow: version, tfjsNode: "4.22.0", cuda, files: { [parts.addon]: 5 } };
  writeFileSync(join(dir, parts.record), JSON.stringify(record));
  return dir;
}

onLinux("a finished build is left alone, a cut one is built anew", async () => {
  const dir = writeBuild("2.21.0");
  expect(await install({ python3: "", npm: "", "c++": "" })).toEqual([
    expect.stringMatching(/already built.*nothing to do/),
  ]);
  truncateSync(join(dir, parts.addon), 4);
  expect(readBuild(dir)).toBeUndefined();
  await expect(install({ python3: "" })).rejects.toThrow(/pip/);
});

onLinux("what a killed installer left is swept away, that of a living one is not", async () => {
  mkdirSync(join(cache, ".tensorflow-999999999-abc"), { recursive: true });
  mkdirSync(join(cache, `.tensorflow-${process.pid}-abc`));
  await expect(install()).rejects.toThrow();
  expect(readdirSync(cache)).toEqual([`.tensorflow-${process.pid}-abc`]);
});

test("the newest build of the kind asked for is found", () => {
  for (const version of ["2.9.0", "2.21.0", "2.3.0"]) writeBuild(version);
  writeBuild("2.22.0", true);
  expect(findBuild(cache, false)?.tensorflow).toBe("2.21.0");
  expect(findBuild(cache, true)?.tensorflow).toBe("2.22.0");
  expect(findBuild(join(folder, "absent"), true)).toBeUndefined();
});

test("the cache folder is WEFT_CACHE_DIR, else XDG's", () => {
  expect(cacheDir({ WEFT_CACHE_DIR: "/a", XDG_CACHE_HOME: "/b" })).toBe("/a");
  expect(cacheDir({ XDG_CACHE_HOME: "/b" })).toBe("/b/weft");
  expect(cacheDir({})).toMatch(/\/\.cache\/weft$/);
});

test.each<[string, Partial<GpuFacts>, RegExp]>([
  ["a build without CUDA", { cudaBuild: false }, /knows no CUDA; run "weft install tensorflow --cuda"/],
  ["hidden GPUs", { visibleDevices: "-1" }, /CUDA_VISIBLE_DEVICES="-1" hides every GPU/],
  ["no driver", { driverLibrary: false, log: ["cuInit: 303"] }, /no libcuda\.so\.1;.*\(TensorFlow: cuInit: 303\)/],
  ["no GPU", { gpus: [], listing: "nvidia-smi lists no GPU" }, /driver is installed but nvidia-smi lists no GPU/],
  ["a library that is gone", { missingPackages: ["cudnn"] }, /NVIDIA's cudnn are missing/],
  ["an old driver", {}, /cannot use H100; the driver may be too old for CUDA 12/],
])("why TensorFlow sees no GPU: %s", (_, facts, message) => {
  const all: GpuFacts = {
    ...{ cudaBuild: true, visibleDevices: undefined, driverLibrary: true, gpus: ["H100"] },
    ...{ listing: "nvidia-smi lists 1", missingPackages: [], log: [], ...facts },
  };
  expect(explainNoGpu(all)).toMatch(message);
});
