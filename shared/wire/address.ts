// Where a coordinator is and how it is known: ws://host:7070, or wss://host:7070 with TLS (RFC 8446). A certificate that
// nobody has signed is known by its SHA-256, which is part of the address: wss://host:7070#sha256:... A client that was
// asked for TLS never goes on without, and sends nothing, no token either, before the certificate is the right one.
import { createHash } from "node:crypto";
import type { ClientRequestArgs } from "node:http";
import { isIP } from "node:net";
import type { Duplex } from "node:stream";
import { type ConnectionOptions, connect, type PeerCertificate } from "node:tls";
import { ConfigError } from "../errors.ts";

export interface CoordinatorAddress {
  /** As it was given, without the fingerprint. */
  readonly url: URL;
  /** Opens its connections, with TLS; undefined without. */
  readonly createConnection: Connector | undefined;
}

export type Connector = (
  options: ClientRequestArgs,
  done: (error: Error | null, socket: Duplex) => void,
) => Duplex | null | undefined;

const silenceMs = 30_000;
const fingerprintPattern = /^#sha256:([\w-]{43})$/;

/** "sha256:" and 43 characters of base64url. @param certificate DER */
export function fingerprintOf(certificate: Uint8Array): string {
  return `sha256:${createHash("sha256").update(certificate).digest("base64url")}`;
}

/** @throws ConfigError for an address that is none, or a fingerprint that pins nothing */
export function parseAddress(text: string): CoordinatorAddress {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || !/^(ws|http)s?:$/.test(url.protocol))
    throw new ConfigError(`"${text}" is not the address of a coordinator, such as http://127.0.0.1:7070`);
  const { hash } = url;
  url.hash = "";
  const secure = url.protocol === "wss:" || url.protocol === "https:";
  if (hash === "") return { url, createConnection: secure ? connector(url, undefined) : undefined };
  const shown = `${url.protocol}//${url.host}`;
  if (!fingerprintPattern.test(hash))
    throw new ConfigError(`${shown}: behind # stands sha256: and the 43 characters of a fingerprint, got "${hash}"`);
  if (!secure)
    throw new ConfigError(
      `${shown}${hash}: a fingerprint is of a certificate, and ${url.protocol}// has none; write wss://`,
    );
  return { url, createConnection: connector(url, hash.slice(1)) };
}

/** @param pinned what the certificate must have; undefined: the system's authorities decide */
function connector(url: URL, pinned: string | undefined): Connector {
  const shown = url.host;
  return (options, done) => {
    const { host, hostname, port, servername } = options as ClientRequestArgs & ConnectionOptions;
    const name = String(host ?? hostname).replace(/^\[|\]$/g, "");
    const socket = connect({
      host: name,
      port: Number(port),
      servername: servername ?? (isIP(name) ? "" : name),
      ALPNProtocols: ["http/1.1"],
      minVersion: "TLSv1.2",
      // Verified below, by the fingerprint.
      rejectUnauthorized: pinned === undefined,
    });
    // Nobody else watches it before it is given away.
    socket.setTimeout(silenceMs, () => fail(new Error(`silent for ${silenceMs / 1000} s`)));
    const fail = (error: Error) => {
      socket.destroy();
      done(error, socket);
    };
    socket.once("error", (error: NodeJS.ErrnoException) => fail(new TlsRefusal(refusalOf(error, shown) ?? error)));
    socket.once("secureConnect", () => {
      const wrong = pinned === undefined ? undefined : unlike(socket.getPeerCertificate(), pinned, shown);
      if (wrong !== undefined) return fail(new TlsRefusal(new ConfigError(wrong)));
      socket.removeAllListeners("error");
      socket.setTimeout(0);
      done(null, socket);
    });
    return undefined;
  };
}

function unlike(certificate: PeerCertificate, pinned: string, shown: string): string | undefined {
  const came = certificate.raw ? fingerprintOf(certificate.raw) : "none";
  if (came !== pinned)
    return `${shown} shows the certificate ${came}, the address pins ${pinned}: this is another coordinator, or somebody in between; nothing was sent`;
  const now = Date.now();
  if (now > Date.parse(certificate.valid_to)) return `${shown}: its certificate expired on ${certificate.valid_to}`;
  if (now < Date.parse(certificate.valid_from))
    return `${shown}: its certificate is valid from ${certificate.valid_from} on; is this clock right?`;
  return undefined;
}

/** What a TLS failure means to the person who asked; undefined where the connection itself failed. */
function refusalOf({ code = "", message }: NodeJS.ErrnoException, shown: string): ConfigError | undefined {
  const pin = '; the coordinator\'s line "to compute" has the address with its fingerprint';
  const meanings: Record<string, string> = {
    ERR_SSL_WRONG_VERSION_NUMBER: "it does not speak TLS, which was asked for; nothing was sent",
    ERR_SSL_PACKET_LENGTH_TOO_LONG: "it does not speak TLS, which was asked for; nothing was sent",
    EPROTO: "it does not speak TLS, which was asked for; nothing was sent",
    DEPTH_ZERO_SELF_SIGNED_CERT: `nobody has signed its certificate${pin}`,
    SELF_SIGNED_CERT_IN_CHAIN: `its certificate is signed by an authority that this machine does not know${pin}`,
    UNABLE_TO_VERIFY_LEAF_SIGNATURE: `its certificate is signed by an authority that this machine does not know${pin}`,
    UNABLE_TO_GET_ISSUER_CERT_LOCALLY: `its certificate is signed by an authority that this machine does not know${pin}`,
    CERT_HAS_EXPIRED: "its certificate has expired",
    CERT_NOT_YET_VALID: "its certificate is not valid yet; is this clock right?",
    ERR_TLS_CERT_ALTNAME_INVALID: `its certificate is of another name (${message})`,
  };
  const meaning = meanings[code] ?? (code.startsWith("ERR_SSL_") || code.startsWith("ERR_TLS_") ? message : undefined);
  return meaning === undefined ? undefined : new ConfigError(`${shown}: ${meaning}`);
}

/** A connection that TLS has ended; `cause` is the ConfigError, or the system's error. */
export class TlsRefusal extends Error {
  readonly code: string | undefined;
  constructor(cause: Error) {
    super(cause.message, { cause });
    this.code = (cause as NodeJS.ErrnoException).code;
  }
}

/** The refusal for good in an error of a connection. */
export function refusedForGood(error: unknown): ConfigError | undefined {
  const cause = error instanceof Error ? error.cause : undefined;
  return error instanceof ConfigError ? error : cause instanceof ConfigError ? cause : undefined;
}
