// What the coordinator's port answers to HTTP: the page, the run's status, curves, events, metrics and health, its
// checkpoints and the link test; and what the page may ask of the run. WebSockets come as upgrades (server.ts).
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createSecureServer } from "node:https";
import { join } from "node:path";
import { manifestName } from "../../shared/checkpoint/manifest.ts";
import type { Curves, History } from "../history.ts";
import type { Journal } from "../journal.ts";
import type { RunMetrics } from "../metrics.ts";
import type { EarlierRuns } from "../past.ts";
import type { CheckpointShelf } from "../shelf.ts";
import { healthOf, type RunStatus } from "../status.ts";
import type { Access } from "./access.ts";
import { sendFile } from "./download.ts";
import { linkLimit, sendLink, swallowLink } from "./link.ts";
import { pageFiles, pagePolicy } from "./page.ts";
import { type RelayView, relayPage } from "./relay-pages.ts";

/** What the pages are made from. */
export interface RunView {
  status(): RunStatus;
  readonly metrics: RunMetrics;
  readonly history: History;
  readonly journal: Journal;
  readonly earlier: EarlierRuns;
  /** What does not change: options and data. */
  about(): object;
  /** Write a checkpoint after the step in hand. */
  checkpointSoon(): void;
  /** Write a checkpoint and end. @param isForGood its workers go home */
  stop(reason: string, isForGood: boolean): void;
  readonly shelf: Pick<CheckpointShelf, "list" | "find">;
}

export interface HttpOptions {
  readonly run: RunView | RelayView;
  readonly access: Access;
  /** With it the port speaks TLS, and nothing else. */
  readonly certificate?: { readonly cert: string; readonly key: string } | undefined;
  /** Most open sockets, WebSockets included. */
  readonly maxConnections: number;
  /** Hears of failures that are ours, such as a disk that cannot be read; the request gets a 500. */
  readonly onError: (error: unknown) => void;
}

/** A refusal: the status and the reason that the client reads. */
class Refusal extends Error {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  constructor(status: number, reason: string, headers: Record<string, string> = {}) {
    super(reason);
    this.status = status;
    this.headers = headers;
  }
}

const plainHeaders = {
  "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Cache-Control": "no-store",
};

const tooMany = new Refusal(429, "too many wrong tokens came from this address; wait a minute", {
  "Retry-After": "60",
});

const loginLimit = 4096;
const mostDownloads = 16;

/** An HTTP server with every time and size bounded, not yet listening. */
export function createHttpServer(options: HttpOptions): Server {
  const limits = {
    maxHeaderSize: 16 * 1024,
    headersTimeout: 10_000,
    requestTimeout: 120_000,
    keepAliveTimeout: 10_000,
    connectionsCheckingInterval: 5000,
  };
  const { run, certificate } = options;
  const handler = "relayStatus" in run ? relayHandler(run, options) : httpHandler({ ...options, run });
  const server: Server = certificate
    ? createSecureServer({ ...limits, ...certificate, minVersion: "TLSv1.2", handshakeTimeout: 10_000 }, handler)
    : createServer(limits, handler);
  server.maxConnections = options.maxConnections;
  // A reader that takes nothing for so long is gone. The WebSockets set their own deadlines.
  server.timeout = 60_000;
  return server;
}

function relayHandler(relay: RelayView, { access, onError }: HttpOptions) {
  return (request: IncomingMessage, response: ServerResponse): void => {
    for (const [name, value] of Object.entries(plainHeaders)) response.setHeader(name, value);
    access
      .rightOf(request)
      .then((right) => send(request, response, ...relayPage(request, right, relay)))
      .catch((error) => {
        response.destroy();
        onError(error);
      });
  };
}

export function httpHandler({ run, access, onError }: HttpOptions & { readonly run: RunView }) {
  let downloads = 0;
  let linkBusy = false;

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const target = `http://run${request.url}`;
    if (!request.url?.startsWith("/") || !URL.canParse(target)) throw new Refusal(400, "this address cannot be read");
    const url = new URL(target);
    const segments = url.pathname.split("/").slice(1);
    const method = request.method === "HEAD" ? "GET" : request.method;
    const allow = (...methods: string[]): void => {
      if (!methods.includes(method!))
        throw new Refusal(405, `${request.method} is not possible on ${url.pathname}, ${methods.join(" and ")} is`, {
          Allow: methods.flatMap((name) => (name === "GET" ? ["GET", "HEAD"] : [name])).join(", "),
        });
    };

    switch (url.pathname) {
      case "/":
        allow("GET");
        return sendPage(request, response, "index.html");
      case "/healthz": {
        allow("GET");
        const { healthy, why } = healthOf(run.status());
        return send(request, response, healthy ? 200 : 503, "text/plain; charset=utf-8", `${why}\n`);
      }
      case "/login":
        allow("POST");
        return await login(request, response);
    }

    if (segments[0] === "assets" && segments.length === 2 && pageFiles.has(segments[1]!)) {
      allow("GET");
      return sendPage(request, response, segments[1]!);
    }

    const right = await access.rightOf(request);
    if (right === "later") throw tooMany;
    if (right === undefined)
      throw access.tokenRequired
        ? new Refusal(401, "this run needs its token: Authorization: Bearer ...", { "WWW-Authenticate": "Bearer" })
        : new Refusal(403, "this run answers programs on its own machine, and its own dashboard, only");

    switch (segments[0]) {
      case "status":
        if (segments.length > 1) break;
        allow("GET");
        return sendJson(request, response, run.status());
      case "history":
        if (segments.length > 1) break;
        allow("GET");
        return sendJson(request, response, run.history.curves(numberIn(url, "after", -1)));
      case "history.csv":
        if (segments.length > 1) break;
        allow("GET");
        response.setHeader(
          "Content-Disposition",
          `attachment; filename*=UTF-8''${encodeURIComponent(`${run.status().run.name}.csv`)}`,
        );
        return send(request, response, 200, "text/csv; charset=utf-8", csvOf(run.history.curves()));
      case "events":
        if (segments.length > 1) break;
        allow("GET");
        return sendJson(request, response, run.journal.after(numberIn(url, "after", 0)));
      case "about":
        if (segments.length > 1) break;
        allow("GET");
        return sendJson(request, response, run.about());
      case "runs": {
        if (segments.length > 2) break;
        allow("GET");
        if (segments.length === 1) return sendJson(request, response, await run.earlier.list());
        const curves = await run.earlier.curves(decoded(segments[1]!));
        if (!curves) throw new Refusal(404, "no run with a history has this name beside this one");
        return sendJson(request, response, curves);
      }
      case "actions":
        if (segments.length !== 2) break;
        if (right !== "work") throw new Refusal(403, "only who has the token of workers may ask this of the run");
        if (segments[1] === "checkpoint") {
          allow("POST");
          run.checkpointSoon();
          return sendJson(request, response, { asked: "checkpoint" });
        }
        if (segments[1] === "stop") {
          allow("POST");
          run.stop("asked for on the page", true);
          return sendJson(request, response, { asked: "stop" });
        }
        break;
      case "metrics":
        if (segments.length > 1) break;
        allow("GET");
        return send(request, response, 200, run.metrics.contentType, await run.metrics.render());
      case "checkpoints":
        allow("GET");
        if (segments.length === 1) return sendJson(request, response, run.shelf.list(Date.now()));
        if (segments.length !== 3) break;
        return await download(request, response, segments[1]!, segments[2]!);
      case "link":
        if (segments.length > 1) break;
        if (right !== "work") throw new Refusal(403, "the link is tested with the token of workers, not of viewers");
        allow("GET", "POST");
        return await link(request, response, url.searchParams.get("bytes") ?? "0");
    }
    throw new Refusal(404, `nothing at ${url.pathname.slice(0, 200)}`);
  }

  async function download(request: IncomingMessage, response: ServerResponse, name: string, file: string) {
    const checkpoint = run.shelf.find(name);
    if (!checkpoint) {
      const names = run.shelf.list(0).map((entry) => entry.name);
      throw new Refusal(404, `no checkpoint ${name.slice(0, 100)}; there are: ${names.join(", ") || "none yet"}`);
    }
    const { manifest, directory } = checkpoint;
    if (file === manifestName) return sendJson(request, response, manifest);
    if (!Object.hasOwn(manifest.files, file))
      throw new Refusal(404, `${name} has ${Object.keys(manifest.files).join(", ")}, but no ${file.slice(0, 100)}`);
    if (downloads >= mostDownloads)
      throw new Refusal(503, `${downloads} downloads are going on, as many as may`, { "Retry-After": "5" });
    downloads++;
    try {
      const proof = manifest.files[file]!;
      if (!(await sendFile(request, response, { path: join(directory, file), ...proof })))
        throw new Refusal(404, `${name} was removed meanwhile: it was neither best, final nor among the newest`);
    } finally {
      downloads--;
    }
  }

  async function link(request: IncomingMessage, response: ServerResponse, wanted: string) {
    if (linkBusy) throw new Refusal(503, "another link test is going on", { "Retry-After": "2" });
    linkBusy = true;
    try {
      if (request.method === "POST") {
        checkLength(request, linkLimit);
        return sendJson(request, response, await swallowLink(request));
      }
      const bytes = /^\d{1,9}$/.test(wanted) ? Number(wanted) : Number.NaN;
      if (!(bytes <= linkLimit)) throw new Refusal(400, `bytes must be a whole number up to ${linkLimit}`);
      await sendLink(response, bytes, request.method === "HEAD");
    } finally {
      linkBusy = false;
    }
  }

  async function login(request: IncomingMessage, response: ServerResponse): Promise<void> {
    checkLength(request, loginLimit);
    let body = "";
    for await (const chunk of request as AsyncIterable<Buffer>) body += chunk.toString("latin1");
    const secure = "encrypted" in request.socket;
    const cookie = await access.login(request.socket.remoteAddress, body.trim(), secure);
    if (cookie === "later") throw tooMany;
    if (cookie === undefined) throw new Refusal(401, "this is not the run's token");
    response.writeHead(204, { "Set-Cookie": cookie }).end();
  }

  return (request: IncomingMessage, response: ServerResponse): void => {
    for (const [name, value] of Object.entries(plainHeaders)) response.setHeader(name, value);
    answer(request, response).catch((error: NodeJS.ErrnoException) => {
      // Half an answer is out, or nobody is there to read it: all that is left is to hang up.
      if (response.headersSent || request.socket.destroyed) {
        response.destroy();
        if (error.code !== "ERR_STREAM_PREMATURE_CLOSE" && error.code !== "ECONNRESET") onError(error);
        return;
      }
      const refusal = error instanceof Refusal ? error : new Refusal(500, "the coordinator failed; its log says why");
      if (refusal !== error) onError(error);
      // The rest of a body that was not read would be taken for the next request.
      if (!request.complete) response.setHeader("Connection", "close");
      for (const [name, value] of Object.entries(refusal.headers)) response.setHeader(name, value);
      send(request, response, refusal.status, "text/plain; charset=utf-8", `${refusal.message}\n`);
    });
  };
}

function sendPage(request: IncomingMessage, response: ServerResponse, name: string): void {
  const { type, body } = pageFiles.get(name)!;
  response.setHeader("Content-Security-Policy", pagePolicy);
  send(request, response, 200, type, body);
}

/** A whole number of the query. */
function numberIn(url: URL, name: string, initial: number): number {
  const text = url.searchParams.get(name) ?? String(initial);
  if (!/^-?\d{1,15}$/.test(text)) throw new Refusal(400, `${name} must be a whole number`);
  return Number(text);
}

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    throw new Refusal(400, "this address cannot be read");
  }
}

/** Steps and evaluations in one table, by step. */
function csvOf({ train, validation }: Curves): string {
  const losses = new Map(validation.step.map((step, i) => [step, validation.valLossNats[i]]));
  const lines = train.step.map((step, i) =>
    [
      ...[step, train.tokens[i], train.seconds[i], train.lossNats[i], losses.get(step) ?? ""],
      ...[train.gradientNorm[i], train.learningRate[i], train.tokensPerSec[i]],
    ].join(","),
  );
  const seen = new Set(train.step);
  for (const [i, step] of validation.step.entries())
    if (!seen.has(step)) lines.push(`${step},${validation.tokens[i]},${validation.seconds[i]},,${losses.get(step)},,,`);
  lines.sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10));
  const names = "step,tokens,seconds,loss_nats,validation_loss_nats,gradient_norm,learning_rate,tokens_per_second";
  return `${[names, ...lines].join("\n")}\n`;
}

/** A body says how long it is, and that is little; the parser then lets no more in. */
function checkLength(request: IncomingMessage, limit: number): void {
  const length = request.headers["content-length"];
  if (length === undefined) throw new Refusal(411, "a body needs its Content-Length");
  if (Number(length) > limit) throw new Refusal(413, `a body of ${length} bytes, at most ${limit} are taken here`);
}

function send(request: IncomingMessage, response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { "Content-Type": type, "Content-Length": Buffer.byteLength(body) });
  response.end(request.method === "HEAD" ? undefined : body);
}

function sendJson(request: IncomingMessage, response: ServerResponse, value: unknown): void {
  send(request, response, 200, "application/json", `${JSON.stringify(value)}\n`);
}
