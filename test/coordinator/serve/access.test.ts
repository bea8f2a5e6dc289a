import { mkdtempSync, writeFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { accessWith, isLoopback, resolveToken, tokenToShow, viewTokenOf } from "../../../coordinator/serve/access.ts";

const token = "0123456789abcdef-token";
const request = (headers: Record<string, string>, method = "GET") =>
  ({ headers, method }) as unknown as IncomingMessage;
const bearer = (text: string) => ({ authorization: `Bearer ${text}` });

test("with a token: the header opens everything, the wrong one nothing", async () => {
  const access = accessWith(token);
  expect(await access.rightOf(request(bearer(token), "POST"))).toBe("work");
  for (const headers of [{}, bearer(""), bearer(`${token}x`), bearer(token.slice(1)), { authorization: token }])
    expect([headers, await access.rightOf(request(headers as Record<string, string>))]).toEqual([headers, undefined]);
});

test("the session cookie opens reading and our own page's buttons, and is not the token", async () => {
  const access = accessWith(token);
  expect(await access.login("a", `${token}x`, false)).toBeUndefined();
  const cookie = (await access.login("a", token, true))!;
  expect(cookie).not.toContain(token);
  expect(cookie).toMatch(/HttpOnly; SameSite=Strict; Path=\/; Max-Age=43200; Secure$/);
  const headers = { cookie: `other=1; ${cookie.split(";")[0]}` };
  expect(await access.rightOf(request(headers))).toBe("view");
  expect(await access.rightOf(request(headers, "POST"))).toBeUndefined();
  const host = "host-a:7070";
  const from = (more: Record<string, string>, to = access) =>
    to.rightOf(request({ ...headers, host, ...more }, "POST"));
  expect(await from({ origin: `http://${host}` })).toBe("work");
  expect(await from({ origin: `https://${host}` })).toBe("work");
  for (const origin of ["http://evil.example", "null"]) expect(await from({ origin })).toBeUndefined();
  // A proxy may give us another Host than the browser's; the browser's own word for it goes first.
  expect(await from({ origin: "https://proxy.example", "sec-fetch-site": "same-origin" })).toBe("work");
  for (const site of ["same-site", "cross-site", "none"])
    expect(await from({ origin: `http://${host}`, "sec-fetch-site": site })).toBeUndefined();
  // A viewer's session sees, and asks nothing of the run.
  expect(await from({ origin: `http://${host}` }, accessWith(`${token}-of-workers`, token))).toBe("view");
  expect(await access.rightOf(request({ ...headers, upgrade: "websocket" }))).toBeUndefined();
  expect(await accessWith(`${token}2`).rightOf(request(headers))).toBeUndefined();
});

test("without a token: this machine's programs, but no web page", async () => {
  const access = accessWith(undefined);
  for (const host of ["127.0.0.1:7070", "localhost:7070", "[::1]:7070", "127.0.0.1"])
    expect([host, await access.rightOf(request({ host }))]).toEqual([host, "work"]);
  for (const host of ["evil.example:7070", "127.evil.example", "", "10.0.0.1:7070"])
    expect([host, await access.rightOf(request({ host }))]).toEqual([host, undefined]);
  const host = "127.0.0.1:7070";
  expect(await access.rightOf(request({ host, origin: `http://${host}` }))).toBe("work");
  expect(await access.rightOf(request({ host, origin: "https://evil.example" }))).toBeUndefined();
  expect(await access.rightOf(request({ host, origin: "null" }))).toBeUndefined();
});

test("where the token comes from", async () => {
  const file = join(mkdtempSync(join(tmpdir(), "weft-token-")), "token");
  writeFileSync(file, `${token}\n`);
  expect(await resolveToken("127.0.0.1", "", {})).toBeUndefined();
  expect(await resolveToken("0.0.0.0", file, { WEFT_TOKEN: "f".repeat(20) })).toEqual({ text: token, source: "file" });
  expect(await resolveToken("127.0.0.1", "", { WEFT_TOKEN: token })).toEqual({ text: token, source: "WEFT_TOKEN" });
  const made = await resolveToken("0.0.0.0", "", {});
  expect(made?.source).toBe("generated");
  expect(made?.text).toMatch(/^[\w-]{43}$/);
  await expect(resolveToken("0.0.0.0", `${file}.no`, {})).rejects.toThrow(/cannot be read \(ENOENT\)/);
  await expect(resolveToken("::", "", { WEFT_TOKEN: "short" })).rejects.toThrow("has 5 characters, at least 16");
  await expect(resolveToken("::", "", { WEFT_TOKEN: "with a space in between" })).rejects.toThrow(/spaces/);
});

test("loopback is this machine only", () => {
  for (const host of ["127.0.0.1", "127.8.0.1", "localhost", "::1", "[::1]"]) expect(isLoopback(host)).toBe(true);
  for (const host of ["0.0.0.0", "::", "10.0.0.1", "127.0.0.1.example", ""]) expect(isLoopback(host)).toBe(false);
});

test("viewers have a token of their own: it reads, and never works", async () => {
  const view = "viewers-0123456789";
  const access = accessWith(token, view);
  expect(await access.rightOf(request(bearer(view)))).toBe("view");
  expect(await access.rightOf(request(bearer(token)))).toBe("work");
  const cookie = (await access.login("a", view, false))!;
  expect(cookie).not.toContain(view);
  expect(await access.rightOf(request({ cookie: cookie.split(";")[0]! }))).toBe("view");
  const run = { text: token, source: "WEFT_TOKEN" } as const;
  expect(viewTokenOf({ WEFT_VIEW_TOKEN: view }, run)).toBe(view);
  expect(() => viewTokenOf({ WEFT_VIEW_TOKEN: token }, run)).toThrow("is the token of workers");
  expect(() => viewTokenOf({ WEFT_VIEW_TOKEN: view }, undefined)).toThrow("set WEFT_TOKEN or --token-file as well");
  expect(() => viewTokenOf({ WEFT_VIEW_TOKEN: "short" }, run)).toThrow("has 5 characters");
  expect(await tokenToShow("", { WEFT_VIEW_TOKEN: view })).toBe(view);
  expect(await tokenToShow("", { WEFT_VIEW_TOKEN: view, WEFT_TOKEN: token })).toBe(token);
});

test("twenty wrong tokens from one address: no more are looked at from there, and others come in", async () => {
  const access = accessWith(token);
  const from = (remoteAddress: string, text: string) =>
    ({ headers: bearer(text), method: "GET", socket: { remoteAddress } }) as unknown as IncomingMessage;
  for (let i = 0; i < 20; i++) expect(await access.rightOf(from("10.0.0.1", `${token}${i}`))).toBeUndefined();
  expect(await access.rightOf(from("10.0.0.1", token))).toBe("later");
  expect(await access.login("10.0.0.1", token, false)).toBe("later");
  expect(await access.rightOf(from("10.0.0.2", token))).toBe("work");
  // Nobody is slowed down for what he did not show.
  for (let i = 0; i < 40; i++) await access.rightOf(request({}));
  expect(await access.rightOf(request(bearer(token)))).toBe("work");
});
