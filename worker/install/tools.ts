// The programs that the build of TensorFlow's addon needs, and the message for each one that is missing.
import { spawn } from "node:child_process";
import { statfs } from "node:fs/promises";
import { delimiter } from "node:path";
import { ConfigError } from "../../shared/errors.ts";

export interface Outcome {
  /** Exit status; the signal's name when one ended it; "missing" when there is no such program. */
  readonly status: number | string;
  readonly stdout: string;
  readonly stderr: string;
}

/** A program and the arguments that always come first, such as ["python3", "-m", "pip"]. */
export type Program = readonly [string, ...string[]];

/** Run a program to its end. With `show` its standard output goes to the terminal: pip draws its own progress there. */
export function run(
  program: Program,
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv; show?: boolean } = {},
): Promise<Outcome> {
  return new Promise((done, failed) => {
    const child = spawn(program[0], [...program.slice(1), ...args], {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      stdio: ["ignore", options.show ? "inherit" : "pipe", "pipe"],
    });
    let [stdout, stderr] = ["", ""];
    child.stdout?.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    child.stderr!.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.on("error", (error: NodeJS.ErrnoException) =>
      error.code === "ENOENT" ? done({ status: "missing", stdout, stderr }) : failed(error),
    );
    child.on("close", (code, signal) => done({ status: code ?? signal!, stdout, stderr }));
  });
}

/** The first of `candidates` that answers to `question` with status 0. */
async function firstThatAnswers(candidates: readonly Program[], question: string): Promise<Program | undefined> {
  for (const program of candidates) {
    if ((await run(program, [question])).status === 0) return program;
  }
  return undefined;
}

const install = "install tensorflow:";

/** @throws ConfigError without pip */
export async function findPip(what = "install tensorflow"): Promise<Program> {
  const pip = await firstThatAnswers([["python3", "-m", "pip"], ["pip3"], ["pip"]], "--version");
  if (pip) return pip;
  const python = await firstThatAnswers([["python3"]], "--version");
  const cure = "install it (Debian, Ubuntu: apt-get install python3-pip) and run this again";
  throw new ConfigError(
    python
      ? `${what}: python3 is here but pip is not (tried python3 -m pip, pip3, pip); ${cure}`
      : `${what}: neither python3 nor pip is here; pip fetches the libraries: ${cure}`,
  );
}

/** @throws ConfigError without a C++ compiler and its nm */
export async function findCompiler(
  what = "install tensorflow",
  env: NodeJS.ProcessEnv = process.env,
): Promise<Program> {
  const asked = env.CXX?.trim();
  const candidates: Program[] = asked ? [asked.split(/\s+/) as [string]] : [["c++"], ["g++"], ["clang++"]];
  const cure = "install one (Debian, Ubuntu: apt-get install g++) or name it in CXX";
  const compiler = await firstThatAnswers(candidates, "--version");
  if (!compiler) throw new ConfigError(`${what}: no C++ compiler here (tried ${candidates.join(", ")}); ${cure}`);
  if ((await run(["nm"], ["--version"])).status !== 0) {
    throw new ConfigError(`${what}: no nm here; it comes with the compiler (Debian, Ubuntu: apt-get install binutils)`);
  }
  return compiler;
}

/** @throws ConfigError without npm or tar: the package's sources come through them */
export async function findNpm(): Promise<Program> {
  for (const name of ["npm", "tar"]) {
    if ((await run([name], ["--version"])).status !== 0) {
      throw new ConfigError(
        `${install} no ${name} on PATH (${process.env.PATH?.split(delimiter).length ?? 0} folders)`,
      );
    }
  }
  return ["npm"];
}

export interface Machine {
  readonly platform: string;
  readonly arch: string;
  /** Version of the GNU C library; undefined on systems without it, such as Alpine. */
  readonly glibc: string | undefined;
}

function thisMachine(): Machine {
  const report = process.report.getReport() as unknown as { header: { glibcVersionRuntime?: string } };
  return { platform: process.platform, arch: process.arch, glibc: report.header.glibcVersionRuntime };
}

/** The wheels are for Linux with the GNU C library, CUDA's for x64. @throws ConfigError elsewhere */
export function checkPlatform(
  cuda: boolean,
  of: "TensorFlow" | "XLA" = "TensorFlow",
  { platform, arch, glibc }: Machine = thisMachine(),
): void {
  const install = `install ${of.toLowerCase()}:`;
  const here = `${platform} ${arch}${platform === "linux" && !glibc ? " without glibc" : ""}`;
  if (platform !== "linux" || !glibc || (arch !== "x64" && arch !== "arm64")) {
    throw new ConfigError(`${install} ${of}'s wheels are for Linux x64 and arm64 with glibc, this is ${here}`);
  }
  if (cuda && arch !== "x64") throw new ConfigError(`${install} ${of}'s CUDA wheels are for x64, this is ${here}`);
  if (glibc.localeCompare("2.27", "en", { numeric: true }) < 0) {
    throw new ConfigError(`${install} ${of}'s wheels need glibc 2.27, this system has ${glibc}`);
  }
}

const GB = 1e9;

/** @throws ConfigError where `dir` has less than `bytes` free; `free` is for tests */
export async function checkSpace(dir: string, bytes: number, free?: number): Promise<void> {
  const { bavail, bsize } = await statfs(dir);
  const available = free ?? bavail * bsize;
  if (available >= bytes) return;
  throw new ConfigError(
    `install: ${(bytes / GB).toFixed(1)} GB are needed for a while in ${dir}, ` +
      `${(available / GB).toFixed(1)} GB are free; make room or name another folder with --dir`,
  );
}
