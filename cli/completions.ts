// The completions endpoint of OpenAI's API (POST /v1/completions, GET /v1/models) over one model: what is asked for is
// checked, bounded and done in order, one at a time, because an engine does one thing at a time.
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { z } from "zod";
import type { Access } from "../coordinator/serve/access.ts";
import { type Decodable, sample } from "../shared/decoding/decode.ts";
import { decoderAfter, StoppingText, stopsAt } from "../shared/decoding/text.ts";
import { ConfigError } from "../shared/errors.ts";
import type { Tokenizer } from "../shared/tokenizers/tokenizer.ts";

export interface Served {
  /** What clients call the model. */
  readonly name: string;
  readonly engine: Decodable;
  readonly tokenizer: Tokenizer;
  /** Most texts side by side that the engine was planned for. */
  readonly mostSamples: number;
  readonly mostTokens: number;
  readonly access: Access;
  /** Seconds since 1970, for `created`. */
  readonly now: () => number;
  readonly onError: (error: unknown) => void;
}

const bodyLimit = 2 ** 20;
const mostWaiting = 32;
const mostConnections = 64;
/** A completion that has taken so long ends with what it has. */
const longestMs = 300_000;
/** A client that has read nothing for so long has gone. */
const longestUnreadMs = 30_000;

const strings = z.union([z.string(), z.array(z.string()).max(4)]);
const isNotDone = { error: "this server does not do that; leave it out" };
const nothing = z.union([z.null(), z.literal(0), z.literal(false), z.literal("")], isNotDone).optional();

const requestSchema = z.strictObject({
  model: z.string(),
  prompt: z.union([z.string(), z.array(z.string()).length(1), z.array(z.int().min(0)).min(1)]).default("\n"),
  max_tokens: z.int().min(1).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  n: z.int().min(1).nullish(),
  stop: strings.nullish(),
  seed: z.int().min(0).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.strictObject({ include_usage: z.boolean().optional() }).nullish(),
  user: z.string().optional(),
  // What we do not do is refused, unless it asks for nothing.
  logprobs: z.null(isNotDone).optional(), // 0 asks for those of what was drawn
  echo: nothing,
  suffix: nothing,
  presence_penalty: nothing,
  frequency_penalty: nothing,
  best_of: z.union([z.null(), z.literal(1)]).optional(),
  logit_bias: z.union([z.null(), z.strictObject({})]).optional(),
});
type Asked = z.infer<typeof requestSchema>;

class Refusal extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** An HTTP server, bounded in size, number and time, not yet listening. */
export function completionsServer(served: Served): Server {
  let waiting = 0;
  let turn: Promise<unknown> = Promise.resolve();
  let count = 0;

  /** One after another. @throws Refusal where too many wait */
  async function inTurn(act: () => Promise<void>): Promise<void> {
    if (waiting >= mostWaiting) throw new Refusal(503, `${waiting} requests are waiting, as many as may`);
    waiting++;
    const mine = turn.then(act);
    turn = mine.catch(() => {});
    await mine.finally(() => waiting--);
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url?.split("?")[0];
    if (path === "/healthz") return sendJson(response, 200, { ok: true, waiting });
    const right = await served.access.rightOf(request);
    if (right === "later") throw new Refusal(429, "too many wrong tokens; try again later");
    if (right === undefined)
      throw served.access.tokenRequired
        ? new Refusal(401, "this server needs its token as the API key: Authorization: Bearer ...")
        : new Refusal(403, "this server answers programs on its own machine only");
    const model = { id: served.name, object: "model", created: 0, owned_by: "weft" };
    if (path === "/v1/models" && request.method === "GET")
      return sendJson(response, 200, { object: "list", data: [model] });
    if (path === `/v1/models/${encodeURIComponent(served.name)}` && request.method === "GET")
      return sendJson(response, 200, model);
    if (path !== "/v1/completions") throw new Refusal(404, "there are /v1/models and /v1/completions");
    if (request.method !== "POST") throw new Refusal(405, "completions are asked for with POST");
    const asked = checked(await bodyOf(request), served);
    await inTurn(() => complete(response, asked, `cmpl-${++count}`, served));
  }

  const server = createServer(
    { maxHeaderSize: 16 * 1024, headersTimeout: 10_000, requestTimeout: 30_000, keepAliveTimeout: 10_000 },
    (request, response) => {
      response.setHeader("X-Content-Type-Options", "nosniff");
      answer(request, response).catch((error: unknown) => {
        if (response.headersSent || response.destroyed) return void response.destroy();
        const known = error instanceof Refusal;
        const refusal = known
          ? error
          : error instanceof ConfigError
            ? new Refusal(400, error.message)
            : new Refusal(500, "the server failed; its log says why");
        if (refusal.status === 500) served.onError(error);
        if (!request.complete) response.setHeader("Connection", "close");
        const type = refusal.status < 500 ? "invalid_request_error" : "server_error";
        sendJson(response, refusal.status, { error: { message: refusal.message, type, param: null, code: null } });
      });
    },
  );
  server.maxConnections = mostConnections;
  return server;
}

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of request as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes > bodyLimit) throw new Refusal(413, `a request may have ${bodyLimit} bytes`);
    pieces.push(piece);
  }
  try {
    return JSON.parse(Buffer.concat(pieces).toString("utf8"));
  } catch {
    throw new Refusal(400, "the request is not JSON");
  }
}

function checked(body: unknown, { name, mostSamples, mostTokens }: Served): Asked {
  const parsed = requestSchema.safeParse(body);
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0]!;
    throw new Refusal(400, `${path.length > 0 ? `${path.join(".")}: ` : ""}${message}`.slice(0, 500));
  }
  const { model, n, max_tokens } = parsed.data;
  if (model !== name)
    throw new Refusal(404, `there is no model ${JSON.stringify(model.slice(0, 100))}, only "${name}"`);
  if ((n ?? 1) > mostSamples) throw new Refusal(400, `n: at most ${mostSamples}`);
  if ((max_tokens ?? 1) > mostTokens) throw new Refusal(400, `max_tokens: at most ${mostTokens}`);
  return parsed.data;
}

/** Draws the texts, and sends them piece by piece or whole. A client that has gone stops it. */
async function complete(response: ServerResponse, asked: Asked, id: string, served: Served): Promise<void> {
  if (response.destroyed) return;
  const { engine, tokenizer, now, name } = served;
  const samples = asked.n ?? 1;
  const tokens = Math.min(asked.max_tokens ?? 16, served.mostTokens);
  const stop = (typeof asked.stop === "string" ? [asked.stop] : (asked.stop ?? [])).filter((text) => text !== "");
  const prompt = promptOf(asked.prompt, served);
  if (prompt.length === 0) throw new Refusal(400, "prompt: it is empty; a model continues a text");
  const ends = stopsAt(tokenizer, stop);
  const deadline = AbortSignal.timeout(longestMs);
  const isOver = () => response.destroyed || deadline.aborted;
  const style = { temperature: asked.temperature ?? 1, topP: asked.top_p ?? 1, topK: 0, repetitionPenalty: 1 };
  const seed = asked.seed ?? Math.floor(Math.random() * 2 ** 32);

  const texts = Array.from({ length: samples }, () => new StoppingText(decoderAfter(tokenizer, prompt), stop));
  const drawn = texts.map(() => [] as number[]);
  const written = texts.map(() => "");
  const common = { id, object: "text_completion", created: Math.floor(now()), model: name };
  const reason = (i: number): string => (ends(drawn[i]!) ? "stop" : "length");
  if (asked.stream) {
    response.writeHead(200, { "Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store" });
  }
  const gone = new AbortController();
  response.once("close", () => gone.abort());
  const send = async (value: unknown): Promise<void> => {
    if (response.destroyed) return;
    if (response.write(`data: ${typeof value === "string" ? value : JSON.stringify(value)}\n\n`)) return;
    const signal = AbortSignal.any([gone.signal, AbortSignal.timeout(longestUnreadMs)]);
    await once(response, "drain", { signal }).catch(() => response.destroy());
  };
  const put = async (i: number, text: string, finish: string | null): Promise<void> => {
    written[i] += text;
    if (asked.stream && (text !== "" || finish !== null))
      await send({ ...common, choices: [{ index: i, text, logprobs: null, finish_reason: finish }] });
  };

  const options = { ...style, tokens, samples, seed, finished: ends, has: (token: number) => tokenizer.has(token) };
  for await (const { sample: i, token } of sample(engine, prompt, options)) {
    if (isOver()) break;
    drawn[i]!.push(token);
    await put(i, texts[i]!.push(token), null);
  }
  for (const [i, text] of texts.entries()) await put(i, text.end(), reason(i));
  const completion = drawn.reduce((sum, list) => sum + list.length, 0);
  const usage = {
    prompt_tokens: prompt.length,
    completion_tokens: completion,
    total_tokens: prompt.length + completion,
  };
  if (!asked.stream) {
    const choices = written.map((text, index) => ({ index, text, logprobs: null, finish_reason: reason(index) }));
    return sendJson(response, 200, { ...common, choices, usage });
  }
  if (asked.stream_options?.include_usage) await send({ ...common, choices: [], usage });
  await send("[DONE]");
  response.end();
}

function promptOf(prompt: Asked["prompt"], { tokenizer, engine }: Served): Int32Array {
  if (typeof prompt === "string") return tokenizer.encode(prompt);
  if (typeof prompt[0] === "string") return tokenizer.encode(prompt[0]);
  const ids = prompt as number[];
  const bad = ids.findIndex((id) => id >= engine.model.vocabSize || !tokenizer.has(id));
  if (bad >= 0) throw new Refusal(400, `prompt: token ${ids[bad]} at position ${bad} is none of this model's`);
  return Int32Array.from(ids);
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const body = `${JSON.stringify(value)}\n`;
  response.writeHead(status, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) });
  response.end(body);
}
