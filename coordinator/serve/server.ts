// One port for workers (WebSocket) and people (HTTP). What comes in is bounded in size, number and time before anything
// else looks at it.
import type { IncomingMessage, Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import type { Logger } from "pino";
import { RateLimiterMemory, type RateLimiterRes } from "rate-limiter-flexible";
import { WebSocketServer } from "ws";
import { ConfigError } from "../../shared/errors.ts";
import type { Pipe } from "../../shared/wire/pipe.ts";
import { subprotocol } from "../../shared/wire/protocol.ts";
import { largestMessage, webSocketPipe } from "../../shared/wire/web-socket.ts";
import { type Access, isLoopback, mostFailures, type Right } from "./access.ts";
import { createHttpServer, type RunView } from "./http.ts";
import type { RelayView } from "./relay-pages.ts";
import type { Certificate } from "./tls.ts";

export interface RunServer {
  /** Where programs on this machine reach it: "127.0.0.1:7070", "[::1]:7070". */
  readonly address: string;
  /** With TLS; its fingerprint where no authority has signed the certificate. */
  readonly tls: { readonly fingerprint: string | undefined } | undefined;
  readonly port: number;
  close(): Promise<void>;
}

/** Viewers beside the workers. */
const httpConnections = 1024;

/** Who takes workers in. */
export interface Host {
  /** @param isLocal from this machine, or by way of it @param address where it comes from, else */
  admit(pipe: Pipe, isLocal: boolean, address: string | undefined): void;
}

/**
 * @param run what people are shown
 * @throws ConfigError when the address cannot be listened on
 */
export async function serve(
  workers: Host,
  run: RunView | RelayView,
  options: {
    host: string;
    port: number;
    maxWorkers: number;
    access: Access;
    certificate?: Certificate | undefined;
    log: Logger;
  },
): Promise<RunServer> {
  const { host, port, maxWorkers, access, certificate, log } = options;
  const http = createHttpServer({
    run,
    access,
    certificate,
    maxConnections: maxWorkers + httpConnections,
    onError: (error) => log.error(error),
  });
  const sockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: largestMessage,
    handleProtocols: (offered) => (offered.has(subprotocol) ? subprotocol : false),
  });
  const strangers = new Strangers(http);
  const handshakes = certificate && new Handshakes(http, log);
  const upgrade = async (request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> => {
    const leave = () => socket.destroy();
    socket.on("error", leave);
    const right = await access.rightOf(request);
    if (socket.destroyed) return;
    const refusal = reasonToRefuse(request, access, right, sockets.clients.size < maxWorkers);
    if (refusal) {
      log.warn({ peer: request.socket.remoteAddress }, `connection refused: ${refusal.reason}`);
      const { status, reason } = refusal;
      // Nobody waits for its other end.
      setTimeout(() => socket.destroy(), 2000).unref();
      socket.end(
        `HTTP/1.1 ${status}\r\nContent-Type: text/plain\r\nContent-Length: ${Buffer.byteLength(reason)}\r\nConnection: close\r\n\r\n${reason}`,
      );
      return;
    }
    socket.off("error", leave);
    strangers.welcome(request.socket);
    const address = request.socket.remoteAddress?.replace(/^::ffff:/, "") ?? "";
    const isLocal = isLoopback(address);
    handshakes?.joined(request.socket.remoteAddress);
    sockets.handleUpgrade(request, socket, head, (webSocket) =>
      workers.admit(webSocketPipe(webSocket), isLocal, isLocal ? undefined : address),
    );
  };
  http.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => void upgrade(request, socket, head));

  await new Promise<void>((resolve, reject) => {
    http.once("error", (error: NodeJS.ErrnoException) => reject(listenError(error, host, port)));
    http.listen(port, host, resolve);
  });
  const { address, port: actualPort, family } = http.address() as AddressInfo;
  // The address that means all of them is none to connect to.
  const reachable = address === "0.0.0.0" ? "127.0.0.1" : address === "::" ? "::1" : address;
  return {
    address: family === "IPv6" ? `[${reachable}]:${actualPort}` : `${reachable}:${actualPort}`,
    port: actualPort,
    tls: certificate && { fingerprint: certificate.fingerprint },
    close: async () => {
      for (const client of sockets.clients) client.close(1001, "the coordinator stops");
      const closed = new Promise<void>((resolve) => {
        http.close(() => resolve());
      });
      http.closeIdleConnections();
      const deadline = setTimeout(() => {
        for (const client of sockets.clients) client.terminate();
        http.closeAllConnections();
      }, 3000);
      await closed;
      clearTimeout(deadline);
    },
  };
}

/** Most sockets of one address that have not joined the run. */
const mostStrangers = 64;

/** Sockets that have shown nothing yet. An address that opens many pushes out its own oldest: whoever says at once what
 * he wants is not kept out by those who only wait. */
class Strangers {
  readonly #byAddress = new Map<string, Set<Socket>>();

  constructor(server: Server) {
    server.on("connection", (socket: Socket) => {
      const address = socket.remoteAddress ?? "";
      const strangers = this.#byAddress.get(address) ?? new Set();
      this.#byAddress.set(address, strangers.add(socket));
      socket.once("close", () => this.#forget(socket, address));
      if (strangers.size > mostStrangers) for (const oldest of strangers) return void oldest.destroy();
    });
  }

  /** This one has joined. */
  welcome(socket: Socket): void {
    // With TLS it lies over the socket of the connection.
    this.#forget((socket as { _parent?: Socket })._parent ?? socket, socket.remoteAddress ?? "");
  }

  #forget(socket: Socket, address: string): void {
    const strangers = this.#byAddress.get(address);
    strangers?.delete(socket);
    if (strangers?.size === 0) this.#byAddress.delete(address);
  }
}

/**
 * TLS handshakes that fail cost us a signature each. An address from which so many come in a minute is not listened to for
 * the rest of it, unless a worker has joined from there: who shares its address with others is not kept out by them.
 */
class Handshakes {
  readonly #failed = new RateLimiterMemory({ points: mostFailures, duration: 60 });
  /** Bounded by those who have the token. */
  readonly #known = new Set<string>();

  constructor(server: Server, log: Logger) {
    server.on("tlsClientError", async (error: NodeJS.ErrnoException, socket: TLSSocket) => {
      const peer = addressOf(socket);
      if (error.code === "ERR_SSL_HTTP_REQUEST")
        log.warn({ peer }, "connection refused: it does not speak TLS, this port speaks nothing else");
      const { consumedPoints } = await this.#failed.consume(peer).catch((over: RateLimiterRes) => over);
      if (consumedPoints === mostFailures && !this.#known.has(peer))
        log.warn({ peer }, `${mostFailures} TLS handshakes from there failed: its connections are closed for a minute`);
    });
    server.on("connection", async (socket: Socket) => {
      const peer = addressOf(socket);
      const before = await this.#failed.get(peer);
      if (before && before.consumedPoints >= mostFailures && !this.#known.has(peer)) socket.destroy();
    });
  }

  /** A worker showed the token there. */
  joined(address: string | undefined): void {
    this.#known.add(address ?? "");
  }
}

/** Of a socket that may be gone already: what lies below TLS still knows it. */
const addressOf = (socket: Socket & { _parent?: Socket }): string =>
  socket.remoteAddress ?? socket._parent?.remoteAddress ?? "";

function reasonToRefuse(request: IncomingMessage, access: Access, right: Right, room: boolean) {
  if (right === "later")
    return { status: "429 Too Many Requests", reason: "too many wrong tokens came from this address; wait a minute" };
  if (right === "view")
    return { status: "403 Forbidden", reason: "this is the token of viewers; workers need WEFT_TOKEN or --token-file" };
  if (right === undefined)
    return access.tokenRequired
      ? { status: "401 Unauthorized", reason: "the token is missing or wrong; set WEFT_TOKEN or --token-file" }
      : { status: "403 Forbidden", reason: "this coordinator takes workers of its own machine only" };
  if (!room) return { status: "503 Service Unavailable", reason: "as many workers as --max-workers are connected" };
  const offered = request.headers["sec-websocket-protocol"]?.split(/, */) ?? [];
  if (!offered.includes(subprotocol))
    return { status: "400 Bad Request", reason: `this is a ${subprotocol} coordinator; connect with "weft worker"` };
  return undefined;
}

function listenError(error: NodeJS.ErrnoException, host: string, port: number): Error {
  const cures: Record<string, string> = {
    EADDRINUSE: `port ${port} on ${host} is in use; choose another with --port, or 0 for any free one`,
    EACCES: `port ${port} on ${host} needs more rights; choose one above 1023 with --port`,
    EADDRNOTAVAIL: `${host} is no address of this machine; see --host`,
    ENOTFOUND: `${host} is not a known address; see --host`,
  };
  const cure = cures[error.code ?? ""];
  return cure ? new ConfigError(`config: ${cure}`, { cause: error }) : error;
}
