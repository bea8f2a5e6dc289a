import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Curves } from "../../../coordinator/history.ts";
import { writePast } from "../../../coordinator/past.ts";
import { parseRange } from "../../../coordinator/serve/download.ts";
import { statusSchema } from "../../../coordinator/status.ts";
import { fakeStatus } from "../fake-run.ts";
import { type ServedRun, serveRun, writeStep } from "../served-run.ts";

const token = "a token of the run".replaceAll(" ", "-");
let open: ServedRun;
let closed: ServedRun;

beforeAll(async () => {
  open = await serveRun();
  closed = await serveRun({ token, steps: [] });
});
afterAll(async () => {
  await open[Symbol.asyncDispose]();
  await closed[Symbol.asyncDispose]();
});

/** One request exactly as written, without the tidying of paths and headers that fetch does. */
async function raw(url: string, path: string, method = "GET", headers: Record<string, string> = {}) {
  const { port } = new URL(url);
  return await new Promise<{ status: number; body: string; headers: NodeJS.Dict<string | string[]> }>(
    (resolve, reject) => {
      const sent = httpRequest({ port, host: "127.0.0.1", path, method, headers }, (answer) => {
        let body = "";
        answer.setEncoding("latin1").on("data", (chunk) => {
          body += chunk;
        });
        answer.on("end", () => resolve({ status: answer.statusCode!, body, headers: answer.headers }));
      });
      sent.on("error", reject).end();
    },
  );
}

test("the pages of a run", async () => {
  const status = statusSchema.parse(await (await fetch(`${open.url}/status`)).json());
  expect(status).toEqual(open.status);
  const metrics = await fetch(`${open.url}/metrics`);
  expect(metrics.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
  expect(await metrics.text()).toContain("\nweft_loss_nats 2.34375\n");
  const history = (await (await fetch(`${open.url}/history`)).json()) as Curves;
  expect([history.train.step.length, history.validation]).toEqual([
    250,
    { step: [250], tokens: [192_000], seconds: [5], valLossNats: [2.4140625] },
  ]);
  const page = await fetch(`${open.url}/`);
  expect(page.headers.get("content-type")).toBe("text/html; charset=utf-8");
  expect(await page.text()).toMatch(/^<!doctype html>/);
});

test("health is 503 with the reason once nothing happens any more", async () => {
  const asked = await fetch(`${open.url}/healthz`);
  expect([asked.status, await asked.text()]).toEqual([200, expect.stringContaining("training: step 250 of 2000")]);
  open.status = fakeStatus({ idleSeconds: 100 });
  const stalled = await fetch(`${open.url}/healthz`);
  open.status = fakeStatus();
  expect([stalled.status, await stalled.text()]).toEqual([503, expect.stringMatching(/^100.0 s since it last/)]);
});

test("the page is made of its own files, and nothing else may run on it", async () => {
  const page = await fetch(`${closed.url}/`);
  const policy = page.headers.get("content-security-policy")!;
  expect(policy).toMatch(/^default-src 'none'; script-src 'self'; style-src 'self'; /);
  expect(policy).not.toMatch(/unsafe|\*|data:/);
  const html = await page.text();
  // No script, style or handler in the markup: the policy would not run it.
  expect(html).not.toMatch(/<style|style=|\son\w+=|<script(?![^>]* src=)/);
  const named = [...html.matchAll(/(?:src|href)="(assets\/[^"]+)"/g)].map(([, name]) => name!);
  const found = new Set(named);
  for (const name of named) {
    const file = await fetch(`${closed.url}/${name}`);
    expect([name, file.status, file.headers.get("content-security-policy")]).toEqual([name, 200, policy]);
    for (const [, more] of (await file.text()).matchAll(/^import [^"]*"\.\/([\w.]+)";$/gm)) {
      found.add(`assets/${more}`);
      if (!named.includes(`assets/${more}`)) named.push(`assets/${more}`);
    }
  }
  expect([...found].sort()).toEqual(
    ["charts.js", "format.js", "icon.svg", "main.js", "style.css", "tables.js", "uplot.css", "uplot.js"].map(
      (name) => `assets/${name}`,
    ),
  );
  for (const foreign of ["assets/../http.ts", "assets/%2e%2e/page.ts", "assets/page.ts", "assets/main.js/x"])
    expect([foreign, (await fetch(`${closed.url}/${foreign}`)).status]).toEqual([foreign, 401]);
});

test("curves since a step, events since a number, the table for a spreadsheet", async () => {
  const get = (path: string) => fetch(`${open.url}/${path}`);
  const part = (await (await get("history?after=248")).json()) as Curves;
  expect([part.train.step, part.validation.step]).toEqual([[249, 250], [250]]);
  expect((await get("history?after=x")).status).toBe(400);
  expect(await (await get("events")).json()).toMatchObject([{ number: 1, kind: "joined", worker: "a-1" }]);
  expect(await (await get("events?after=1")).json()).toEqual([]);
  const lines = (await (await get("history.csv")).text()).trimEnd().split("\n");
  expect(lines[0]).toBe(
    "step,tokens,seconds,loss_nats,validation_loss_nats,gradient_norm,learning_rate,tokens_per_second",
  );
  expect([lines.length, lines.at(-1)]).toEqual([251, `250,192000,5,${4.17 / 2.25},2.4140625,1,0.001,40000`]);
});

test("the runs beside this one, by their names alone", async () => {
  const beside = join(open.runDirectory, "..", `beside-${process.pid}`);
  mkdirSync(beside);
  const past = { model: "gpt2", steps: 10, tokensPerStep: 8, options: {}, stride: 1, samples: [] };
  const train = {
    step: [5],
    tokens: [50],
    seconds: [1],
    lossNats: [2],
    gradientNorm: [1],
    learningRate: [1],
    tokensPerSec: [1],
  };
  const validation = { step: [5], tokens: [50], seconds: [1], valLossNats: [2.5] };
  await writePast(beside, { ...past, train, validation });
  const name = `beside-${process.pid}`;
  const runs = (await (await fetch(`${open.url}/runs`)).json()) as { name: string }[];
  expect(runs.find((run) => run.name === name)).toMatchObject({ step: 5, steps: 10, bestValLossNats: 2.5 });
  expect(await (await fetch(`${open.url}/runs/${name}`)).json()).toMatchObject({ train });
  // As earlier versions wrote it, of a run that never changed its batch.
  const [{ tokens: _, ...old }, { tokens: __, ...oldValidation }] = [train, validation];
  await writePast(beside, { ...past, train: old, validation: oldValidation } as never);
  expect(await (await fetch(`${open.url}/runs/${name}`)).json()).toMatchObject({
    train: { ...train, tokens: [40] },
    validation: { ...validation, tokens: [40] },
  });
  for (const other of ["nobody", "%2e%2e%2f", encodeURIComponent(beside), "%"])
    expect([other, (await fetch(`${open.url}/runs/${other}`)).status]).not.toEqual([other, 200]);
  rmSync(beside, { recursive: true });
});

test("what the page asks of the run: only by POST, only with the token, never from another page", async () => {
  const post = (path: string, headers: Record<string, string> = {}) =>
    fetch(`${closed.url}/${path}`, { method: "POST", headers });
  expect((await fetch(`${open.url}/actions/stop`)).status).toBe(405);
  expect((await post("actions/stop")).status).toBe(401);
  const login = await fetch(`${closed.url}/login`, { method: "POST", body: token });
  const cookie = login.headers.get("set-cookie")!.split(";")[0]!;
  for (const foreign of [{}, { origin: "https://evil.example" }, { origin: "null" }])
    expect([foreign, (await post("actions/stop", { cookie, ...foreign })).status]).toEqual([foreign, 401]);
  expect(closed.asked).toEqual([]);
  expect((await post("actions/checkpoint", { cookie, origin: closed.url })).status).toBe(200);
  expect((await post("actions/stop", { authorization: `Bearer ${token}` })).status).toBe(200);
  expect((await post("actions/else", { authorization: `Bearer ${token}` })).status).toBe(404);
  expect(closed.asked).toEqual(["checkpoint", "asked for on the page"]);
});

test("every answer carries the security headers", async () => {
  for (const path of ["/", "/status", "/healthz", "/nothing", "/checkpoints"]) {
    const { headers } = await fetch(`${open.url}${path}`);
    expect([path, headers.get("x-content-type-options")]).toEqual([path, "nosniff"]);
    expect([path, headers.get("content-security-policy")]).toEqual([
      path,
      expect.stringContaining("default-src 'none'"),
    ]);
    expect([path, headers.get("access-control-allow-origin")]).toEqual([path, null]);
  }
});

test("refusals say why", async () => {
  const cases: Array<[string, string, number, string]> = [
    ["GET", "/statu", 404, "nothing at /statu"],
    ["GET", "/status/x", 404, "nothing at /status/x"],
    ["DELETE", "/status", 405, "DELETE is not possible on /status, GET is"],
    ["GET", "/login", 405, "GET is not possible on /login, POST is"],
    [
      "GET",
      "/checkpoints/step-000300/config.json",
      404,
      "no checkpoint step-000300; there are: step-000200, step-000100",
    ],
    ["GET", "/checkpoints/step-000200/weights.bin", 404, "step-000200 has config.json, model.safetensors, "],
    ["GET", "/link?bytes=999999999", 400, "bytes must be a whole number up to 67108864"],
    ["GET", "/link?bytes=-1", 400, "bytes must be a whole number up to 67108864"],
    ["POST", "/link", 411, "a body needs its Content-Length"],
  ];
  for (const [method, path, status, why] of cases) {
    const headers: Record<string, string> = path === "/link" ? { "transfer-encoding": "chunked" } : {};
    const answer = await raw(open.url, path, method, headers);
    expect([method, path, answer.status, answer.body]).toEqual([method, path, status, expect.stringContaining(why)]);
  }
  expect((await raw(open.url, "/status", "PUT")).headers.allow).toBe("GET, HEAD");
});

test("no path leads out of a checkpoint's manifest", async () => {
  const paths = [
    "/checkpoints/../markers.json/x",
    "/checkpoints/step-000200/../markers.json",
    "/checkpoints/step-000200/..%2fmarkers.json",
    "/checkpoints/step-000200/%2e%2e%2fmarkers.json",
    "/checkpoints/step-000200/..\\markers.json",
    "/checkpoints/..%2f..%2fetc/passwd",
    "/checkpoints//etc/passwd",
    "/checkpoints/step-000200/__proto__",
    "/checkpoints/step-000200/constructor",
    "/checkpoints/step-000200/state.json%00",
    "/checkpoints/.unfinished-step-000300/state.json",
    "//etc/passwd",
    "http://[/status",
  ];
  for (const path of paths) {
    const { status, body } = await raw(open.url, path);
    expect([path, [400, 404].includes(status), body.includes("root:")]).toEqual([path, true, false]);
  }
  expect(open.errors).toEqual([]);
});

test("the token opens the run, /healthz and the empty page need none", async () => {
  for (const path of ["/status", "/metrics", "/history", "/checkpoints", "/link"]) {
    const refused = await fetch(`${closed.url}${path}`);
    expect([path, refused.status, refused.headers.get("www-authenticate")]).toEqual([path, 401, "Bearer"]);
    const opened = await fetch(`${closed.url}${path}`, { headers: { authorization: `Bearer ${token}` } });
    expect([path, opened.status]).toEqual([path, 200]);
  }
  expect((await fetch(`${closed.url}/status?token=${token}`)).status).toBe(401);
  for (const path of ["/", "/healthz"]) expect((await fetch(`${closed.url}${path}`)).status).toBe(200);
});

test("a browser logs in once and reads from then on", async () => {
  const login = (body: string) => fetch(`${closed.url}/login`, { method: "POST", body });
  expect((await login("wrong")).status).toBe(401);
  expect((await login("x".repeat(5000))).status).toBe(413);
  const answer = await login(token);
  const cookie = answer.headers.get("set-cookie")!.split(";")[0]!;
  expect([answer.status, cookie.includes(token)]).toEqual([204, false]);
  expect((await fetch(`${closed.url}/status`, { headers: { cookie } })).status).toBe(200);
  expect((await fetch(`${closed.url}/link`, { headers: { cookie }, method: "POST", body: "x" })).status).toBe(401);
});

test("a web page elsewhere cannot read a run on loopback", async () => {
  const foreign = await raw(open.url, "/status", "GET", { host: "rebound.example:7070" });
  expect([foreign.status, foreign.body]).toEqual([403, expect.stringContaining("its own machine")]);
  expect((await raw(open.url, "/status", "GET", { origin: "https://evil.example" })).status).toBe(403);
});

const model = "/checkpoints/step-000200/model.safetensors";

test("checkpoints are listed with what is known of them, newest first", async () => {
  const list = (await (await fetch(`${open.url}/checkpoints`)).json()) as Array<Record<string, unknown>>;
  const { sha256 } = open.shelf.find("step-000200")!.manifest.files["model.safetensors"]!;
  expect(list.map(({ name, valLossNats, best, final }) => [name, valLossNats, best, final])).toEqual([
    ["step-000200", 2.2, false, false],
    ["step-000100", 2.1, true, false],
  ]);
  expect(list[0]!.sha256).toBe(sha256);
  const manifest = (await (await fetch(`${open.url}/checkpoints/step-000200/manifest.json`)).json()) as object;
  expect(manifest).toEqual(open.shelf.find("step-000200")!.manifest);
});

test("a file: whole, in ranges that join to the same bytes, or not at all when it is known", async () => {
  const onDisk = readFileSync(join(open.runDirectory, "step-000200/model.safetensors"));
  const whole = await fetch(`${open.url}${model}`);
  const etag = whole.headers.get("etag")!;
  expect(etag).toBe(`"${createHash("sha256").update(onDisk).digest("hex")}"`);
  expect(onDisk.equals(Buffer.from(await whole.arrayBuffer()))).toBe(true);

  const ranges = ["bytes=0-0", "bytes=1-699999", "bytes=700000-"];
  const parts: Buffer[] = [];
  for (const range of ranges) {
    const part = await fetch(`${open.url}${model}`, { headers: { range, "if-range": etag } });
    expect([range, part.status]).toEqual([range, 206]);
    parts.push(Buffer.from(await part.arrayBuffer()));
  }
  expect(Buffer.concat(parts).equals(onDisk)).toBe(true);

  const get = async (headers: Record<string, string>, method = "GET") => await raw(open.url, model, method, headers);
  expect((await get({ range: "bytes=5-", "if-range": '"other"' })).status).toBe(200);
  expect((await get({ "if-none-match": etag })).status).toBe(304);
  const past = await get({ range: `bytes=${onDisk.length}-` });
  expect([past.status, past.headers["content-range"]]).toEqual([416, `bytes */${onDisk.length}`]);
  const head = await get({}, "HEAD");
  expect([head.status, head.headers["content-length"], head.body]).toEqual([200, String(onDisk.length), ""]);
});

test("ranges as RFC 9110 counts them", () => {
  const cases: Array<[string | undefined, ReturnType<typeof parseRange>]> = [
    [undefined, undefined],
    ["bytes=0-9", { start: 0, end: 10 }],
    ["bytes=90-500", { start: 90, end: 100 }],
    ["bytes=-10", { start: 90, end: 100 }],
    ["bytes=-500", { start: 0, end: 100 }],
    ["bytes=99-", { start: 99, end: 100 }],
    ["bytes=100-", "unsatisfiable"],
    ["bytes=-0", "unsatisfiable"],
    ["bytes=9-0", undefined],
    ["bytes=0-1,5-6", undefined],
    ["items=0-1", undefined],
    ["bytes=-", undefined],
    ["bytes=0x1-", undefined],
  ];
  for (const [header, range] of cases) expect([header, parseRange(header, 100)]).toEqual([header, range]);
});

test("a checkpoint that was removed or written anew", async () => {
  await using run = await serveRun({ steps: [100, 200] });
  rmSync(join(run.runDirectory, "step-000100"), { recursive: true });
  const gone = await fetch(`${run.url}/checkpoints/step-000100/config.json`);
  expect([gone.status, await gone.text()]).toEqual([404, expect.stringContaining("was removed meanwhile")]);
  await writeStep(run.runDirectory, 200, 1.5);
  await run.shelf.refresh(() => {});
  expect(run.shelf.list(0).map(({ name, valLossNats }) => [name, valLossNats])).toEqual([["step-000200", 1.5]]);
  rmSync(join(run.runDirectory, "step-000200/config.json"));
  const skipped: string[] = [];
  const fresh = new (run.shelf.constructor as new (directory: string) => typeof run.shelf)(run.runDirectory);
  await fresh.refresh((why) => skipped.push(why));
  expect([fresh.list(0), skipped]).toEqual([[], [expect.stringContaining("config.json is in the manifest but")]]);
});

test("a reader that hangs up in the middle disturbs nobody", async () => {
  const socket = connect(Number(new URL(open.url).port), "127.0.0.1");
  socket.write(`GET ${model} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`);
  await new Promise((resolve) => socket.once("data", resolve));
  socket.destroy();
  expect((await fetch(`${open.url}${model}`)).status).toBe(200);
  expect(open.errors).toEqual([]);
});

test("the link test moves exactly the bytes that were asked for", async () => {
  const down = await fetch(`${open.url}/link?bytes=3000000`);
  expect((await down.arrayBuffer()).byteLength).toBe(3_000_000);
  const up = await fetch(`${open.url}/link`, { method: "POST", body: new Uint8Array(2_000_000) });
  expect(await up.json()).toEqual({ bytes: 2_000_000, seconds: expect.any(Number) });
  const tooLong = await raw(open.url, "/link", "POST", { "content-length": "999999999" });
  expect([tooLong.status, tooLong.headers.connection]).toEqual([413, "close"]);
});
