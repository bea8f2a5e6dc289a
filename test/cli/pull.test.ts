import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { type PullOptions, pullCheckpoint } from "../../cli/pull-checkpoint.ts";
import { readCheckpoint } from "../../shared/checkpoint/checkpoint.ts";
import { loadModel } from "../../shared/checkpoint/rundir.ts";
import { type ServedRun, serveRun } from "../coordinator/served-run.ts";

let run: ServedRun;
let out: string;
beforeAll(async () => {
  run = await serveRun();
});
afterAll(() => run[Symbol.asyncDispose]());
beforeEach(() => {
  out = mkdtempSync(join(tmpdir(), "weft-pull-"));
  return () => rmSync(out, { recursive: true });
});

const pull = (changes: Partial<PullOptions> = {}) =>
  pullCheckpoint({ from: run.url, step: "latest", out, parts: "all", wait: async () => {}, ...changes });

/** Names of the files of a folder that differ from the coordinator's own, and of those that are on one side only. */
function differences(pulled: string, original: string): string[] {
  const names = new Set([...readdirSync(pulled), ...readdirSync(original)]);
  const bytes = (folder: string, name: string) =>
    existsSync(join(folder, name)) ? readFileSync(join(folder, name)).toString("latin1") : undefined;
  return [...names].filter((name) => bytes(pulled, name) !== bytes(original, name));
}
const original = (name: string): string => join(run.runDirectory, name);

/** The coordinator behind a proxy that may answer by itself. */
async function proxied(intercept: (request: IncomingMessage, response: ServerResponse) => boolean) {
  const server = createServer((request, response) => {
    if (intercept(request, response)) return;
    const headers = Object.fromEntries(Object.entries(request.headers).filter(([name]) => name !== "host"));
    void fetch(run.url + request.url, { headers: headers as Record<string, string> }).then(async (answer) => {
      response.writeHead(answer.status, { etag: answer.headers.get("etag") ?? "" });
      response.end(Buffer.from(await answer.arrayBuffer()));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

test("a pulled checkpoint is the coordinator's, byte for byte, and opens", async () => {
  const seen: number[] = [];
  const pulled = await pull({ onProgress: (done) => seen.push(done) });
  expect(pulled.directory).toBe(join(out, "step-000200"));
  expect(differences(pulled.directory, original("step-000200"))).toEqual([]);
  const checkpoint = await readCheckpoint(pulled.directory, { optimizer: true });
  expect([checkpoint.state.step, checkpoint.optimizer?.m?.length]).toEqual([200, 512 * 512]);
  expect(seen.at(-1)).toBe(pulled.checkpoint.bytes);
  expect(seen).toEqual([...seen].sort((a, b) => a - b));
  expect(readdirSync(out)).toEqual(["step-000200"]);
});

test("best, a step by its number, and what is not there", async () => {
  expect((await pull({ step: "best" })).checkpoint.step).toBe(100);
  expect((await pull({ step: "200" })).checkpoint.step).toBe(200);
  await expect(pull({ step: "final" })).rejects.toThrow('no checkpoint "final"; there are: 200, 100 (best)');
  await expect(pull({ step: "150" })).rejects.toThrow('no checkpoint "150"; there are: 200, 100 (best)');
});

test("only the model: a folder without what only training needs", async () => {
  const { directory } = await pull({ parts: "model" });
  expect(directory).toBe(join(out, "model-000200"));
  expect(differences(directory, original("step-000200")).sort()).toEqual([
    "manifest.json",
    "optimizer.safetensors",
    "state.json",
  ]);
  const { weights } = await loadModel(directory, () => {});
  expect([weights.length, weights[3]]).toEqual([512 * 512, Math.fround(Math.sin(203))]);
});

test("a second pull checks what is there and fetches nothing", async () => {
  const { directory } = await pull();
  expect((await pull()).bytesReceived).toBe(0);
  const config = join(directory, "config.json");
  writeFileSync(config, readFileSync(config).toString().replace("512", "513"));
  await expect(pull()).rejects.toThrow(/step-000200 exists and is not this checkpoint; .*config.json was changed/);
});

test("an interrupted pull goes on from the byte where it stopped", async () => {
  const file = "optimizer.safetensors";
  const bytes = readFileSync(join(original("step-000200"), file));
  mkdirSync(join(out, ".pulling-step-000200"));
  writeFileSync(join(out, ".pulling-step-000200", file), bytes.subarray(0, 1_500_000));
  const asked: Array<string | undefined> = [];
  await using proxy = await proxied((request) => {
    if (request.url?.endsWith(file)) asked.push(request.headers.range);
    return false;
  });
  const pulled = await pull({ from: proxy.url });
  expect(asked).toEqual(["bytes=1500000-"]);
  expect(differences(pulled.directory, original("step-000200"))).toEqual([]);
  expect(pulled.bytesReceived).toBe(pulled.checkpoint.bytes - 1_500_000);
});

test("what an earlier try left of another checkpoint is fetched anew", async () => {
  mkdirSync(join(out, ".pulling-step-000200"));
  for (const [file, length] of Object.entries({ "model.safetensors": 700_000, "optimizer.safetensors": 9_000_000 }))
    writeFileSync(join(out, ".pulling-step-000200", file), Buffer.alloc(length, 7));
  const { directory } = await pull();
  expect(differences(directory, original("step-000200"))).toEqual([]);
});

test("a server or proxy that knows no ranges sends the file from its first byte", async () => {
  const file = "model.safetensors";
  mkdirSync(join(out, ".pulling-step-000200"));
  writeFileSync(join(out, ".pulling-step-000200", file), Buffer.alloc(5000, 7));
  await using proxy = await proxied((request) => {
    delete request.headers.range;
    return false;
  });
  const { directory } = await pull({ from: proxy.url });
  expect(differences(directory, original("step-000200"))).toEqual([]);
});

test("a connection that breaks again and again still brings the file home", async () => {
  const file = readFileSync(join(original("step-000200"), "model.safetensors"));
  let breaks = 0;
  await using proxy = await proxied((request, response) => {
    if (!request.url?.endsWith("model.safetensors")) return false;
    const start = Number(/bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
    if (start > 900_000) return false;
    breaks++;
    response.writeHead(start === 0 ? 200 : 206, { "content-length": file.length - start });
    response.write(file.subarray(start, start + 100_000), () => response.destroy());
    return true;
  });
  const retries: string[] = [];
  const { directory } = await pull({ from: proxy.url, onRetry: (why) => retries.push(why) });
  expect(differences(directory, original("step-000200"))).toEqual([]);
  // Ten pieces of 100,000 bytes; what was on its way when the connection broke is asked for once more.
  expect(breaks).toBeGreaterThanOrEqual(10);
  expect(retries.length).toBe(breaks);
  expect(retries[0]).toMatch(/^the connection to http.* broke \(/);
});

test("a file that was damaged on the way is refused, and not kept", async () => {
  await using proxy = await proxied((request, response) => {
    if (!request.url?.endsWith("tokenizer.json")) return false;
    response.end("[]\n");
    return true;
  });
  await expect(pull({ from: proxy.url })).rejects.toThrow(/tokenizer.json: its SHA-256 is [0-9a-f]{64}, the manifest/);
  expect(existsSync(join(out, "step-000200"))).toBe(false);
  expect((await pull()).checkpoint.step).toBe(200);
});

/** The list of checkpoints, or a manifest. */
interface Honest {
  readonly files: Record<string, unknown>;
  readonly [index: number]: object;
}

/** A server that means harm: the coordinator's own answers, one of them changed. */
const lying = (path: RegExp, change: (honest: Honest) => unknown) =>
  proxied((request, response) => {
    if (!path.test(request.url ?? "")) return false;
    void fetch(run.url + request.url)
      .then((answer) => answer.json())
      .then((honest) => response.end(JSON.stringify(change(honest as Honest))));
    return true;
  });
const proof = { bytes: 1, sha256: "0".repeat(64) };

test.each([
  "../../../.ssh",
  "step-000200/../../evil",
  "/../../../.ssh",
  "..",
  "",
  "step-000200\u0000",
  "step-000100",
  ".x",
])("a checkpoint that the server calls %j is refused before anything is written", async (name) => {
  await using server = await lying(/checkpoints$/, (list) => [{ ...list[0], name }]);
  for (const parts of ["all", "model"] as const)
    await expect(pull({ from: server.url, parts })).rejects.toThrow(/not the answer of a coordinator of this version/);
  expect(readdirSync(out)).toEqual([]);
});

test.each(["../../evil", "a/b", "/etc/evil", "..", ".hidden", "", "a\u001b]0;x", "x".repeat(300), "manifest.json"])(
  "a manifest that lists the file %j is refused before anything is written",
  async (file) => {
    await using server = await lying(/manifest.json$/, (manifest) => ({ ...manifest, files: { [file]: proof } }));
    await expect(pull({ from: server.url })).rejects.toThrow(/not the answer of a coordinator of this version/);
    expect(readdirSync(out)).toEqual([]);
  },
);

test("a manifest of 2^50 bytes, of another step or of 100,000 files is refused before anything is written", async () => {
  const file = "model.safetensors";
  const cases: Array<[(honest: Honest) => unknown, RegExp]> = [
    [
      (m) => ({ ...m, files: { ...m.files, [file]: { ...proof, bytes: 2 ** 50 } } }),
      /needs 112589\d+\.\d MB more, .* free/,
    ],
    [(m) => ({ ...m, step: 100 }), /the manifest of step-000200 is of step 100/],
    [
      (m) => ({ ...m, files: Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`f${i}`, proof])) }),
      /more than 256 files/,
    ],
  ];
  for (const [change, message] of cases) {
    await using server = await lying(/manifest.json$/, change);
    await expect(pull({ from: server.url })).rejects.toThrow(message);
    expect(readdirSync(out)).toEqual([]);
  }
});

test("each way of not getting through has its own sentence", async () => {
  await using locked = await serveRun({ token: "0123456789abcdef", steps: [] });
  const gone = await proxied(() => false);
  await gone[Symbol.asyncDispose]();
  await using empty = await serveRun({ steps: [] });
  await using other = await proxied((_, response) => {
    response.end("<html>");
    return true;
  });
  const cases: Array<[string, Partial<PullOptions>, RegExp]> = [
    ["no address", { from: "coordinator" }, /"coordinator" is not the address of a coordinator, such as/],
    ["nobody there", { from: gone.url }, /cannot be reached \(ECONNREFUSED\); is the coordinator running/],
    ["no token", { from: locked.url }, /refused: this run needs its token.*; set WEFT_TOKEN or --token-file/],
    ["wrong token", { from: locked.url, token: "f".repeat(16) }, /refused: this run needs its token/],
    ["nothing yet", { from: empty.url }, /has no checkpoint yet; try again when the run has written one/],
    ["another server", { from: other.url }, /checkpoints is not the answer of a coordinator of this version/],
  ];
  for (const [what, options, message] of cases) await expect(pull(options), what).rejects.toThrow(message);
});

test("ws:// names the same coordinator", async () => {
  expect((await pull({ from: run.url.replace("http", "ws") })).checkpoint.step).toBe(200);
});
