// Finds and loads the native addon, worker/engine/native/core/build/weft.node, where it is built, and offers its vector arithmetic:
// the same bits as shared/arithmetic/vector.ts, several times as fast. The engine in it belongs to worker/engine/native/engine.ts.
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { dirname, join, relative } from "node:path";
import { messageOf } from "../errors.ts";
import { type Codec, type CodecKernels, codecOver, scalarCodec, type WireFormat } from "./codec.ts";
import { adamwScalars, finishDigest, lineWords, nesterovScalars, scalarOps, type VectorOps } from "./vector.ts";

/** The addon's arithmetic (worker/engine/native/core/vector.h): lengths are checked there, everything runs before it returns. */
export interface NativeVectors extends CodecKernels {
  isa(): string;
  add(left: Float32Array, right: Float32Array): void;
  sumOfSquares(x: Float32Array): number;
  adamw(w: Float32Array, g: Float32Array, m: Float32Array, v: Float32Array, scalars: Float32Array): void;
  nesterov(w: Float32Array, g: Float32Array, b: Float32Array, scalars: Float32Array): void;
  subtract(left: Float32Array, right: Float32Array): void;
  normal(out: Float32Array, deviation: number, words: Uint32Array): void;
  digest(lanes: Uint32Array, x: Float32Array): void;
  toBf16(out: Uint16Array, x: Float32Array): void;
  fromBf16(out: Float32Array, x: Uint16Array): void;
}

/** What weft.node exports for everyone; the engine adds its own classes. */
export interface Addon {
  readonly Vectors: new (threads: number, isa: string) => NativeVectors;
  /** The instruction sets that run here, best first. */
  instructionSets(): string[];
  /** The instruction set for a name or "auto". @throws Error that lists the sets of this machine */
  chooseIsa(asked: string): string;
  /** zlib's CRC-32, several times as fast; only where the CPU multiplies without carries. */
  crc32?(bytes: Uint8Array): number;
  /** Memory for several processes (shared/wire/shared-memory.ts), where the system has it. @returns a file descriptor */
  createShared?(bytes: number): number;
  openShared?(path: string, bytes: number, writable: boolean): Uint8Array;
}

export interface NativeStatus {
  readonly built: boolean;
  readonly path: string;
  /** The instruction set that "auto" takes here; only when it is built. */
  readonly isa?: string;
  /** For people, after "engine": what it takes, or why it is not there and the cure. */
  readonly why: string;
}

type Loaded = { readonly addon: Addon; readonly status: NativeStatus };
type Missing = { readonly addon?: never; readonly status: NativeStatus };
let loaded: Loaded | Missing | undefined;

/** The folder of package.json: of the sources, or of the package that dist/ is part of. */
function packageRoot(): string {
  let folder = import.meta.dirname;
  while (!existsSync(join(folder, "package.json")) && dirname(folder) !== folder) folder = dirname(folder);
  return folder;
}

function load(): Loaded | Missing {
  const root = packageRoot();
  const path = join(root, "worker/engine/native/core/build/weft.node");
  const cure = `run "npm run build:native" in ${root}`;
  if (!existsSync(path)) return { status: { built: false, path, why: `native: not built on this machine; ${cure}` } };
  try {
    const addon: Addon = createRequire(import.meta.url)(path);
    const isa = addon.chooseIsa("auto");
    return { addon, status: { built: true, path, isa, why: computesWith(path, isa) } };
  } catch (error) {
    const why = `native: built, but it does not load (${messageOf(error)}); ${cure}`;
    return { status: { built: false, path, why } };
  }
}

/** @param path of the addon */
export function computesWith(path: string, isa: string): string {
  return `native: ${relative(packageRoot(), path)} computes with ${isa}`;
}

function once(): Loaded | Missing {
  loaded ??= load();
  return loaded;
}

/** Whether the addon is there and loads, and why not. Never throws. */
export function nativeStatus(): NativeStatus {
  return once().status;
}

/** The addon, where `nativeStatus().built`. */
export function nativeAddon(): Addon | undefined {
  return once().addon;
}

/** Vector arithmetic of the addon; its thread pool lives as long as the object. */
export function nativeOps(vectors: NativeVectors): VectorOps {
  return {
    name: `native ${vectors.isa()}`,
    add: (left, right) => vectors.add(left, right),
    sumOfSquares: (x) => vectors.sumOfSquares(x),
    adamw: (w, g, m, v, step) => vectors.adamw(w, g, m, v, adamwScalars(step)),
    nesterov: (w, g, b, step) => vectors.nesterov(w, g, b, nesterovScalars(step)),
    normal: (out, deviation, line) => vectors.normal(out, deviation, lineWords(line)),
    subtract: (left, right) => vectors.subtract(left, right),
    digest: (x) => {
      const lanes = new Uint32Array(16);
      vectors.digest(lanes, x);
      return finishDigest(lanes, x.length);
    },
  };
}

interface Arithmetic {
  readonly ops: VectorOps;
  readonly codec: CodecKernels;
}

const scalar: Arithmetic = { ops: scalarOps, codec: scalarCodec };
const pools = new Map<number, Arithmetic>();

function best(threads: number): Arithmetic {
  const addon = nativeAddon();
  if (!addon) return scalar;
  let found = pools.get(threads);
  if (!found) {
    const vectors = new addon.Vectors(threads, "auto");
    found = { ops: nativeOps(vectors), codec: vectors };
    pools.set(threads, found);
  }
  return found;
}

/**
 * The fastest arithmetic here: native where it is built, else JavaScript. Same bits. Never throws. All callers of one
 * thread count share one pool: calls run to their end before they return, so that nobody waits for another.
 */
export function bestOps(threads = availableParallelism()): VectorOps {
  return best(threads).ops;
}

/** A wire format over the same arithmetic and pool as `bestOps`. */
export function bestCodec(format: WireFormat, threads = availableParallelism()): Codec {
  const { ops, codec } = best(threads);
  return codecOver(format, codec, ops);
}
