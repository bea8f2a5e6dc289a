// Asking a coordinator over HTTP: the way there, the token, and what each failure means to the person who asked.
import { z } from "zod";
import { ConfigError, messageOf } from "../shared/errors.ts";

/** Longest wait for an answer, and between two pieces of one. */
const silenceMs = 30_000;

/** The connection broke, or the coordinator has no time: asking again may help. */
export class Interrupted extends Error {}

export class Remote {
  /** Without a slash at its end. */
  readonly url: string;
  readonly #headers: Readonly<Record<string, string>>;

  /** @throws ConfigError for an address that is none; ws:// means the same coordinator as http:// */
  constructor(address: string, token: string | undefined) {
    const url = URL.canParse(address) ? new URL(address.replace(/^ws(?=s?:)/i, "http")) : undefined;
    if (url?.protocol !== "http:" && url?.protocol !== "https:")
      throw new ConfigError(`"${address}" is not the address of a coordinator, such as http://127.0.0.1:7070`);
    this.url = url.origin + url.pathname.replace(/\/+$/, "");
    // As the bytes are on the disk: a range of a compressed answer would be a range of something else.
    const plain = { "accept-encoding": "identity" };
    this.#headers = token === undefined ? plain : { ...plain, authorization: `Bearer ${token}` };
  }

  /**
   * One request. The answer's body must be read or cancelled; it ends with Interrupted when it falls silent.
   * @throws ConfigError where asking again would not help, Interrupted where it may
   */
  async ask(path: string, init: { method?: string; headers?: Record<string, string>; body?: Uint8Array } = {}) {
    const silence = new AbortController();
    const alarm = setTimeout(() => silence.abort(), silenceMs).unref();
    let answer: Response;
    try {
      answer = await fetch(this.url + path, {
        ...(init as RequestInit),
        headers: { ...this.#headers, ...init.headers },
        redirect: "error",
        signal: silence.signal,
      });
    } catch (error) {
      throw new Interrupted(`${this.url} cannot be reached (${reasonOf(error, silence.signal)})`, { cause: error });
    } finally {
      clearTimeout(alarm);
    }
    if (answer.ok) return { answer, pieces: () => this.#pieces(answer, silence) };
    const why = (await answer.text().catch(() => "")).trim().slice(0, 500);
    if (answer.status === 401)
      throw new ConfigError(`${this.url} refused: ${why}; set WEFT_TOKEN or --token-file to this run's token`);
    if (answer.status === 503) throw new Interrupted(`${this.url}${path}: ${why}`);
    throw new ConfigError(`${this.url}${path}: ${why || `status ${answer.status}`}`);
  }

  async *#pieces(answer: Response, silence: AbortController): AsyncGenerator<Uint8Array> {
    let alarm = setTimeout(() => silence.abort(), silenceMs);
    try {
      if (!answer.body) return;
      for await (const piece of answer.body as AsyncIterable<Uint8Array>) {
        clearTimeout(alarm);
        yield piece;
        alarm = setTimeout(() => silence.abort(), silenceMs);
      }
    } catch (error) {
      throw new Interrupted(`the connection to ${this.url} broke (${reasonOf(error, silence.signal)})`, {
        cause: error,
      });
    } finally {
      clearTimeout(alarm);
    }
  }

  /** A checked JSON answer. @throws ConfigError where it is not what a coordinator of this version says */
  async json<T extends z.ZodType>(path: string, schema: T): Promise<z.infer<T>> {
    const { answer } = await this.ask(path);
    const parsed = schema.safeParse(await answer.json().catch(() => undefined));
    if (parsed.success) return parsed.data;
    const details = z.prettifyError(parsed.error);
    throw new ConfigError(`${this.url}${path} is not the answer of a coordinator of this version:\n${details}`);
  }
}

/** Fetch says "fetch failed" and hides the reason in its cause. */
function reasonOf(error: unknown, silence: AbortSignal): string {
  if (silence.aborted) return `silent for ${silenceMs / 1000} s`;
  let deepest = error;
  while (deepest instanceof Error && !("code" in deepest) && deepest.cause instanceof Error) deepest = deepest.cause;
  return (deepest as { code?: string }).code ?? messageOf(deepest);
}
