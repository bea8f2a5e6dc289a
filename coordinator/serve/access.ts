// Who may talk to the coordinator. On loopback everyone on this machine; beyond it whoever shows the run's token, in
// the Authorization header (RFC 6750) or, for a browser that has logged in, in a cookie that reveals nothing of it.
import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";
import { RateLimiterMemory } from "rate-limiter-flexible";
import { ConfigError } from "../../shared/errors.ts";
import { readText } from "../../shared/json.ts";

const shortestToken = 16;
const cookieName = "weft-session";
const cookieSeconds = 12 * 3600;

/** `view`: status, metrics and checkpoints; `work`: everything; `later`: too many wrong tokens came from there. */
export type Right = "work" | "view" | "later" | undefined;

export interface Access {
  readonly tokenRequired: boolean;
  /** What may this request, or this WebSocket upgrade, do? A cookie opens reading, and the page's buttons. */
  rightOf(request: IncomingMessage): Promise<Right>;
  /** The Set-Cookie header for whoever sends this token to POST /login, or undefined when it is wrong. */
  login(address: string | undefined, token: string, secure: boolean): Promise<string | "later" | undefined>;
}

/** The token of a run and where it came from. A generated one is shown once, as part of a ready `weft worker` line. */
export interface Token {
  readonly text: string;
  readonly source: "WEFT_TOKEN" | "file" | "generated";
}

/** Does this address reach this machine only? */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, "").toLowerCase();
  return bare === "localhost" || bare === "::1" || (isIP(bare) === 4 && bare.startsWith("127."));
}

/**
 * The run's token: from the file, else from WEFT_TOKEN, else none on loopback and a new one of 256 bits beyond it.
 * @throws ConfigError for a file that cannot be read, or a token that can be guessed or cannot travel in a header
 */
export async function resolveToken(
  host: string,
  tokenFile: string,
  environment: Readonly<Record<string, string | undefined>>,
): Promise<Token | undefined> {
  if (tokenFile !== "") {
    const text = await readText(tokenFile, `config: --token-file ${tokenFile}`);
    return { text: checkedToken(text.trim(), `--token-file ${tokenFile}`), source: "file" };
  }
  const given = environment.WEFT_TOKEN;
  if (given !== undefined && given !== "") return { text: checkedToken(given, "WEFT_TOKEN"), source: "WEFT_TOKEN" };
  return isLoopback(host) ? undefined : { text: randomBytes(32).toString("base64url"), source: "generated" };
}

function checkedToken(token: string, where: string): string {
  if (token.length < shortestToken)
    throw new ConfigError(`config: the token of ${where} has ${token.length} characters, at least ${shortestToken}`);
  if (!/^[\x21-\x7e]+$/.test(token))
    throw new ConfigError(`config: the token of ${where} holds spaces or characters beyond ASCII`);
  return token;
}

/**
 * The token of viewers, from WEFT_VIEW_TOKEN: status, metrics and checkpoints, never work.
 * @throws ConfigError where it could be guessed, is the workers' own, or there is nothing to keep viewers from
 */
export function viewTokenOf(
  environment: Readonly<Record<string, string | undefined>>,
  token: Token | undefined,
): string | undefined {
  const given = environment.WEFT_VIEW_TOKEN;
  if (given === undefined || given === "") return undefined;
  if (!token)
    throw new ConfigError("config: WEFT_VIEW_TOKEN is for viewers alone; set WEFT_TOKEN or --token-file as well");
  if (given === token.text) throw new ConfigError("config: WEFT_VIEW_TOKEN is the token of workers; make another");
  return checkedToken(given, "WEFT_VIEW_TOKEN");
}

/** What a client shows: the file's token, WEFT_TOKEN, or WEFT_VIEW_TOKEN. @throws ConfigError */
export async function tokenToShow(
  tokenFile: string,
  environment: Readonly<Record<string, string | undefined>>,
): Promise<string | undefined> {
  const token = await resolveToken("localhost", tokenFile, environment);
  const view = environment.WEFT_VIEW_TOKEN;
  return token?.text ?? (view ? checkedToken(view, "WEFT_VIEW_TOKEN") : undefined);
}

/** Wrong tokens of one address in a minute, before no more is looked at; failed TLS handshakes likewise. */
export const mostFailures = 20;

/**
 * @param token of the run, or undefined where nothing listens beyond loopback
 * @param viewToken of viewers, where they have one of their own
 */
export function accessWith(token: string | undefined, viewToken?: string): Access {
  if (token === undefined)
    return {
      tokenRequired: false,
      rightOf: async (request) => (fromThisMachine(request) ? "work" : undefined),
      login: async () => undefined,
    };
  const rights = [token, ...(viewToken === undefined ? [] : [viewToken])].map((text, i) => {
    const session = createHmac("sha256", text).update("weft dashboard session").digest("base64url");
    return {
      right: i === 0 ? ("work" as const) : ("view" as const),
      digest: sha256(text),
      session,
      sessionDigest: sha256(session),
    };
  });
  const failures = new RateLimiterMemory({ points: mostFailures, duration: 60 });
  const of = <T>(
    candidate: string,
    found: (right: (typeof rights)[number]) => T,
    which: "digest" | "sessionDigest",
  ) => {
    const shown = sha256(candidate);
    const matching = rights.filter((right) => timingSafeEqual(shown, right[which]));
    return matching[0] && found(matching[0]);
  };
  /** Look at a token, unless too many wrong ones came from there. */
  const guarded = async <T>(
    address: string | undefined,
    look: () => T | undefined,
  ): Promise<T | "later" | undefined> => {
    const key = address ?? "";
    const before = await failures.get(key);
    if (before && before.consumedPoints >= mostFailures) return "later";
    const found = look();
    if (found === undefined) await failures.consume(key).catch(() => {}); // the limit is reached: the next one waits
    return found;
  };
  return {
    tokenRequired: true,
    rightOf: async (request) => {
      const bearer = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? "")?.[1];
      if (bearer !== undefined)
        return await guarded(request.socket?.remoteAddress, () => of(bearer, ({ right }) => right, "digest"));
      const cookie = request.headers.upgrade === undefined ? cookieOf(request) : undefined;
      if (cookie === undefined) return undefined;
      const reads = request.method === "GET" || request.method === "HEAD";
      // A cookie goes along with whatever a browser sends: what changes something must come from our own page.
      if (reads) return of(cookie, () => "view" as const, "sessionDigest");
      return isFromOwnPage(request) ? of(cookie, ({ right }) => right, "sessionDigest") : undefined;
    },
    login: async (address, candidate, secure) =>
      await guarded(address, () =>
        of(
          candidate,
          ({ session }) =>
            `${cookieName}=${session}; HttpOnly; SameSite=Strict; Path=/; Max-Age=${cookieSeconds}${secure ? "; Secure" : ""}`,
          "digest",
        ),
      ),
  };
}

/** Equal lengths for timingSafeEqual, whatever was sent. */
function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

/** Browsers name where a POST comes from; beyond https and this machine only in Origin (Fetch Metadata, W3C). */
function isFromOwnPage({ headers }: IncomingMessage): boolean {
  const site = headers["sec-fetch-site"];
  if (site !== undefined) return site === "same-origin";
  return headers.origin === `http://${headers.host}` || headers.origin === `https://${headers.host}`;
}

function cookieOf(request: IncomingMessage): string | undefined {
  const found = (request.headers.cookie ?? "").split(/; */).find((pair) => pair.startsWith(`${cookieName}=`));
  return found?.slice(cookieName.length + 1);
}

/**
 * Without a token only this machine's own programs may talk to us. A web page is not one, although it can reach
 * 127.0.0.1 through its reader's browser: it gives itself away by its Origin, or by its own name in Host (DNS
 * rebinding).
 */
function fromThisMachine(request: IncomingMessage): boolean {
  const host = request.headers.host ?? "";
  const hostName = host.replace(/:\d*$/, "");
  const { origin } = request.headers;
  const sameOrigin = origin === undefined || origin === `http://${host}` || origin === `https://${host}`;
  return isLoopback(hostName) && sameOrigin;
}
