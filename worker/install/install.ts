// Builds @tensorflow/tfjs-node's addon from the npm package's own sources against the TensorFlow of a pip wheel.
// Nothing of the wheel's Python runs. Everything happens in a folder beside the final one, which gets its name by one
// rename when all of it was tried: an interrupted install leaves no half build, and a finished one is left alone.
import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { ConfigError, messageOf } from "../../shared/errors.ts";
import type { Build, BuildRecord } from "./build.ts";
import { buildDir, parts, readBuild, TFJS_NODE_VERSION } from "./build.ts";
import type { Program } from "./tools.ts";
import { checkPlatform, checkSpace, findCompiler, findNpm, findPip, run } from "./tools.ts";
import { missingSymbols, tryAddon } from "./verify.ts";

export interface InstallOptions {
  readonly version: string;
  readonly cuda: boolean;
  /** Folder that holds the builds: cacheDir() unless named. */
  readonly cache: string;
  /** One line of progress, for people. */
  readonly note: (line: string) => void;
  /** Show pip's own progress bars on standard output. */
  readonly showProgress: boolean;
}

/** Bytes that downloads and unpacked wheels take together at their peak (measured with 2.21.0), rounded up. */
const PEAK_BYTES = { cpu: 2.0e9, cuda: 10e9 };
/** api_pb.js of tfjs-node (TensorBoard summaries) asks for ^3.9.2 when it is loaded. */
const PROTOBUF_VERSION = "3.21.4";
/** Every wheel from 2.12 on exists for this Python; the interpreter that runs pip may be any. */
const WHEEL_PYTHON = "3.11";

/**
 * Install TensorFlow for the tfjs engine, or find it installed already.
 * @throws ConfigError naming what is missing: platform, pip, compiler, npm, disk space, a download, a symbol
 */
export async function installTensorflow(options: InstallOptions): Promise<Build> {
  const { version, cuda, cache, note } = options;
  const target = buildDir(cache, version, cuda);
  const present = readBuild(target);
  if (present) {
    note(`TensorFlow ${version}${cuda ? " with CUDA" : ""} is already built in ${target}: nothing to do`);
    return present;
  }
  checkPlatform(cuda);
  const [pip, compiler, npm] = await Promise.all([findPip(), findCompiler(), findNpm()]);
  await mkdir(cache, { recursive: true });
  await removeLeftovers(cache, LEFTOVER);
  await checkSpace(cache, cuda ? PEAK_BYTES.cuda : PEAK_BYTES.cpu);

  const staging = await mkdtemp(join(cache, `${LEFTOVER}${process.pid}-`));
  try {
    note(`1/4  fetching TensorFlow ${version} ${cuda ? "and NVIDIA's CUDA libraries (3 GB)" : "(0.3 GB)"} with pip`);
    await fetchWheels(pip, staging, options);
    note(`2/4  fetching @tensorflow/tfjs-node ${TFJS_NODE_VERSION} with npm`);
    await fetchPackages(npm, staging);
    note(`3/4  compiling its addon with ${compiler.join(" ")}`);
    await compileAddon(compiler, staging);
    note("4/4  checking symbols and multiplying two matrices");
    await checkAddon(staging, version);
    await prune(staging);
    await writeRecord(staging, { tensorflow: version, tfjsNode: TFJS_NODE_VERSION, cuda });
    await chmod(staging, 0o755); // mkdtemp's folders are for one user
    await rm(target, { recursive: true, force: true }); // what readBuild did not accept
    await rename(staging, target);
  } finally {
    await rm(staging, { recursive: true, force: true });
  }
  const build = readBuild(target);
  if (!build) throw new Error(`${target} was written but is not whole`);
  note(`TensorFlow ${version}${cuda ? " with CUDA" : ""} is ready in ${target}`);
  return build;
}

const LEFTOVER = ".tensorflow-";

/** What an installer that was killed left behind; folders of one that still runs are left alone. */
export async function removeLeftovers(cache: string, prefix: string): Promise<void> {
  for (const name of await readdir(cache)) {
    const pid = name.startsWith(prefix) ? Number.parseInt(name.slice(prefix.length), 10) : 0;
    if (pid > 0 && !isRunning(pid)) await rm(join(cache, name), { recursive: true, force: true });
  }
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"; // it runs, as somebody else
  }
}

/** pip's choice of wheel for this machine, whatever Python runs pip. */
export function wheelArguments(version: string, cuda: boolean, arch: string = process.arch): string[] {
  const machine = arch === "arm64" ? "aarch64" : "x86_64";
  const platforms = ["manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014"];
  return [
    "--only-binary=:all:",
    ...["--python-version", WHEEL_PYTHON, "--implementation", "cp"],
    ...platforms.flatMap((name) => ["--platform", `${name}_${machine}`]),
    `${cuda || arch === "arm64" ? "tensorflow" : "tensorflow-cpu"}==${version}`, // on arm64 it is CPU alone
  ];
}

/** pip's arguments to lay packages out in a folder of our own. */
export const pipTarget = (site: string): string[] => ["install", "--no-deps", "--no-compile", "--target", site];

export function pipEnvironment(staging: string): NodeJS.ProcessEnv {
  return {
    TMPDIR: staging, // pip unpacks here first: a rename instead of a second copy on another disk
    PIP_USER: "0",
    PIP_NO_INPUT: "1",
    PIP_DISABLE_PIP_VERSION_CHECK: "1",
    PIP_ROOT_USER_ACTION: "ignore",
  };
}

async function fetchWheels(pip: Program, staging: string, { version, cuda, showProgress }: InstallOptions) {
  const fixed = pipTarget(join(staging, parts.site));
  const env = pipEnvironment(staging);
  const fetch = async (what: string, wanted: readonly string[]) => {
    const { status, stderr } = await run(pip, [...fixed, ...wanted], { env, show: showProgress });
    if (status !== 0) throw new ConfigError(`install tensorflow: ${explainDownload(what, status, stderr)}`);
  };
  const wanted = wheelArguments(version, cuda);
  await fetch(wanted.at(-1)!, wanted);
  if (cuda) await fetch("NVIDIA's CUDA libraries", [...wanted.slice(0, -1), ...(await cudaRequirements(staging))]);
}

/** The nvidia-* packages that this TensorFlow was built for: its own extra "and-cuda". */
async function cudaRequirements(staging: string): Promise<string[]> {
  const site = join(staging, parts.site);
  const info = (await readdir(site)).find((name) => /^tensorflow-.*\.dist-info$/.test(name));
  const metadata = info ? await readFile(join(site, info, "METADATA"), "utf8") : "";
  const wanted = metadata.matchAll(/^Requires-Dist: ([^;\n]+?)\s*;[^\n]*extra == ['"]and-cuda['"]/gm);
  const requirements = [...wanted].map(([, requirement]) => requirement.replace(/[\s()]/g, ""));
  if (requirements.length === 0) {
    throw new ConfigError(
      "install tensorflow: this version names no CUDA packages (and-cuda came with 2.14); try a newer",
    );
  }
  return requirements;
}

/** What a failed download means and what to do about it. */
export function explainDownload(what: string, status: number | string, stderr: string): string {
  const lines = stderr.trim().split("\n");
  const said = lines.findLast((line) => /^(ERROR|npm error)/i.test(line)) ?? lines.at(-1) ?? "";
  const cure = /No space left|ENOSPC|Errno 28/i.test(stderr)
    ? "the disk is full; make room or name another folder with --dir"
    : /No matching distribution|Could not find a version|ETARGET|E404/i.test(stderr)
      ? "there is no such version for this machine; choose another with --version"
      : "the download broke off or was refused; nothing was kept, run this again";
  return `${what}: ${cure} (status ${status}: ${said})`;
}

/**
 * The npm package as published, and in the place of its dependency tfjs-core a door to Weft's own: a second copy of
 * tfjs-core would register the kernels where no engine looks.
 */
async function fetchPackages(npm: Program, staging: string): Promise<void> {
  const wanted = [`@tensorflow/tfjs-node@${TFJS_NODE_VERSION}`, `google-protobuf@${PROTOBUF_VERSION}`];
  const { status, stdout, stderr } = await run(npm, ["pack", "--json", ...wanted], { cwd: staging });
  if (status !== 0) throw new ConfigError(`install tensorflow: ${explainDownload(wanted.join(", "), status, stderr)}`);
  for (const { name, filename } of JSON.parse(stdout) as { name: string; filename: string }[]) {
    const folder = join(staging, "node_modules", name);
    const archive = join(staging, filename.replace("@", "").replace("/", "-")); // npm 8 prints the name unflattened
    await mkdir(folder, { recursive: true });
    const tar = await run(["tar"], ["-xzf", archive, "-C", folder, "--strip-components", "1"]);
    if (tar.status !== 0) throw new ConfigError(`install tensorflow: tar could not unpack ${archive}: ${tar.stderr}`);
    await rm(archive);
  }
  for (const name of ["@tensorflow/tfjs", "@tensorflow/tfjs-core"]) {
    const folder = join(staging, "node_modules", name);
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, "index.js"), 'module.exports = globalThis[Symbol.for("weft.tfjs-core")];\n');
  }
}

async function compileAddon(compiler: Program, staging: string): Promise<void> {
  const nodeHeaders = dirname(createRequire(import.meta.url).resolve("node-api-headers/include/node_api.h"));
  const binding = join(staging, parts.tfjsNode, "binding");
  const sources = (await readdir(binding)).filter((name) => name.endsWith(".cc")).map((name) => join(binding, name));
  const { status, stderr } = await run(compiler, [
    ...["-std=c++17", "-O2", "-fPIC", "-shared", "-w", "-DNAPI_VERSION=8"],
    ...["-I", nodeHeaders, "-I", join(staging, parts.site, "tensorflow/include")],
    ...sources,
    ...[join(staging, parts.library), join(staging, parts.framework)],
    `-Wl,-rpath,$ORIGIN/${dirname(parts.library)}`,
    ...["-o", join(staging, parts.addon)],
  ]);
  if (status === 0) return;
  const first = stderr.split("\n").find((line) => /error|No space/i.test(line)) ?? stderr.split("\n")[0];
  throw new ConfigError(
    `install tensorflow: ${compiler.join(" ")} could not compile tfjs-node's addon (status ${status}): ${first}; ` +
      "it needs C++17: try a newer compiler through CXX, or another TensorFlow with --version",
  );
}

async function checkAddon(staging: string, version: string): Promise<void> {
  const missing = await missingSymbols(join(staging, parts.addon), [
    join(staging, parts.library),
    join(staging, parts.framework),
  ]);
  if (missing.length > 0) {
    throw new ConfigError(
      `install tensorflow: TensorFlow ${version} does not export ${missing.join(", ")}, which tfjs-node's addon calls; ` +
        "choose another with --version",
    );
  }
  try {
    await tryAddon(join(staging, parts.addon), version);
  } catch (error) {
    throw new ConfigError(`install tensorflow: ${messageOf(error)}`);
  }
}

/** Keep what runs and the licences; headers, Python files and sources served their purpose. */
async function prune(staging: string): Promise<void> {
  const keep = [parts.library, parts.framework].map((path) => join(staging, path));
  const site = join(staging, parts.site);
  const tensorflow = join(site, "tensorflow");
  for (const name of await readdir(tensorflow)) {
    const path = join(tensorflow, name);
    if (!keep.includes(path)) await rm(path, { recursive: true, force: true });
  }
  await rm(join(site, "bin"), { recursive: true, force: true });
}

async function writeRecord(staging: string, record: Omit<BuildRecord, "files">): Promise<void> {
  const kernels = join(parts.tfjsNode, "dist/register_all_kernels.js");
  const names = [parts.addon, parts.library, parts.framework, kernels];
  const sizes = await Promise.all(names.map(async (name) => [name, (await stat(join(staging, name))).size] as const));
  const files = Object.fromEntries(sizes);
  await writeFile(join(staging, parts.record), `${JSON.stringify({ ...record, files }, null, 2)}\n`);
}
