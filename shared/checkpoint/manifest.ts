// What proves that a checkpoint is whole: the size and SHA-256 of each of its files, in a manifest.json that is written
// after them. Files are written and hashed in pieces, so that neither the event loop nor memory notices.
import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { checked } from "../check.ts";
import { onDisk } from "../disk.ts";
import { ConfigError } from "../errors.ts";
import { readJson } from "../json.ts";
import { fileNameSchema } from "../wire/names.ts";

export const manifestName = "manifest.json";
const mostFiles = 256;

export const manifestSchema = z.strictObject({
  format: z.literal("weft-checkpoint"),
  version: z.literal(1),
  step: z.int().min(0),
  files: z
    .record(fileNameSchema, z.strictObject({ bytes: z.int().min(0), sha256: z.string().regex(/^[0-9a-f]{64}$/) }))
    .refine((files) => Object.keys(files).length <= mostFiles, `more than ${mostFiles} files`)
    .refine((files) => !Object.hasOwn(files, manifestName), "lists itself"),
});

export type Manifest = z.infer<typeof manifestSchema>;
export type FileProof = Manifest["files"][string];

/** Bytes written, read or hashed before the event loop gets its turn: about 5 ms of hashing. */
const pieceBytes = 4 * 2 ** 20;

/**
 * Write a new file down to the disk.
 * @param pieces its bytes one after another; they must not change meanwhile
 * @throws the signal's reason when it is aborted; the file is then incomplete
 */
export async function writeProven(
  path: string,
  pieces: readonly Uint8Array[],
  signal?: AbortSignal,
): Promise<FileProof> {
  return await onDisk(path, "written", () => writeHashed(path, pieces, signal));
}

async function writeHashed(path: string, pieces: readonly Uint8Array[], signal?: AbortSignal): Promise<FileProof> {
  const hash = createHash("sha256");
  let bytes = 0;
  const file = await open(path, "wx");
  try {
    for (const whole of pieces)
      for (let start = 0; start < whole.length; start += pieceBytes) {
        signal?.throwIfAborted();
        const piece = whole.subarray(start, start + pieceBytes);
        hash.update(piece);
        for (let done = 0; done < piece.length; ) done += (await file.write(piece, done)).bytesWritten;
        bytes += piece.length;
      }
    await file.sync();
  } finally {
    await file.close();
  }
  return { bytes, sha256: hash.digest("hex") };
}

/** Make the names in a directory durable, after files were created or renamed in it. @throws ConfigError */
export async function syncDirectory(path: string): Promise<void> {
  await onDisk(path, "written", async () => {
    const directory = await open(path, "r");
    await directory.sync().finally(() => directory.close());
  });
}

/** SHA-256 of a file in hexadecimal digits. */
export async function hashFile(path: string): Promise<string> {
  return await onDisk(path, "read", () => hashWhole(path));
}

async function hashWhole(path: string): Promise<string> {
  const hash = createHash("sha256");
  const buffer = Buffer.allocUnsafe(pieceBytes);
  const file = await open(path, "r");
  try {
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length);
      if (bytesRead === 0) return hash.digest("hex");
      hash.update(buffer.subarray(0, bytesRead));
    }
  } finally {
    await file.close();
  }
}

/** @throws ConfigError where there is none (its cause says so) or it is not one of ours */
export async function readManifest(directory: string): Promise<Manifest> {
  const path = join(directory, manifestName);
  return checked(manifestSchema, await readJson(path), `${path}: not a manifest of Weft`);
}

/** Check one file's size: cheap, finds what was cut short. @throws ConfigError with the difference */
export async function proveSize(directory: string, name: string, proof: FileProof): Promise<void> {
  const file = await open(join(directory, name), "r").catch((error: NodeJS.ErrnoException) => {
    throw new ConfigError(`${directory}: ${name} is in the manifest but cannot be opened (${error.code})`, {
      cause: error,
    });
  });
  const { size } = await file.stat().finally(() => file.close());
  const missing = proof.bytes - size;
  if (missing !== 0)
    throw new ConfigError(
      `checkpoint ${directory}: ${name} is ${Math.abs(missing).toLocaleString("en")} bytes ${missing > 0 ? "short of" : "longer than"} its manifest`,
    );
}

/** Check one file's size and every bit of it. @throws ConfigError */
export async function proveFile(directory: string, name: string, proof: FileProof): Promise<void> {
  await proveSize(directory, name, proof);
  const sha256 = await hashFile(join(directory, name));
  if (sha256 !== proof.sha256)
    throw new ConfigError(
      `checkpoint ${directory}: ${name} was changed: its SHA-256 is ${sha256}, its manifest says ${proof.sha256}`,
    );
}
