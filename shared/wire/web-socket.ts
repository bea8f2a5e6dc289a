// WebSockets as pipes, at both ends. Nothing else in shared/ and worker/ knows them; the coordinator's server takes the
// upgrades.
import { type ClientOptions, WebSocket } from "ws";
import { ConfigError } from "../errors.ts";
import { parseAddress, refusedForGood } from "./address.ts";
import { bystander, clear } from "./bystander.ts";
import { chunkBytes, headerBytes } from "./frame.ts";
import { closeReason, type Pipe, type PipeEvents } from "./pipe.ts";
import { controlLimit, subprotocol } from "./protocol.ts";

/** Largest message that either side takes. */
export const largestMessage = Math.max(controlLimit, headerBytes + chunkBytes);

/** A socket that is open. */
export function webSocketPipe(socket: WebSocket): Pipe {
  let why = "";
  let events: PipeEvents | undefined;
  // Before the close, whatever it was: nobody may crash on a socket that has no listener yet.
  socket.on("error", (error: NodeJS.ErrnoException) => {
    why ||= error.message || error.code || "unknown error";
  });
  const closed = (code: number, reason: Buffer) =>
    events?.closed(reason.toString() || why || `the connection closed (${code})`);
  socket.on("close", closed);
  return {
    get isOpen() {
      return socket.readyState === WebSocket.OPEN;
    },
    get queuedBytes() {
      return socket.bufferedAmount;
    },
    listen(hears) {
      events = hears;
      socket.on("message", (data) => hears.message(data as Buffer));
      socket.on("ping", () => hears.ping());
      socket.on("pong", (data) => hears.pong(data.toString()));
      if (socket.readyState === WebSocket.CLOSED) queueMicrotask(() => closed(1006, Buffer.alloc(0)));
    },
    send: (message, left) => socket.send(message, left),
    ping(payload) {
      if (socket.readyState === WebSocket.OPEN) socket.ping(payload);
    },
    pause: () => socket.pause(),
    resume: () => socket.resume(),
    close: (code, reason) => socket.close(code, closeReason(reason)),
    terminate: () => socket.terminate(),
  };
}

/** The other end cannot be reached, or not now: another try may help. */
export class UnreachableError extends Error {}

export interface Dial {
  readonly url: string;
  readonly token: string | undefined;
  readonly timeoutMs: number;
}

/**
 * Connect to a coordinator.
 * @throws ConfigError when it refuses us for good; UnreachableError when it is worth trying again
 */
export async function dial({ url, token, timeoutMs }: Dial): Promise<Pipe> {
  const { url: address, createConnection } = parseAddress(url);
  const socket = new WebSocket(address, subprotocol, {
    ...(createConnection && { createConnection }),
    headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
    perMessageDeflate: false,
    maxPayload: largestMessage,
    handshakeTimeout: timeoutMs,
    // A mask of zeros costs nothing; against caches on the way, which masks are for, TLS is the answer.
    generateMask: (mask: Buffer) => mask.fill(0),
  } as unknown as ClientOptions);
  return await new Promise((resolve, reject) => {
    socket.on("open", () => resolve(webSocketPipe(socket)));
    socket.on("error", (error: NodeJS.ErrnoException) => {
      const refused = refusedForGood(error);
      if (refused) reject(new ConfigError(`worker: ${refused.message}`));
      else reject(new UnreachableError(error.message || error.code || "unknown error"));
    });
    socket.on("unexpected-response", (_request, response) => {
      let body = "";
      response.on("data", (chunk: Buffer) => {
        body += chunk.toString();
        if (body.length > 1000) response.destroy();
      });
      response.on("error", () => {});
      // Whole or cut: what came of it says enough.
      response.on("close", () => {
        const status = response.statusCode!;
        const other = bystander({ status, headers: response.headers, body }, true);
        const reason = `${url}: ${other ?? `answers ${status}: ${clear(body) || response.statusMessage}`}`;
        // A full coordinator, one that many wrong tokens came to, or a proxy whose coordinator is not back yet.
        const isForNow = status >= 500 || status === 429;
        reject(isForNow ? new UnreachableError(reason) : new ConfigError(`worker: ${reason}`));
      });
    });
  });
}
