// Who may talk to the coordinator. On loopback everyone on this machine; beyond it whoever shows the run's token, in
// the Authorization header (RFC 6750) or, for a browser that has logged in, in a cookie that reveals nothing of it.
import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";
import { ConfigError } from "../../shared/errors.ts";

const shortestToken = 16;
const cookieName = "weft-session";
const cookieSeconds = 12 * 3600;

export interface Access {
  readonly tokenRequired: boolean;
  /** May this request, or this WebSocket upgrade, go on? A cookie opens reading only. */
  authorised(request: IncomingMessage): boolean;
  /** The Set-Cookie header for whoever sends this token to POST /login, or undefined when it is wrong. */
  login(token: string, secure: boolean): string | undefined;
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
    const text = await readFile(tokenFile, "utf8").catch((error: NodeJS.ErrnoException) => {
      throw new ConfigError(`config: --token-file ${tokenFile} cannot be read (${error.code})`, { cause: error });
    });
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

/** @param token of the run, or undefined where nothing listens beyond loopback */
export function accessWith(token: string | undefined): Access {
  if (token === undefined) return { tokenRequired: false, authorised: fromThisMachine, login: () => undefined };
  const digest = sha256(token);
  const session = createHmac("sha256", token).update("weft dashboard session").digest("base64url");
  const sessionDigest = sha256(session);
  const matches = (candidate: string | undefined, expected: Buffer): boolean =>
    candidate !== undefined && timingSafeEqual(sha256(candidate), expected);
  return {
    tokenRequired: true,
    authorised: (request) => {
      const bearer = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? "")?.[1];
      if (bearer !== undefined) return matches(bearer, digest);
      const reads = (request.method === "GET" || request.method === "HEAD") && request.headers.upgrade === undefined;
      return reads && matches(cookieOf(request), sessionDigest);
    },
    login: (candidate, secure) =>
      matches(candidate, digest)
        ? `${cookieName}=${session}; HttpOnly; SameSite=Strict; Path=/; Max-Age=${cookieSeconds}${secure ? "; Secure" : ""}`
        : undefined,
  };
}

/** Equal lengths for timingSafeEqual, whatever was sent. */
function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
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
