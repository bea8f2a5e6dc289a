// The addon of binding/ (PJRT's C API for Node) with types, and one plugin and client a process: XLA's clients own a
// device's memory, and are never many.
import { createRequire } from "node:module";
import { EngineError, messageOf } from "../../../shared/errors.ts";
import { addonFile } from "../../install/xla-addon.ts";
import type { XlaPlugin } from "../../install/xla-plugin.ts";

/** Handles of the addon; `release` lets go of what they hold, the garbage collector does it late. */
declare const kind: unique symbol;
export interface PluginHandle {
  readonly [kind]: "plugin";
}
export interface ClientHandle {
  readonly [kind]: "client";
}
export interface ExecutableHandle {
  readonly [kind]: "executable";
}
export interface BufferHandle {
  readonly [kind]: "buffer";
}

export interface ClientFacts {
  /** "cpu", "cuda" */
  readonly platform: string;
  readonly version: string;
  readonly devices: readonly {
    /** Such as "NVIDIA H100 80GB HBM3". */
    readonly kind: string;
    readonly bytesInUse: number | undefined;
    readonly bytesLimit: number | undefined;
  }[];
}

/** Bytes of a program on one device, by XLA's own analysis. */
export interface ProgramMemory {
  readonly argument: number;
  readonly output: number;
  readonly alias: number;
  readonly temporary: number;
  readonly code: number;
  readonly peak: number;
}

type Named = Readonly<Record<string, string | number | boolean>>;

/** What binding/addon.cpp exports. Promises are rejected with XLA's words. */
export interface Pjrt {
  openPlugin(path: string): Promise<PluginHandle>;
  pluginFacts(plugin: PluginHandle): { major: number; minor: number; attributes: Record<string, string> };
  createClient(plugin: PluginHandle, options: Named): Promise<ClientHandle>;
  clientFacts(client: ClientHandle): ClientFacts;
  /** @param options CompileOptionsProto */
  compile(client: ClientHandle, program: string, options: Uint8Array): Promise<ExecutableHandle>;
  /** For devices that need not be here. */
  compileFor(
    plugin: PluginHandle,
    name: string,
    target: Named,
    program: string,
    options: Uint8Array,
  ): Promise<ExecutableHandle>;
  load(client: ClientHandle, serialized: Uint8Array): Promise<ExecutableHandle>;
  serialize(executable: ExecutableHandle): Promise<Uint8Array>;
  /** HloModuleProto */
  optimizedProgram(executable: ExecutableHandle): Promise<Uint8Array>;
  memory(executable: ExecutableHandle): ProgramMemory;
  execute(executable: ExecutableHandle, buffers: readonly BufferHandle[], device: number): Promise<BufferHandle[]>;
  /** The values must not change until it is done. */
  upload(
    client: ClientHandle,
    values: Float32Array | Int32Array | Uint32Array,
    shape: readonly number[],
    device: number,
  ): Promise<BufferHandle>;
  copyTo(buffer: BufferHandle, device: number): Promise<BufferHandle>;
  download(buffer: BufferHandle, out: Float32Array): Promise<void>;
  /** @returns once what they hold was given back */
  release(handles: readonly (PluginHandle | ClientHandle | ExecutableHandle | BufferHandle)[]): Promise<void>;
}

export interface OpenClient {
  readonly pjrt: Pjrt;
  readonly handle: ClientHandle;
  readonly facts: ClientFacts;
  /** Whatever must be equal for an executable to be used again. */
  readonly identity: string;
}

let addon: Pjrt | undefined;
const plugins = new Map<string, Promise<PluginHandle>>();
const clients = new Map<string, Promise<OpenClient>>();

/** @throws EngineError where the addon is not built or does not load */
export function pjrtAddon(): Pjrt {
  const file = addonFile();
  if (!file) throw new EngineError('engine xla: its addon is not built; run "weft install xla"');
  try {
    addon ??= createRequire(import.meta.url)(file) as Pjrt;
    return addon;
  } catch (error) {
    throw new EngineError(`engine xla: ${file} does not load (${messageOf(error)}); run "weft install xla" again`, {
      cause: error,
    });
  }
}

/** @throws EngineError with the loader's words, or the versions that do not go together */
export async function openPlugin({ file }: XlaPlugin): Promise<PluginHandle> {
  const pjrt = pjrtAddon();
  // XLA tells of every step of its start otherwise; what goes wrong comes back as an error anyway.
  process.env.TF_CPP_MIN_LOG_LEVEL ??= "2";
  let opening = plugins.get(file);
  if (!opening) {
    opening = pjrt.openPlugin(file).catch((error: unknown) => {
      plugins.delete(file);
      throw new EngineError(`engine xla: ${messageOf(error)}`, { cause: error });
    });
    plugins.set(file, opening);
  }
  return await opening;
}

/**
 * The process's client of a plugin with these options.
 * @throws EngineError with XLA's words, where there is no such device
 */
export async function openClient(plugin: XlaPlugin, options: Named): Promise<OpenClient> {
  const key = JSON.stringify([plugin.file, options]);
  let opening = clients.get(key);
  if (!opening) {
    opening = create(plugin, options).catch((error: unknown) => {
      clients.delete(key);
      throw error instanceof EngineError ? error : new EngineError(`engine xla: ${messageOf(error)}`, { cause: error });
    });
    clients.set(key, opening);
  }
  return await opening;
}

async function create(plugin: XlaPlugin, options: Named): Promise<OpenClient> {
  const pjrt = pjrtAddon();
  const opened = await openPlugin(plugin);
  const handle = await pjrt.createClient(opened, options);
  const facts = pjrt.clientFacts(handle);
  const { major, minor, attributes } = pjrt.pluginFacts(opened);
  const identity = JSON.stringify([plugin.identity, major, minor, attributes, facts.version, facts.devices[0]?.kind]);
  return { pjrt, handle, facts, identity };
}
