// Behind a proxy that does not let a coordinator's traffic pass: one line that says what answered and what to set.
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import { Remote } from "../../../cli/remote.ts";
import { ConfigError, Interrupted, messageOf } from "../../../shared/errors.ts";
import { dial, UnreachableError } from "../../../shared/wire/web-socket.ts";

const servers: (() => void)[] = [];
afterEach(() => {
  for (const close of servers.splice(0)) close();
});

/** A proxy that answers everything so. */
async function proxy(status: number, headers: Record<string, string>, body: string): Promise<string> {
  const answer: RequestListener = (_, response) => response.writeHead(status, headers).end(body);
  const server = createServer(answer).on("upgrade", (_, socket) => {
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    socket.end(`HTTP/1.1 ${status} Whatever\r\n${lines.join("")}content-length: ${body.length}\r\n\r\n${body}`);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  servers.push(() => server.close().closeAllConnections());
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const page = (title: string): string =>
  `<html>\n<head><title>${title}</title></head>\n<body>${"<p>text</p>\n".repeat(400)}</body></html>`;
const html = { "content-type": "text/html", server: "nginx/1.22.1" };

async function failure(action: Promise<unknown>): Promise<{ line: string; error: unknown }> {
  const error = await action.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  const line = messageOf(error);
  expect(line).not.toMatch(/[\n\r<]/);
  expect(line.length).toBeLessThan(500);
  return { line, error };
}

const work = (address: string) => failure(dial({ url: `ws://${address}`, token: undefined, timeoutMs: 2000 }));
const ask = (address: string) => failure(new Remote(`http://${address}`, undefined).ask("/status"));

test.each([
  [200, html, page("Weft"), /HTTP 200 "Weft" instead of upgrading: let it pass Upgrade and Connection/],
  [200, {}, "", /HTTP 200 instead of upgrading/],
  [400, html, page("400 Bad Request"), /\(nginx\/1\.22\.1\) answers HTTP 400 .* instead of upgrading/],
  [
    301,
    { ...html, location: "https://weft.example/run/" },
    page("301 Moved"),
    /HTTP 301 "301 Moved" and sends to https:\/\/weft\.example\/run\/; use that address/,
  ],
  [
    401,
    { ...html, "www-authenticate": "Basic" },
    page("401 Authorization Required"),
    /asks for a login of its own: let the header Authorization pass/,
  ],
  [404, html, page("404 Not Found"), /knows no such path/],
  [401, { "content-type": "text/plain" }, "this run needs its token", /answers 401: this run needs its token/],
])("a worker that meets a %i %j ends with one line", async (status, headers, body, expected) => {
  const { line, error } = await work(await proxy(status, headers, body));
  expect(error).toBeInstanceOf(ConfigError);
  expect(line).toMatch(expected);
});

test.each([
  ["is cut", true],
  ["does not end", false],
])("a refusal whose body %s is one all the same", async (_, isCut) => {
  const server = createServer().on("upgrade", (_, socket) => {
    socket.write("HTTP/1.1 503 Busy\r\ncontent-length: 1000\r\n\r\nbusy!", () => isCut && socket.end());
    socket.on("error", () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  servers.push(() => server.close().closeAllConnections());
  const url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const { line, error } = await failure(dial({ url, token: undefined, timeoutMs: isCut ? 10_000 : 300 }));
  expect(error).toBeInstanceOf(UnreachableError);
  expect(line).toMatch(isCut ? /503/ : /timed out/);
});

test.each([502, 503, 504])("a worker tries again after a proxy's %i", async (status) => {
  const { line, error } = await work(await proxy(status, html, page(`${status} Gateway`)));
  expect(error).not.toBeInstanceOf(ConfigError);
  expect(line).toMatch(new RegExp(`HTTP ${status} "${status} Gateway"; it (does not reach|waited)`));
});

test.each([
  [200, html, page("Sign in\u001b]0;x\u0007"), /HTTP 200 "Sign in \]0;x", a web page and no coordinator's answer/],
  [302, { location: "/login" }, "", /HTTP 302 and sends to \/login; use that address/],
  [
    413,
    html,
    page("413 Request Entity Too Large"),
    /limits the size of a body: raise that \(nginx: client_max_body_size 0\)/,
  ],
  [403, html, page("403 Forbidden"), /forbids it/],
  [407, {}, "", /asks for a login of its own/],
])("pull, doctor, sample and status that meet a %i %j end with one line", async (status, headers, body, expected) => {
  const { line, error } = await ask(await proxy(status, headers, body));
  expect(error).toBeInstanceOf(ConfigError);
  expect(line).toMatch(expected);
});

test.each([502, 503, 504])("they try again after a proxy's %i", async (status) => {
  expect((await ask(await proxy(status, html, page("Bad Gateway")))).error).toBeInstanceOf(Interrupted);
});

test("a port that speaks no HTTP", async () => {
  const { createServer: createTcp } = await import("node:net");
  const server = createTcp((socket) => socket.end("\u0015\u0003\u0003\u0000\u0002\u0002\u0032"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  servers.push(() => server.close());
  const { line } = await ask(`127.0.0.1:${(server.address() as AddressInfo).port}`);
  expect(line).toMatch(/what answers there speaks no HTTP; with TLS the address is https:\/\//);
});
