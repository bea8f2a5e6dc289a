// An object store over the S3 protocol, by AWS's own client: credentials, region and endpoint come from where it looks
// for them (environment, profile, the machine's role). Loaded only where an s3:// address is used.
import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { onDisk } from "../disk.ts";
import { ConfigError, Interrupted, messageOf } from "../errors.ts";
import { parseStoreAddress } from "./address.ts";

type Sdk = typeof import("@aws-sdk/client-s3");

export interface StoredObject {
  /** Below the store's prefix. */
  readonly key: string;
  readonly bytes: number;
  /** MD5 of the content, or of its parts' MD5s and their number, wherever the store does not encrypt by a key of its own. */
  readonly etag: string;
  /** When it was written, by the store's clock: milliseconds since 1970. */
  readonly modified: number;
}

/** Fewest bytes of a part; S3 wants 5 MiB at least and 10,000 parts at most. */
const leastPartBytes = 8 * 2 ** 20;
const mostParts = 10_000;
/** Parts on their way at once: bounds the memory of an upload to so many parts. */
const partsAtOnce = 3;
const silenceMs = 30_000;

export class ObjectStore {
  /** Without a slash at its end. */
  readonly url: string;
  readonly #sdk: Sdk;
  readonly #client: InstanceType<Sdk["S3Client"]>;
  readonly #bucket: string;
  readonly #prefix: string;

  private constructor(sdk: Sdk, address: string) {
    const { bucket, prefix } = parseStoreAddress(address);
    this.#sdk = sdk;
    this.#bucket = bucket;
    this.#prefix = prefix === "" ? "" : `${prefix}/`;
    this.url = `s3://${bucket}${prefix === "" ? "" : `/${prefix}`}`;
    const endpoint = process.env.AWS_ENDPOINT_URL_S3 ?? process.env.AWS_ENDPOINT_URL;
    this.#client = new sdk.S3Client({
      // Stores of other makers know neither Amazon's regions nor a host name for each bucket.
      ...(endpoint && { forcePathStyle: true, region: process.env.AWS_REGION || "us-east-1" }),
      // Content-MD5, which we send, is understood everywhere; the newer checksums are not.
      requestChecksumCalculation: "WHEN_REQUIRED",
      responseChecksumValidation: "WHEN_REQUIRED",
      requestHandler: { connectionTimeout: 10_000, socketTimeout: silenceMs, requestTimeout: 0 },
    });
  }

  /** @throws ConfigError where the address is none, or the client is not installed */
  static async open(address: string): Promise<ObjectStore> {
    // The lock file says which release is used; that later ones want a later Node is nothing for this user to mend.
    process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= "true";
    const sdk = await import("@aws-sdk/client-s3").catch((error) => {
      throw new ConfigError(`${address}: needs AWS's client: npm install @aws-sdk/client-s3`, { cause: error });
    });
    return new ObjectStore(sdk, address);
  }

  /** What is below the prefix and begins so, in the order of the keys. */
  async list(beginning = ""): Promise<StoredObject[]> {
    const found: StoredObject[] = [];
    let token: string | undefined;
    do {
      const { ListObjectsV2Command } = this.#sdk;
      const at = { Bucket: this.#bucket, Prefix: this.#prefix + beginning, ContinuationToken: token };
      const page = await this.#ask("cannot be listed", () => this.#client.send(new ListObjectsV2Command(at)));
      for (const { Key = "", Size = 0, ETag = "", LastModified } of page.Contents ?? []) {
        const modified = LastModified?.getTime() ?? 0;
        found.push({ key: Key.slice(this.#prefix.length), bytes: Size, etag: ETag.replaceAll('"', ""), modified });
      }
      token = page.IsTruncated ? page.NextContinuationToken : undefined;
    } while (token !== undefined);
    return found;
  }

  /** Bytes [start, end) of an object, as they come. @throws Interrupted when the connection breaks */
  async read(key: string, start = 0, end?: number): Promise<AsyncIterable<Buffer>> {
    const Range = start === 0 && end === undefined ? undefined : `bytes=${start}-${end === undefined ? "" : end - 1}`;
    const at = { Bucket: this.#bucket, Key: this.#prefix + key, Range };
    const what = `${key} cannot be read`;
    const answer = await this.#ask(what, () => this.#client.send(new this.#sdk.GetObjectCommand(at)));
    return this.#pieces(what, answer.Body as AsyncIterable<Buffer>);
  }

  /** The whole of a small object. */
  async readAll(key: string): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for await (const piece of await this.read(key)) pieces.push(piece);
    return Buffer.concat(pieces);
  }

  async put(key: string, bytes: Uint8Array): Promise<void> {
    const md5 = createHash("md5").update(bytes).digest("base64");
    const at = { Bucket: this.#bucket, Key: this.#prefix + key, Body: bytes, ContentMD5: md5 };
    await this.#ask(`${key} cannot be written`, () => this.#client.send(new this.#sdk.PutObjectCommand(at)));
  }

  /** Absent: nothing happens. */
  async remove(key: string): Promise<void> {
    const at = { Bucket: this.#bucket, Key: this.#prefix + key };
    await this.#ask(`${key} cannot be removed`, () => this.#client.send(new this.#sdk.DeleteObjectCommand(at)));
  }

  /**
   * Send the first `bytes` of a file, in parts. What an interrupted try left in the store, parts or the whole, is
   * compared by its MD5 and not sent again.
   * @param onSent hears of bytes that were sent now
   */
  async upload(
    key: string,
    path: string,
    bytes: number,
    { signal, onSent = () => {} }: { signal?: AbortSignal; onSent?: (bytes: number) => void } = {},
  ): Promise<void> {
    const partBytes = Math.max(leastPartBytes, Math.ceil(bytes / mostParts));
    const file = await open(path, "r").catch((error: NodeJS.ErrnoException) => {
      throw new ConfigError(`${path}: cannot be read (${error.code})`, { cause: error });
    });
    try {
      const part = (index: number): Promise<Buffer> => readPart(file, path, index * partBytes, bytes, partBytes);
      if (bytes <= partBytes) {
        signal?.throwIfAborted();
        const body = await part(0);
        if (await this.#hasAlready(key, bytes, md5Of(body).toString("hex"))) return;
        await this.put(key, body);
        return onSent(bytes);
      }
      const digests: Buffer[] = [];
      for (let index = 0; index * partBytes < bytes; index++) {
        signal?.throwIfAborted();
        digests.push(md5Of(await part(index)));
      }
      const etag = `${md5Of(Buffer.concat(digests)).toString("hex")}-${digests.length}`;
      if (await this.#hasAlready(key, bytes, etag)) return;
      await this.#uploadParts(key, digests, part, signal, onSent);
    } finally {
      await file.close();
    }
  }

  /** Give up the unfinished uploads below the prefix whose keys are not wanted any more. */
  async abandonUploads(isWanted: (key: string) => boolean): Promise<void> {
    for (const { key, id } of await this.#openUploads("")) if (!isWanted(key)) await this.#abandon(key, id);
  }

  async #uploadParts(
    key: string,
    digests: readonly Buffer[],
    part: (index: number) => Promise<Buffer>,
    signal: AbortSignal | undefined,
    onSent: (bytes: number) => void,
  ): Promise<void> {
    const what = `${key} cannot be uploaded`;
    const at = { Bucket: this.#bucket, Key: this.#prefix + key };
    const uploads = (await this.#openUploads(key)).filter((upload) => upload.key === key);
    const newest = uploads.sort((a, b) => b.begun - a.begun)[0];
    for (const { id } of uploads) if (id !== newest?.id) await this.#abandon(key, id);
    const UploadId =
      newest?.id ??
      (await this.#ask(what, () => this.#client.send(new this.#sdk.CreateMultipartUploadCommand(at)))).UploadId!;
    const there = newest ? await this.#partsOf(key, UploadId) : new Map<number, string>();
    const etags = digests.map((digest, index) => {
      const etag = there.get(index + 1);
      return etag === digest.toString("hex") ? etag : undefined;
    });
    const missing = etags.flatMap((etag, index) => (etag === undefined ? [index] : []));
    const stop = new AbortController();
    const sendNext = async (): Promise<void> => {
      for (let index = missing.shift(); index !== undefined; index = missing.shift()) {
        if (stop.signal.aborted) return;
        signal?.throwIfAborted();
        const Body = await part(index);
        const ContentMD5 = digests[index]!.toString("base64");
        const command = new this.#sdk.UploadPartCommand({ ...at, UploadId, PartNumber: index + 1, Body, ContentMD5 });
        const { ETag } = await this.#ask(what, () => this.#client.send(command));
        etags[index] = ETag!;
        onSent(Body.length);
      }
    };
    // All have ended before anything is thrown: none may still read a file that is being closed.
    const senders = Array.from({ length: partsAtOnce }, () =>
      sendNext().catch((error) => {
        stop.abort();
        throw error;
      }),
    );
    for (const result of await Promise.allSettled(senders)) if (result.status === "rejected") throw result.reason;
    const Parts = etags.map((ETag, index) => ({ ETag: ETag!, PartNumber: index + 1 }));
    const complete = { ...at, UploadId, MultipartUpload: { Parts } };
    await this.#ask(what, () => this.#client.send(new this.#sdk.CompleteMultipartUploadCommand(complete)));
  }

  async #hasAlready(key: string, bytes: number, etag: string): Promise<boolean> {
    const there = (await this.list(key)).find((object) => object.key === key);
    return there?.bytes === bytes && there.etag === etag;
  }

  async #openUploads(beginning: string): Promise<{ key: string; id: string; begun: number }[]> {
    const found: { key: string; id: string; begun: number }[] = [];
    let KeyMarker: string | undefined;
    let UploadIdMarker: string | undefined;
    do {
      const at = { Bucket: this.#bucket, Prefix: this.#prefix + beginning, KeyMarker, UploadIdMarker };
      const page = await this.#ask("unfinished uploads cannot be listed", () =>
        this.#client.send(new this.#sdk.ListMultipartUploadsCommand(at)),
      );
      for (const { Key = "", UploadId = "", Initiated } of page.Uploads ?? [])
        found.push({ key: Key.slice(this.#prefix.length), id: UploadId, begun: Initiated?.getTime() ?? 0 });
      KeyMarker = page.IsTruncated ? page.NextKeyMarker : undefined;
      UploadIdMarker = page.IsTruncated ? page.NextUploadIdMarker : undefined;
    } while (KeyMarker !== undefined);
    return found;
  }

  /** MD5 in hexadecimal digits by part number. */
  async #partsOf(key: string, UploadId: string): Promise<Map<number, string>> {
    const found = new Map<number, string>();
    let marker: string | undefined;
    do {
      const at = { Bucket: this.#bucket, Key: this.#prefix + key, UploadId, PartNumberMarker: marker };
      const page = await this.#ask(`parts of ${key} cannot be listed`, () =>
        this.#client.send(new this.#sdk.ListPartsCommand(at)),
      );
      for (const { PartNumber = 0, ETag = "" } of page.Parts ?? []) found.set(PartNumber, ETag.replaceAll('"', ""));
      marker = page.IsTruncated ? page.NextPartNumberMarker : undefined;
    } while (marker !== undefined);
    return found;
  }

  async #abandon(key: string, UploadId: string): Promise<void> {
    const at = { Bucket: this.#bucket, Key: this.#prefix + key, UploadId };
    await this.#ask(`an upload of ${key} cannot be given up`, () =>
      this.#client.send(new this.#sdk.AbortMultipartUploadCommand(at)),
    ).catch((error) => {
      // Another one has given it up, or finished it.
      if (!(error instanceof NoSuchObjectError)) throw error;
    });
  }

  async *#pieces(what: string, body: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    try {
      yield* body;
    } catch (error) {
      throw new Interrupted(`${this.url}: ${what} (${reasonOf(error)})`, { cause: error });
    }
  }

  /** @throws ConfigError where asking again would not help, Interrupted where it may */
  async #ask<T>(what: string, send: () => Promise<T>): Promise<T> {
    try {
      return await send();
    } catch (error) {
      const { name = "", $metadata } = error as { name?: string; $metadata?: { httpStatusCode?: number } };
      const status = $metadata?.httpStatusCode;
      const message = `${this.url}: ${what} (${reasonOf(error)})`;
      const cause = { cause: error };
      if (name === "NoSuchBucket") throw new ConfigError(`${message}; there is no bucket ${this.#bucket}`, cause);
      if (["NoSuchKey", "NoSuchUpload"].includes(name)) throw new NoSuchObjectError(message, cause);
      if (
        [401, 403, 404].includes(status ?? 0) ||
        /Credential|Token|Region is missing/.test(`${name} ${messageOf(error)}`)
      )
        throw new ConfigError(
          `${message}; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE, AWS_REGION, and AWS_ENDPOINT_URL`,
          cause,
        );
      const busy = status === 408 || status === 429 || status === undefined || status >= 500 || status < 400;
      // A part that was damaged on the way is worth another try.
      if (busy || name === "BadDigest" || name === "RequestTimeout") throw new Interrupted(message, cause);
      throw new ConfigError(message, cause);
    }
  }
}

/** There is no object of that name. */
export class NoSuchObjectError extends ConfigError {}

function md5Of(bytes: Uint8Array): Buffer {
  return createHash("md5").update(bytes).digest();
}

async function readPart(file: FileHandle, path: string, start: number, end: number, partBytes: number) {
  const bytes = Buffer.allocUnsafe(Math.min(partBytes, end - start));
  for (let done = 0; done < bytes.length; ) {
    const { bytesRead } = await onDisk(path, "read", () => file.read(bytes, done, bytes.length - done, start + done));
    if (bytesRead === 0) throw new ConfigError(`${path}: ends at byte ${start + done}, expected ${end} bytes`);
    done += bytesRead;
  }
  return bytes;
}

/** The store's or the system's word where there is one. */
function reasonOf(error: unknown): string {
  const { name, code, $metadata } = error as { name?: string; code?: string; $metadata?: { httpStatusCode?: number } };
  const word = code ?? (name === "Error" ? undefined : name);
  const status = $metadata?.httpStatusCode;
  return [word, status && `status ${status}`, messageOf(error)].filter((part) => part).join(", ");
}
