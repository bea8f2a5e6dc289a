import { mkdtempSync, writeFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { accessWith, isLoopback, resolveToken } from "../../../coordinator/serve/access.ts";

const token = "0123456789abcdef-token";
const request = (headers: Record<string, string>, method = "GET") =>
  ({ headers, method }) as unknown as IncomingMessage;
const bearer = (text: string) => ({ authorization: `Bearer ${text}` });

test("with a token: the header opens everything, the wrong one nothing", () => {
  const access = accessWith(token);
  expect(access.authorised(request(bearer(token), "POST"))).toBe(true);
  for (const headers of [{}, bearer(""), bearer(`${token}x`), bearer(token.slice(1)), { authorization: token }])
    expect([headers, access.authorised(request(headers as Record<string, string>))]).toEqual([headers, false]);
});

test("the session cookie opens reading only, and is not the token", () => {
  const access = accessWith(token);
  expect(access.login(`${token}x`, false)).toBeUndefined();
  const cookie = access.login(token, true)!;
  expect(cookie).not.toContain(token);
  expect(cookie).toMatch(/HttpOnly; SameSite=Strict; Path=\/; Max-Age=43200; Secure$/);
  const headers = { cookie: `other=1; ${cookie.split(";")[0]}` };
  expect(access.authorised(request(headers))).toBe(true);
  expect(access.authorised(request(headers, "POST"))).toBe(false);
  expect(access.authorised(request({ ...headers, upgrade: "websocket" }))).toBe(false);
  expect(accessWith(`${token}2`).authorised(request(headers))).toBe(false);
});

test("without a token: this machine's programs, but no web page", () => {
  const access = accessWith(undefined);
  for (const host of ["127.0.0.1:7070", "localhost:7070", "[::1]:7070", "127.0.0.1"])
    expect([host, access.authorised(request({ host }))]).toEqual([host, true]);
  for (const host of ["evil.example:7070", "127.evil.example", "", "10.0.0.1:7070"])
    expect([host, access.authorised(request({ host }))]).toEqual([host, false]);
  const host = "127.0.0.1:7070";
  expect(access.authorised(request({ host, origin: `http://${host}` }))).toBe(true);
  expect(access.authorised(request({ host, origin: "https://evil.example" }))).toBe(false);
  expect(access.authorised(request({ host, origin: "null" }))).toBe(false);
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
