// `weft install xla`: the engine's addon compiled, and a plugin of XLA fetched as pinned wheels, or noted where a Python
// environment has it already. Nothing of the wheels' Python runs. Like TensorFlow's install it works in a folder beside
// the final one, which gets its name by one rename once a program was compiled and run.
import { existsSync, readdirSync } from "node:fs";
import { chmod, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { ConfigError } from "../../shared/errors.ts";
import { findGpus } from "../gpus.ts";
import { explainDownload, pipEnvironment, pipTarget, removeLeftovers } from "./install.ts";
import { checkPlatform, checkSpace, findPip, run } from "./tools.ts";
import { buildAddon } from "./xla-addon.ts";
import {
  type PluginKind,
  type PluginRecord,
  pluginDir,
  pluginIn,
  pluginPaths,
  readPlugin,
  recordName,
  type XlaPlugin,
} from "./xla-plugin.ts";
import { tryPlugin } from "./xla-verify.ts";
import { peakBytes, wheels } from "./xla-wheels.ts";

export interface XlaInstallOptions {
  readonly kind: PluginKind;
  /** A Python environment, or its folder of packages, that holds the plugin: nothing is fetched. */
  readonly from?: string;
  /** Folder that holds the builds. */
  readonly cache: string;
  readonly note: (line: string) => void;
  /** Show pip's own progress bars on standard output. */
  readonly showProgress: boolean;
}

const LEFTOVER = ".xla-";

/** CUDA 13 needs this driver; older ones have CUDA 12 (NVIDIA, CUDA compatibility). */
const driverOfCuda13 = 580;

/** What suits this machine where nothing was asked for. */
export async function kindOfMachine(): Promise<PluginKind> {
  const { gpus } = await findGpus();
  if (gpus.length === 0) return "cpu";
  return Number.parseInt(gpus[0]!.driver, 10) >= driverOfCuda13 ? "cuda13" : "cuda12";
}

/** @throws ConfigError naming what is missing: platform, compiler, pip, disk space, a download, a plugin in --from */
export async function installXla(options: XlaInstallOptions): Promise<XlaPlugin> {
  const { kind, from, cache, note } = options;
  checkPlatform(true, "XLA");
  const addon = await buildAddon(cache, note);
  const present = readPlugin(cache, kind);
  if (present && (from === undefined || present.file.startsWith(resolve(from)))) {
    note(`${present.identity} is already installed (${present.file}): nothing to do`);
    return present;
  }
  await removeLeftovers(cache, LEFTOVER);
  const staging = await mkdtemp(join(cache, `${LEFTOVER}${process.pid}-`));
  const target = pluginDir(cache, kind);
  try {
    const site = from === undefined ? await fetch(options, staging) : siteIn(from, kind);
    const record: PluginRecord = { kind, site };
    const plugin = pluginIn(resolve(staging, site), kind);
    if (!plugin) throw new ConfigError(`install xla: the wheels brought no ${pluginPaths[kind]}`);
    if (plugin.gpu && !plugin.cudaData)
      throw new ConfigError(
        `install xla: NVIDIA's ptxas and libdevice are missing in ${site}; add nvidia-cuda-nvcc${kind === "cuda12" ? "-cu12" : " and nvidia-nvvm"} there`,
      );
    note(await tryPlugin(plugin, addon));
    await writeFile(join(staging, recordName), `${JSON.stringify(record)}\n`);
    await chmod(staging, 0o755); // mkdtemp's folders are for one user
    await rm(target, { recursive: true, force: true });
    await rename(staging, target);
  } finally {
    await rm(staging, { recursive: true, force: true });
  }
  const plugin = readPlugin(cache, kind)!;
  note(`${plugin.identity} is ready (${plugin.file}); to remove it delete ${target}`);
  return plugin;
}

/** @returns the folder of packages, relative to `staging` */
async function fetch({ kind, cache, note, showProgress }: XlaInstallOptions, staging: string): Promise<string> {
  const pip = await findPip("install xla");
  await checkSpace(cache, peakBytes[kind]);
  note(`fetching ${wheels[kind].map(([requirement]) => requirement).join(", ")} with pip`);
  const list = join(staging, "requirements.txt");
  await writeFile(
    list,
    wheels[kind].map(([requirement, sha256]) => `${requirement} --hash=sha256:${sha256}\n`).join(""),
  );
  const wanted = [...pipTarget(join(staging, "site")), "--require-hashes", "-r", list];
  const { status, stderr } = await run(pip, wanted, { env: pipEnvironment(staging), show: showProgress });
  if (status !== 0) throw new ConfigError(`install xla: ${explainDownload("XLA's wheels", status, stderr)}`);
  await rm(list);
  return "site";
}

/** The folder of packages in `folder` that holds the plugin. @throws ConfigError where there is none */
function siteIn(folder: string, kind: PluginKind): string {
  const at = resolve(folder);
  const lib = join(at, "lib");
  const pythons = existsSync(lib) ? readdirSync(lib).filter((name) => name.startsWith("python")) : [];
  const sites = [at, ...pythons.map((name) => join(lib, name, "site-packages"))];
  const found = sites.find((site) => existsSync(join(site, pluginPaths[kind])));
  if (found) return found;
  throw new ConfigError(
    `install xla: ${at} holds no ${pluginPaths[kind]} (looked there and in lib/python*/site-packages); ` +
      "name a Python environment with that package, or another kind by --cpu or --cuda 12|13",
  );
}
