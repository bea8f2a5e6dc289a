// The certificate that the port shows: the user's, or one of our own that lies beside the run, so that a coordinator
// that comes back is the same one to those who know its fingerprint.
import { createPrivateKey, webcrypto, X509Certificate } from "node:crypto";
import { readFile, rm, writeFile } from "node:fs/promises";
import { isIP } from "node:net";
import { hostname } from "node:os";
import { join } from "node:path";
import { createSecureContext } from "node:tls";
import type { Options } from "../../shared/config.ts";
import { makeFolder, onDisk } from "../../shared/disk.ts";
import { ConfigError, messageOf } from "../../shared/errors.ts";
import { isAbsent } from "../../shared/json.ts";
import { fingerprintOf } from "../../shared/wire/address.ts";

export interface Certificate {
  /** PEM. */
  readonly cert: string;
  readonly key: string;
  /** What clients pin; undefined where an authority has signed it. */
  readonly fingerprint: string | undefined;
}

/** In the run's folder. Prometheus and browsers take the certificate as their authority; the key is the coordinator's. */
export const certificateName = "tls-cert.pem";
const keyName = "tls-key.pem";
const validYears = 10;

/**
 * @returns undefined where TLS was not asked for
 * @throws ConfigError for files that cannot be read, do not belong together, or have expired
 */
export async function certificateOf(
  { tls, tlsCert, tlsKey, out, host }: Pick<Options, "tls" | "tlsCert" | "tlsKey" | "out" | "host">,
  now = new Date(),
): Promise<Certificate | undefined> {
  if (tlsCert === "" && tlsKey === "") return tls === "self-signed" ? await ownCertificate(out, host, now) : undefined;
  if (tls === "self-signed")
    throw new ConfigError("config: --tls self-signed makes a certificate; leave out --tls-cert and --tls-key");
  if (tlsCert === "" || tlsKey === "")
    throw new ConfigError("config: --tls-cert and --tls-key belong together; give both");
  const cert = await onDisk(`config: --tls-cert ${tlsCert}`, "read", () => readFile(tlsCert, "utf8"));
  const key = await onDisk(`config: --tls-key ${tlsKey}`, "read", () => readFile(tlsKey, "utf8"));
  return checked(cert, key, `--tls-cert ${tlsCert}`, now);
}

function checked(cert: string, key: string, what: string, now: Date): Certificate {
  let parsed: X509Certificate;
  let fits: boolean;
  try {
    parsed = new X509Certificate(cert);
    fits = parsed.checkPrivateKey(createPrivateKey(key));
    if (fits) createSecureContext({ cert, key });
  } catch (error) {
    throw new ConfigError(
      `config: ${what} and its key are not what TLS needs, PEM without a passphrase: ${messageOf(error)}`,
    );
  }
  if (!fits) throw new ConfigError(`config: ${what} is the certificate of another key`);
  if (now > new Date(parsed.validTo)) throw new ConfigError(`config: ${what} expired on ${parsed.validTo}; renew it`);
  const isOwn = parsed.checkIssued(parsed);
  return { cert, key, fingerprint: isOwn ? fingerprintOf(parsed.raw) : undefined };
}

async function ownCertificate(out: string, host: string, now: Date): Promise<Certificate> {
  const [certPath, keyPath] = [join(out, certificateName), join(out, keyName)];
  const read = async (path: string): Promise<string | undefined> =>
    await onDisk(path, "read", () => readFile(path, "utf8")).catch((error) => {
      if (isAbsent(error)) return undefined;
      throw error;
    });
  const [cert, key] = [await read(certPath), await read(keyPath)];
  if (cert !== undefined && key !== undefined) {
    try {
      return checked(cert, key, certPath, now);
    } catch (error) {
      throw new ConfigError(`${messageOf(error)}; remove ${certPath} for a new one, with another fingerprint`);
    }
  }
  const made = await makeCertificate(host, now);
  await makeFolder(out);
  for (const path of [certPath, keyPath]) await onDisk(path, "written", () => rm(path, { force: true }));
  await onDisk(keyPath, "written", () => writeFile(keyPath, made.key, { mode: 0o600, flag: "wx", flush: true }));
  await onDisk(certPath, "written", () => writeFile(certPath, made.cert, { mode: 0o600, flag: "wx", flush: true }));
  return checked(made.cert, made.key, certPath, now);
}

async function makeCertificate(host: string, now: Date): Promise<{ cert: string; key: string }> {
  // Only who asks for it pays for loading it.
  await import("reflect-metadata");
  const x509 = await import("@peculiar/x509");
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const until = new Date(now);
  until.setFullYear(now.getFullYear() + validYears);
  const names = [...new Set(["localhost", hostname(), host])].filter(
    (name) => /^[A-Za-z0-9.-]+$/.test(name) && !isAddress(name),
  );
  const addresses = [...new Set(["127.0.0.1", "::1", host])].filter(
    (name) => isAddress(name) && !["0.0.0.0", "::"].includes(name),
  );
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    {
      name: "CN=weft coordinator",
      notBefore: new Date(now.getTime() - 3_600_000), // clocks of workers differ
      notAfter: until,
      signingAlgorithm: algorithm,
      keys,
      extensions: [
        new x509.SubjectAlternativeNameExtension([
          ...names.map((value) => ({ type: "dns" as const, value })),
          ...addresses.map((value) => ({ type: "ip" as const, value })),
        ]),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      ],
    },
    webcrypto as unknown as Parameters<typeof x509.X509CertificateGenerator.createSelfSigned>[1],
  );
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey));
  const key = createPrivateKey({ key: pkcs8, format: "der", type: "pkcs8" }).export({ type: "pkcs8", format: "pem" });
  return { cert: `${certificate.toString("pem")}\n`, key: String(key) };
}

const isAddress = (name: string): boolean => isIP(name) !== 0;
