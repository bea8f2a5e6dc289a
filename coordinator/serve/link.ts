// The link test of `weft doctor --coordinator`: how long a round trip takes and how many bytes a second go each way.
// Bounded in size and one at a time, so that it cannot be used to starve a run.
import type { IncomingMessage, ServerResponse } from "node:http";
import { pipeline } from "node:stream/promises";

/** Most bytes of one test in one direction. */
export const linkLimit = 64 * 2 ** 20;

const piece = Buffer.alloc(2 ** 20);

/** GET /link?bytes=N: N zero bytes. */
export async function sendLink(response: ServerResponse, bytes: number, head: boolean): Promise<void> {
  response.writeHead(200, { "Content-Type": "application/octet-stream", "Content-Length": bytes });
  if (head || bytes === 0) {
    response.end();
    return;
  }
  await pipeline(function* () {
    for (let left = bytes; left > 0; left -= piece.length) yield piece.subarray(0, left);
  }, response);
}

/** POST /link: swallow the body. @returns its bytes and the seconds from its first piece to its last */
export async function swallowLink(request: IncomingMessage): Promise<{ bytes: number; seconds: number }> {
  let bytes = 0;
  let start = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    if (bytes === 0) start = performance.now();
    bytes += chunk.length;
  }
  return { bytes, seconds: bytes === 0 ? 0 : (performance.now() - start) / 1000 };
}
