// Vectors that coordinator and workers on one machine share instead of sending them: the weights, written by the
// coordinator, and for each worker the gradient it answers with. Needs the native addon and Linux; elsewhere, and between
// containers, everything goes over the wire, to the same bits.
import { randomBytes } from "node:crypto";
import { closeSync } from "node:fs";
import { nativeAddon } from "../arithmetic/native.ts";

/** Before the vector: random bytes that tell this memory from any other that a path may lead to. */
const keyBytes = 64;

/** How a worker finds a vector: part of the coordinator's welcome. */
export interface SharedVectorAddress {
  readonly path: string;
  /** Hexadecimal. */
  readonly key: string;
}

/** One vector of the coordinator's, for as long as it is not closed. */
export class SharedVector {
  readonly values: Float32Array;
  readonly address: SharedVectorAddress;
  #file: number | undefined;

  private constructor(file: number, bytes: Uint8Array) {
    const key = randomBytes(keyBytes);
    bytes.set(key);
    this.#file = file;
    this.values = valuesOf(bytes);
    this.address = { path: `/proc/${process.pid}/fd/${file}`, key: key.toString("hex") };
  }

  /** @returns undefined where memory cannot be shared */
  static create(length: number): SharedVector | undefined {
    const addon = nativeAddon();
    if (!addon?.createShared || !addon.openShared) return undefined;
    const bytes = keyBytes + 4 * length;
    let file: number | undefined;
    try {
      file = addon.createShared(bytes);
      return new SharedVector(file, addon.openShared(`/proc/self/fd/${file}`, bytes, true));
    } catch {
      if (file !== undefined) closeSync(file);
      return undefined; // an old kernel, a sandbox, too many open files, too little memory, or more than 4 GiB: the wire is there
    }
  }

  /** Nobody new can open it. The memory itself goes with its last user. */
  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }
}

/**
 * The vector that another process made.
 * @param writable else reading alone is allowed: a write would end the process
 * @returns (length), or undefined where it is out of reach: on another machine, or in another container
 */
export function openSharedVector(
  { path, key }: SharedVectorAddress,
  length: number,
  writable: boolean,
): Float32Array | undefined {
  // Nothing else is opened because a coordinator names it.
  if (!/^\/proc\/\d+\/fd\/\d+$/.test(path)) return undefined;
  try {
    const bytes = nativeAddon()?.openShared?.(path, keyBytes + 4 * length, writable);
    return bytes && Buffer.from(bytes.subarray(0, keyBytes)).toString("hex") === key ? valuesOf(bytes) : undefined;
  } catch {
    return undefined; // the usual case on another machine: no such process, or another one under its number
  }
}

function valuesOf(bytes: Uint8Array): Float32Array {
  return new Float32Array(bytes.buffer, bytes.byteOffset + keyBytes);
}
