// TLS: who asked for it never goes on without, nothing is sent before the certificate is the right one, and what goes
// over the wire says nothing to who listens.
import { mkdtempSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer as createHttp } from "node:http";
import { createServer as createHttps } from "node:https";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pino from "pino";
import { afterAll, expect, test } from "vitest";
import { z } from "zod";
import { Remote } from "../../../cli/remote.ts";
import { accessWith } from "../../../coordinator/serve/access.ts";
import type { RelayStatus } from "../../../coordinator/serve/relay-pages.ts";
import { serve } from "../../../coordinator/serve/server.ts";
import { certificateOf } from "../../../coordinator/serve/tls.ts";
import { parseAddress } from "../../../shared/wire/address.ts";
import type { Pipe } from "../../../shared/wire/pipe.ts";
import { dial } from "../../../shared/wire/web-socket.ts";
import { digestOf, killAll, text, weft } from "../../system/weft.ts";

afterAll(killAll);
const directory = mkdtempSync(join(tmpdir(), "weft-tls-"));
const options = (changes = {}) => ({
  tls: "self-signed" as const,
  tlsCert: "",
  tlsKey: "",
  out: directory,
  host: "127.0.0.1",
  ...changes,
});
const token = "a-token-of-the-run-0123456789";

/** Listens on a free port. */
async function listening(server: Server) {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    at: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      (server as Partial<{ closeAllConnections(): void }>).closeAllConnections?.();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A server with a certificate that remembers what it was sent. */
async function secured(certificate: { cert: string; key: string }) {
  const asked: (string | undefined)[] = [];
  const server = createHttps({ ...certificate }, (request, response) => {
    asked.push(request.headers.authorization);
    response.end("{}");
  });
  server.on("upgrade", (request, socket) => {
    asked.push(request.headers.authorization);
    socket.end("HTTP/1.1 503 no\r\nContent-Length: 0\r\n\r\n");
  });
  return Object.assign(await listening(server), { asked });
}

/** What both kinds of client say. */
async function refusals(address: string): Promise<string[]> {
  const http = new Remote(address, token).json("/status", z.object({})).then(() => "let in", String);
  const worker = dial({ url: address, token, timeoutMs: 5000 }).then(() => "let in", String);
  return await Promise.all([http, worker]);
}

test("a certificate of our own: kept beside the run for its owner alone, the same at the next start", async () => {
  const made = (await certificateOf(options()))!;
  expect(made.fingerprint).toMatch(/^sha256:[\w-]{43}$/);
  expect(statSync(join(directory, "tls-key.pem")).mode & 0o777).toBe(0o600);
  expect(await certificateOf(options())).toEqual(made);
  expect(await certificateOf(options({ tls: "off" }))).toBeUndefined();
});

test("the right fingerprint opens; another, an expired one, none at all: refused before the token is sent", async () => {
  const good = (await certificateOf(options()))!;
  const other = (await certificateOf(options({ out: join(directory, "other") })))!;
  await using server = await secured(good);
  expect(await new Remote(`wss://${server.at}#${good.fingerprint}`, token).json("/status", z.object({}))).toEqual({});
  expect(server.asked.splice(0)).toEqual([`Bearer ${token}`]);
  for (const said of await refusals(`wss://${server.at}#${other.fingerprint}`))
    expect(said).toMatch(
      /ConfigError: (worker: )?127.*shows the certificate sha256:.*the address pins sha256:.*nothing was sent/,
    );
  for (const said of await refusals(`wss://${server.at}`))
    expect(said).toMatch(/ConfigError: (worker: )?127.*nobody has signed its certificate/);
  expect(server.asked).toEqual([]);
  const old = (await certificateOf(options({ out: join(directory, "old") }), new Date("2001-01-01")))!;
  await using expired = await secured(old);
  for (const said of await refusals(`wss://${expired.at}#${old.fingerprint}`))
    expect(said).toMatch(/its certificate expired on /);
  expect(expired.asked).toEqual([]);
});

test("a downgrade: wss:// asks no plain server, a fingerprint needs wss://, plain text gets nothing out of a TLS port", async () => {
  const asked: unknown[] = [];
  await using plain = await listening(
    createHttp((request, response) => {
      asked.push(request.headers);
      response.end("{}");
    }),
  );
  const { fingerprint, ...certificate } = (await certificateOf(options()))!;
  for (const address of [`wss://${plain.at}#${fingerprint}`, `https://${plain.at}`])
    for (const said of await refusals(address))
      expect(said).toMatch(/it does not speak TLS, which was asked for; nothing was sent/);
  expect(asked).toEqual([]);
  expect(() => parseAddress(`ws://${plain.at}#${fingerprint}`)).toThrow(
    "a fingerprint is of a certificate, and ws:// has none",
  );
  expect(() => parseAddress(`wss://${plain.at}#sha256:short`)).toThrow("behind # stands sha256: and the 43 characters");
  await using server = await secured(certificate);
  for (const said of await refusals(`ws://${server.at}`)) expect(said).toMatch(/cannot be reached|hang up|ECONNRESET/);
  expect(server.asked).toEqual([]);
});

test("certificates that cannot be used are named at the start", async () => {
  const [cert, key] = [join(directory, "tls-cert.pem"), join(directory, "tls-key.pem")];
  await certificateOf(options());
  await certificateOf(options({ out: join(directory, "second") }));
  await certificateOf(options({ out: join(directory, "past") }), new Date("2001-01-01"));
  const files = { tls: "off" as const, tlsCert: cert, tlsKey: key };
  expect((await certificateOf(options(files)))?.cert).toBe(readFileSync(cert, "utf8"));
  const broken = join(directory, "broken.pem");
  writeFileSync(broken, "-----BEGIN CERTIFICATE-----\nnonsense\n");
  for (const [changes, message] of [
    [{ tlsKey: "" }, /belong together; give both/],
    [{ tls: "self-signed" }, /leave out --tls-cert and --tls-key/],
    [{ tlsKey: join(directory, "second", "tls-key.pem") }, /is the certificate of another key/],
    [{ tlsCert: broken }, /are not what TLS needs, PEM/],
    [{ tlsCert: `${cert}.no` }, /--tls-cert .* cannot be read \(ENOENT\)/],
    [
      { tlsCert: join(directory, "past", "tls-cert.pem"), tlsKey: join(directory, "past", "tls-key.pem") },
      /expired on Jan/,
    ],
  ] as const)
    await expect(certificateOf(options({ ...files, ...changes })), String(message)).rejects.toThrow(message);
});

test("an address whose handshakes fail is not listened to for a minute; one from which a worker joined still is", async () => {
  const certificate = (await certificateOf(options()))!;
  const said: string[] = [];
  const log = pino({}, { write: (line) => void said.push(JSON.parse(line).msg) });
  const admit = (pipe: Pipe) => pipe.listen({ message() {}, ping() {}, pong() {}, closed() {} });
  const limits = { host: "127.0.0.1", port: 0, maxWorkers: 8, access: accessWith(token), certificate, log };
  const join = (at: string) =>
    dial({ url: `wss://${at}#${certificate.fingerprint}`, token, timeoutMs: 5000 }).then((pipe) => {
      pipe.terminate();
      return "joined";
    }, String);
  /** Begins with something else than TLS, so many times. */
  const fail = async (at: string, times: number) => {
    for (let i = 0; i < times; i++)
      await new Promise((resolve) => {
        const socket = connect(Number(at.split(":")[1]), "127.0.0.1", () => socket.write(Buffer.alloc(64, 1)));
        socket
          .on("error", () => {})
          .on("close", resolve)
          .resume();
      });
  };
  const relay = { relayStatus: () => ({}) as RelayStatus };
  const stranger = await serve({ admit }, relay, limits);
  await fail(stranger.address, 20);
  expect(await join(stranger.address)).toMatch(/UnreachableError|Error: .*(ECONNRESET|disconnected)/);
  expect(said).toEqual(["20 TLS handshakes from there failed: its connections are closed for a minute"]);
  await stranger.close();
  const known = await serve({ admit }, relay, limits);
  await fail(known.address, 19);
  expect(await join(known.address)).toBe("joined");
  await fail(known.address, 30);
  expect(await join(known.address)).toBe("joined");
  expect(said).toHaveLength(1);
  await known.close();
});

test("a whole run over TLS: a worker, a pull and a page by the ready line's address; who listens reads nothing", async () => {
  const out = join(directory, "run");
  const small = ["--data", text, "--family", "bigram", "--block-size", "8", "--steps", "20", "--eval-windows", "4"];
  const environment = { WEFT_TOKEN: token };
  const plainRun = weft([
    "train",
    ...small,
    "--port",
    "0",
    "--workers",
    "1",
    "--sample-tokens",
    "0",
    "--out",
    join(directory, "plain"),
  ]);
  expect(await plainRun.ended, plainRun.stderr()).toBe(0);
  const coordinator = weft(
    ["coordinator", ...small, "--port", "0", "--tls", "self-signed", "--no-shared-memory", "--out", out],
    environment,
  );
  await coordinator.until(({ msg }) => msg.startsWith("listening on "));
  while (!/to compute: /.test(coordinator.stderr())) await new Promise((resolve) => setTimeout(resolve, 20));
  const [, port, fingerprint] = /--coordinator wss:\/\/127\.0\.0\.1:(\d+)#(sha256:[\w-]{43})\n/.exec(
    coordinator.stderr(),
  )!;
  const wire: Buffer[] = [];
  await using proxy = await listening(
    createServer((socket) => {
      const target = connect(Number(port), "127.0.0.1");
      for (const [from, to] of [
        [socket, target],
        [target, socket],
      ] as const)
        from
          .on("data", (data: Buffer) => wire.push(data))
          .on("error", () => to.destroy())
          .on("close", () => to.destroy())
          .pipe(to);
    }),
  );
  const address = `wss://${proxy.at}#${fingerprint}`;
  const worker = weft(["worker", "--coordinator", address], environment);
  await coordinator.until(({ msg }) => msg.startsWith("still serving"));
  expect(await worker.ended, worker.stderr()).toBe(0);
  expect(digestOf(out)).toBe(digestOf(join(directory, "plain")));
  const viewer = weft(["pull", "--from", address, "--out", join(directory, "pulled")], environment);
  expect(await viewer.ended, viewer.stderr()).toBe(0);
  const wrong = weft(["worker", "--coordinator", `wss://${proxy.at}#sha256:${"A".repeat(43)}`], environment);
  expect(await wrong.ended).toBe(1);
  expect(wrong.stderr()).toMatch(/shows the certificate sha256:/);
  coordinator.child.kill("SIGTERM");
  await coordinator.ended;
  const bytes = Buffer.concat(wire);
  expect(bytes.length).toBeGreaterThan(100_000);
  for (const secret of [token, "Bearer", "welcome", "weft.v1", "step-000020", "arithmetic", "safetensors"])
    expect([secret, bytes.includes(secret)]).toEqual([secret, false]);
  for (const said of [coordinator.stderr(), worker.stderr(), viewer.stderr()]) expect(said).not.toContain(token);
});
