// One file over HTTP, whole or from where an interrupted download stopped: Range, If-Range and conditional requests
// with the file's SHA-256 as its entity tag (RFC 9110, sections 13 and 14).
import { open } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { pipeline } from "node:stream/promises";

/** Bytes [start, end) of a file; `unsatisfiable` begins past its end; undefined is the whole file. */
export type ByteRange = { readonly start: number; readonly end: number } | "unsatisfiable" | undefined;

/** A Range header's one range; several ranges or another unit are answered with the whole file, as the RFC allows. */
export function parseRange(header: string | undefined, size: number): ByteRange {
  const [, first, last] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header?.trim() ?? "") ?? [];
  if (first === undefined || last === undefined || (first === "" && last === "")) return undefined;
  if (first === "") {
    const suffix = Math.min(Number(last), size);
    return suffix === 0 ? "unsatisfiable" : { start: size - suffix, end: size };
  }
  const start = Number(first);
  if (last !== "" && Number(last) < start) return undefined;
  if (start >= size) return "unsatisfiable";
  return { start, end: last === "" ? size : Math.min(Number(last) + 1, size) };
}

/**
 * Answer with the file, or the part of it that was asked for.
 * @returns false when there is no such file any more; nothing was answered then
 */
export async function sendFile(
  request: IncomingMessage,
  response: ServerResponse,
  file: { path: string; bytes: number; sha256: string },
): Promise<boolean> {
  const etag = `"${file.sha256}"`;
  response.setHeader("ETag", etag);
  response.setHeader("Accept-Ranges", "bytes");
  response.setHeader("Cache-Control", "private, no-cache");
  response.setHeader("Content-Type", file.path.endsWith(".json") ? "application/json" : "application/octet-stream");
  const seen = request.headers["if-none-match"]?.split(/ *, */) ?? [];
  if (seen.includes(etag) || seen.includes("*")) {
    response.writeHead(304).end();
    return true;
  }
  const sameFile = request.headers["if-range"] === undefined || request.headers["if-range"] === etag;
  const range = sameFile ? parseRange(request.headers.range, file.bytes) : undefined;
  if (range === "unsatisfiable") {
    response.writeHead(416, { "Content-Range": `bytes */${file.bytes}` }).end();
    return true;
  }
  const { start, end } = range ?? { start: 0, end: file.bytes };
  const source = await open(file.path, "r").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  if (!source) return false;
  try {
    if (range) response.setHeader("Content-Range", `bytes ${start}-${end - 1}/${file.bytes}`);
    response.writeHead(range ? 206 : 200, { "Content-Length": end - start });
    if (request.method === "HEAD" || end === start) response.end();
    else
      await pipeline(
        source.createReadStream({ start, end: end - 1, highWaterMark: 2 ** 20, autoClose: false }),
        response,
      );
  } finally {
    await source.close();
  }
  return true;
}
