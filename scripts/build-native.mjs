// Builds worker/engine/native/core/build/weft.node from worker/engine/native/core/sources.txt with a C++17 compiler and nothing else: no CMake,
// no downloaded headers. `npm run build:native` fails loudly; after `npm ci` it runs with --optional, which says in one
// line what is missing and never fails. Plain JavaScript, because it runs before anything is compiled.
//
//   node scripts/build-native.mjs [--optional] [--clean] [--refresh]        CXX and CXXFLAGS are honoured
//
// --refresh, part of `npm run build`: an addon that is built, but older than its sources, is built again; silent else.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { join, relative } from "node:path";

const root = join(import.meta.dirname, "..");
const source = join(root, "worker/engine/native/core");
const build = join(source, "build");
const target = join(build, "weft.node");
const log = join(build, "build.log");
const options = new Set(process.argv.slice(2));

/** Something the person at the machine has to do; the message is the whole story. */
class BuildError extends Error {}

/** sources.txt for one architecture: what to compile with which flags. */
function readSources(architecture) {
  const list = { flags: [], isas: [], once: [], each: [], addon: [], program: [] };
  for (const line of readFileSync(join(source, "sources.txt"), "utf8").split("\n")) {
    const [kind, ...words] = line.trim().split(/\s+/);
    if (kind === "isa") {
      const [name, where, ...flags] = words;
      if (where === architecture || where === "any") list.isas.push({ name, flags });
    } else if (kind in list) list[kind].push(...words);
  }
  return list;
}

/** @returns undefined where there is none and that may be so */
function findCompiler(isOptional) {
  const names = process.env.CXX ? [process.env.CXX] : ["c++", "g++", "clang++"];
  for (const name of names) if (spawnSync(name, ["--version"]).status === 0) return name;
  if (isOptional) return undefined;
  throw new BuildError(
    `no C++ compiler (looked for ${names.join(", ")}); install one (Debian: apt install g++) and run "npm run build:native"`,
  );
}

/** Every object file: its source, its flags, and where it goes. */
function planObjects({ flags, isas, once, each, addon, program }) {
  const has = isas.map(({ name }) => `-DWEFT_HAS_${name.toUpperCase()}`);
  const headers = createRequire(import.meta.url)("node-api-headers").include_dir;
  const extra = (process.env.CXXFLAGS ?? "").split(/\s+/).filter(Boolean);
  const object = (file, name, ...more) => ({
    file,
    kind: name,
    source: join(source, file),
    object: join(build, `${file.replaceAll("/", "-")}.${name}.o`),
    flags: [...flags, ...has, ...more, ...extra],
  });
  return [
    ...isas.flatMap((isa) => each.map((file) => object(file, isa.name, ...isa.flags, `-DWEFT_ISA=${isa.name}`))),
    ...once.map((file) => object(file, "once")),
    ...addon.map((file) => object(file, "addon", `-I${headers}`, "-DNAPI_VERSION=8")),
    ...program.map((file) => object(file, "program")),
  ];
}

/** Runs one command; what it prints goes to the log, and to the terminal unless the build is optional. */
function run(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (output += data));
    child.on("error", reject);
    child.on("close", (code) => {
      writeFileSync(log, `$ ${[command, ...args].join(" ")}\n${output}`, { flag: "a" });
      if (output && !options.has("--optional")) process.stderr.write(output);
      if (code === 0) resolve();
      else reject(new BuildError(`${command} failed on ${args.at(-1)}; the log is ${relative(root, log)}`));
    });
  });
}

/** Of what an object file is made from: its command, its source and every header, whenever they were written. */
function digestOf({ source: from, flags }, compiler, headers) {
  const command = [compiler, ...flags].join(" ").replaceAll(root, "");
  return createHash("sha256").update(`${command}\n${headers}\n`).update(readFileSync(from)).digest("hex");
}

/** The digest stands beside an object file once it is whole. */
function isCurrent({ object, digest }) {
  return existsSync(object) && existsSync(`${object}.sha256`) && readFileSync(`${object}.sha256`, "utf8") === digest;
}

async function main() {
  if (options.has("--refresh") && !existsSync(target)) return undefined;
  if (process.platform === "win32") throw new BuildError("the native engine builds on Linux and macOS only");
  const architecture = { x64: "x86_64", arm64: "arm64" }[process.arch] ?? process.arch;
  if (options.has("--clean")) rmSync(build, { recursive: true, force: true });
  mkdirSync(build, { recursive: true });
  writeFileSync(log, "");
  const compiler = findCompiler(options.has("--refresh"));
  const headers = readdirSync(source, { recursive: true })
    .filter((name) => /\.(h|inl)$/.test(name))
    .sort()
    .map((name) => readFileSync(join(source, name), "utf8"))
    .join("\n");
  const objects = planObjects(readSources(architecture)).map((object) => ({
    ...object,
    digest: digestOf(object, compiler, headers),
  }));
  const queue = objects.filter((object) => !isCurrent(object));
  if (queue.length === 0 && existsSync(target)) return options.has("--refresh") ? undefined : "weft.node is up to date";
  if (!compiler) return "weft.node may be older than its sources, and there is no C++ compiler to build it again";
  if (options.has("--refresh"))
    console.log("native engine: older than its sources, building it again (about a minute)");
  rmSync(target, { force: true });

  const started = Date.now();
  const compileAll = async () => {
    for (let next = queue.shift(); next; next = queue.shift()) {
      rmSync(`${next.object}.sha256`, { force: true });
      await run(compiler, [...next.flags, "-o", next.object, "-c", next.source]);
      writeFileSync(`${next.object}.sha256`, next.digest);
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, compileAll));
  const undefinedOk = process.platform === "darwin" ? ["-undefined", "dynamic_lookup"] : [];
  const core = objects.filter(({ kind }) => kind !== "addon" && kind !== "program").map(({ object }) => object);
  for (const { file, object } of objects.filter(({ kind }) => kind === "program"))
    await run(compiler, ["-pthread", "-o", join(build, file.replace(/\.cpp$/, "")), object, ...core]);
  const edge = objects.filter(({ kind }) => kind === "addon").map(({ object }) => object);
  await run(compiler, ["-shared", "-pthread", ...undefinedOk, "-o", target, ...edge, ...core]);
  return `built ${relative(root, target)} with ${compiler} in ${((Date.now() - started) / 1000).toFixed(1)} s`;
}

try {
  const done = await main();
  if (done) console.log(`native engine: ${done}`);
} catch (error) {
  if (!options.has("--optional") && !(error instanceof BuildError)) throw error;
  const optional = options.has("--optional");
  console.error(`native engine: not built${optional ? ", Weft runs on WebAssembly without it" : ""}: ${error.message}`);
  if (!optional) process.exitCode = 1;
}
