// What ObjectStore asks of S3, answered from a map: for tests of what a run sends, keeps and removes there, and when.
// Signatures, parts and broken wires are the real store's, in test/system/store.system.ts.
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";

export interface MemoryStore extends AsyncDisposable {
  /** Contents of the bucket by key. */
  readonly objects: Map<string, Buffer>;
  /** Hears of every request before it is answered, such as "PUT run/markers.json"; false: 403. */
  hears: (request: string) => unknown;
}

export const bucket = "weft";

/** Becomes the store of this process. */
export async function startMemoryStore(): Promise<MemoryStore> {
  const objects = new Map<string, Buffer>();
  const store: Pick<MemoryStore, "objects" | "hears"> = { objects, hears: () => true };
  const server = createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url!, "http://store");
    const key = decodeURIComponent(pathname).slice(bucket.length + 2);
    const body = await bodyOf(request);
    const answer = (status: number, content: string | Buffer = "") => response.writeHead(status).end(content);
    if ((await store.hears(`${request.method} ${key}`)) === false) return answer(403);
    const found = objects.get(key);
    if (request.method === "PUT") objects.set(key, body);
    if (request.method === "DELETE") objects.delete(key);
    if (request.method !== "GET") return answer(request.method === "PUT" ? 200 : 204);
    if (searchParams.has("uploads")) return answer(200, "<ListMultipartUploadsResult/>");
    if (key === "") return answer(200, listOf(objects, searchParams.get("prefix") ?? ""));
    if (!found) return answer(404, "<Error><Code>NoSuchKey</Code></Error>");
    const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
    answer(from > 0 ? 206 : 200, found.subarray(from));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  Object.assign(process.env, {
    AWS_ENDPOINT_URL: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    ...{ AWS_ACCESS_KEY_ID: "key", AWS_SECRET_ACCESS_KEY: "secret", AWS_REGION: "us-east-1" },
    ...{ AWS_CONFIG_FILE: "/dev/null", AWS_SHARED_CREDENTIALS_FILE: "/dev/null" },
  });
  return Object.assign(store, {
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
    },
  });
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of request) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}

function listOf(objects: ReadonlyMap<string, Buffer>, prefix: string): string {
  const found = [...objects].filter(([key]) => key.startsWith(prefix)).sort(([a], [b]) => (a < b ? -1 : 1));
  const contents = found.map(([key, bytes]) => {
    const etag = createHash("md5").update(bytes).digest("hex");
    return `<Contents><Key>${key}</Key><Size>${bytes.length}</Size><ETag>${etag}</ETag><LastModified>${new Date().toISOString()}</LastModified></Contents>`;
  });
  return `<ListBucketResult>${contents.join("")}</ListBucketResult>`;
}
