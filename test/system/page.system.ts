// The page in the real Chromium with runs that no machine here could make in a test's time: 64 workers, 100,000 steps,
// workers that left, a coordinator that goes and comes back, runs beside it.
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import type { Server } from "node:http";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pino from "pino";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { History } from "../../coordinator/history.ts";
import { Journal } from "../../coordinator/journal.ts";
import { Metrics } from "../../coordinator/metrics.ts";
import { EarlierRuns, writePast } from "../../coordinator/past.ts";
import { accessWith } from "../../coordinator/serve/access.ts";
import { createHttpServer } from "../../coordinator/serve/http.ts";
import { CheckpointShelf } from "../../coordinator/shelf.ts";
import type { RunStatus } from "../../coordinator/status.ts";
import { resolveOptions } from "../../shared/resolve.ts";
import { fakeStatus, fakeWorker } from "../coordinator/fake-run.ts";
import { writeStep } from "../coordinator/served-run.ts";
import { openBrowser, picture } from "./browser.ts";

const folder = mkdtempSync(join(tmpdir(), "weft-page-"));
const out = join(folder, "shakespeare-cpu");
const steps = 100_000;
const noise = (i: number): number => Math.sin(i * 12.9898) * 0.5 + Math.sin(i * 78.233) * 0.5;

/** A curve like a real one. @param slower more is a worse run */
function curve(last: number, slower: number): History {
  const history = new History();
  for (let step = 1; step <= last; step++) {
    const lossNats =
      1.35 + 2.9 * Math.exp(-step / (last / 9) / slower) + 0.4 * Math.exp(-step / last / slower) + 0.05 * noise(step);
    const learningRate = 1e-3 * (step < 2000 ? step / 2000 : 0.55 + 0.45 * Math.cos((Math.PI * step) / steps));
    const gradientNorm = 0.4 + 0.6 * Math.exp(-step / 9000) + 0.1 * Math.abs(noise(step * 3));
    const tokensPerSec = 41_000 + 900 * noise(step * 7);
    history.addStep({
      step,
      tokens: 768 * step,
      seconds: step / 53,
      lossNats,
      gradientNorm,
      learningRate,
      tokensPerSec,
    });
    if (step % 5000 === 0)
      history.addValidation({ step, tokens: 768 * step, seconds: step / 53, valLossNats: lossNats + 0.05 });
  }
  return history;
}

let status: RunStatus;
let history: History;
let journal: Journal;
let server: Server;
let browser: Browser;
const asked: string[] = [];
const shelf = new CheckpointShelf(out);
const options = resolveOptions({ preset: "shakespeare-cpu", flags: { steps, out } }).options;
const about = {
  options,
  changed: ["blockSize", "nLayer", "nHead", "nEmbd", "bias", "activation", "steps", "learningRate"],
  data: {
    ...{ name: "tinyshakespeare.txt", tokenizer: "char", vocabulary: 65 },
    ...{ trainTokens: 1_003_854, validationTokens: 111_540, sha256: "0".repeat(64) },
  },
};

async function listen(port: number): Promise<Server> {
  const run = {
    ...{ status: () => status, metrics: new Metrics(() => status), about: () => about, shelf },
    get history() {
      return history;
    },
    get journal() {
      return journal;
    },
    earlier: new EarlierRuns(out),
    checkpointSoon: () => void asked.push("checkpoint"),
    stop: (reason: string) => void asked.push(reason),
  };
  const made = createHttpServer({
    run,
    access: accessWith(undefined),
    maxConnections: 64,
    onError: (error) => {
      throw error;
    },
  });
  made.listen(port, "127.0.0.1");
  await once(made, "listening");
  return made;
}

const gone = {
  ...{ id: "node-07-gpu3", host: "10.0.0.7", device: "NVIDIA H100 (CUDA 12.4)", shardsDone: 9120 },
  ...{ at: new Date(Date.now() - 300_000).toISOString(), why: "silent for 30 s" },
};

function running(workers: number, changes: Partial<RunStatus> = {}): RunStatus {
  const speed = 41_000;
  const weight = (i: number): number => 1 + 0.2 * noise(i + 1);
  const total = Array.from({ length: workers }, (_, i) => weight(i)).reduce((a, b) => a + b, 0);
  return fakeStatus({
    ...{ step: 61_250, steps, tokens: 61_250 * 768, tokensPerSec: speed, etaSeconds: 731, lossNats: 1.4821 },
    ...{ valLossNats: 1.5312, bestValLossNats: 1.5312, checkpoints: shelf.list(Date.now()), gone: [gone] },
    workers: Array.from({ length: workers }, (_, i) =>
      fakeWorker(`node-${String(i >> 3).padStart(2, "0")}-gpu${i & 7}`, {
        ...{ host: `10.0.0.${i >> 3}`, device: "AVX-512, 2 threads", step: 61_250, shardsDone: 3000 + 17 * i },
        ...{ tokensPerSec: (speed * weight(i)) / total, connectedSeconds: 4000 - i },
      }),
    ),
    ...changes,
  });
}

beforeAll(async () => {
  mkdirSync(out);
  for (const step of [40_000, 60_000]) await writeStep(out, step, 1.5 + 1 / step);
  await shelf.refresh(() => {});
  history = curve(61_250, 1);
  journal = new Journal(pino({ level: "silent" }));
  journal.keep("started", "training from step 0 to 100000");
  for (const i of [0, 1, 2]) journal.tell("joined", `worker node-00-gpu${i} joined: AVX-512, 2 threads`);
  journal.tell("joined", "worker node-07-gpu3 joined: NVIDIA H100 (CUDA 12.4)");
  journal.warn(
    "refused",
    'worker laptop refused: this run computes with "native avx512 float32", it with "native avx2 float32"',
  );
  journal.tell("late", "hedging 40:0-3: 812 ms overdue at node-07-gpu3");
  journal.tell("left", "worker node-07-gpu3 gone: silent for 30 s");
  journal.keep("evaluation", "validation loss 1.5312 after step 60000");
  journal.tell("checkpoint", `checkpoint runs/shakespeare-cpu/step-060000`);
  status = running(3);
  for (const [name, slower] of [
    ["wider", 1.3],
    ["no-warmup", 0.8],
  ] as const) {
    mkdirSync(join(folder, name));
    const about = {
      model: "gpt2: 4 layers, 4 heads, 256 wide, block 64, vocabulary 65",
      steps: 50_000,
      tokensPerStep: 768,
    };
    await writePast(join(folder, name), { ...about, options: {}, ...curve(50_000, slower).curves() });
  }
  server = await listen(0);
  browser = await openBrowser();
}, 120_000);

afterAll(async () => {
  await browser?.close();
  server?.closeAllConnections();
  server?.close();
  rmSync(folder, { recursive: true });
});

const complaints: string[] = [];

/** A page that keeps what the console complains of. @param expected of which this page may complain */
async function open({ path = "/", expected = /^$/ } = {}): Promise<Page> {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type()) && !expected.test(message.text()))
      complaints.push(message.text());
  });
  const { port } = server.address() as AddressInfo;
  await page.goto(path.startsWith("http") ? path : `http://127.0.0.1:${port}${path}`);
  await page.locator("#plot canvas").waitFor();
  return page;
}

const number = (text: string | null): number => Number(text!.replaceAll(",", ""));

test("three workers: their speeds add up to the run's, who left says why, events have times", async () => {
  await using page = await open();
  const speeds = await page.locator('#workers td[data-label="tokens / s"]').allTextContents();
  const sum = speeds.filter((text) => text !== "–").reduce((total, text) => total + number(text), 0);
  expect(Math.abs(sum - number(await page.textContent("#tokensPerSec")))).toBeLessThanOrEqual(3);
  expect(await page.textContent("#workers tr.away")).toContain("silent for 30 s");
  expect(await page.textContent("#workersNote")).toBe("3 connected, 1 left");
  const kinds = await page.locator("#events .badge").allTextContents();
  expect(kinds.slice(0, 4)).toEqual(["checkpoint", "evaluation", "left", "late"]);
  expect(await page.textContent("#about")).toContain("tinyshakespeare.txt");
  await picture(page, "page-3-workers", true);
});

test("who is in quarantine, why, since when, and what lets it in again; a run without has no such card", async () => {
  await using page = await open();
  expect(await page.isVisible("#quarantineCard")).toBe(false);
  const why = "gave another answer for 0-3 of step 12 than node-00-gpu0 and node-00-gpu1 gave alike";
  const since = { step: 11, at: new Date().toISOString() };
  status = running(3, {
    quarantined: [
      { names: ["node-09", "node-09-2"], address: "10.0.0.9", why, ...since },
      { names: ["it's <b>me</b>"], address: null, why: "lied", ...since },
    ],
  });
  await page.locator("#quarantine tbody tr").first().waitFor();
  const [first, second] = await page.locator("#quarantine tbody tr").allTextContents();
  for (const part of ["node-09", "node-09-2", "10.0.0.9", why, "step 11", "--resume --allow node-09"])
    expect(first).toContain(part);
  expect(second).toContain(`--resume --allow 'it'\\''s <b>me</b>'`);
  await picture(page, "page-quarantine", true);
  status = running(3);
});

test("a run that goes back behind a liar's answers takes its curves with it, before its next step", async () => {
  status = running(3);
  history = curve(61_250, 1);
  await using page = await open();
  const end = () => page.evaluate<number>("weftPlots()[0].scales.x.max");
  await expect.poll(end).toBeGreaterThan(61_000);
  history = History.from(history.curves(), 40_000);
  journal.warn("quarantined", "back from step 61250 to step 40000: it lied", { step: 40_000 });
  await expect.poll(end).toBeLessThanOrEqual(40_000);
  expect(await page.textContent("#state")).toBe("training");
});

test("64 workers and 100,000 steps are on the screen in 2 s and 100 MB", async () => {
  history = curve(steps, 1);
  status = running(64, { step: steps, tokens: steps * 768 });
  await using page = await open();
  const started = performance.now();
  await page.reload();
  await page.locator("#plot canvas").waitFor();
  await page.waitForFunction("document.querySelectorAll('#workers tbody tr').length > 10");
  const seconds = (performance.now() - started) / 1000;
  await page.click("#workersMore");
  expect(await page.locator("#workers tbody tr").count()).toBe(65);
  await page.waitForTimeout(2500);
  const session = await page.context().newCDPSession(page);
  await session.send("HeapProfiler.collectGarbage");
  const megabytes = (await page.evaluate<number>("performance.memory.usedJSHeapSize")) / 1e6;
  console.log(`64 workers, 100,000 steps: ${seconds.toFixed(2)} s, ${megabytes.toFixed(1)} MB`);
  expect(seconds).toBeLessThan(2);
  expect(megabytes).toBeLessThan(100);
  await picture(page, "page-64-workers", true);
});

test("the curves: from the first step to the current one, zoom and reset, log axis, tokens and time", async () => {
  status = running(3);
  history = curve(61_250, 1);
  await using page = await open();
  const range = () => page.evaluate<[number, number]>("[weftPlots()[0].scales.x.min, weftPlots()[0].scales.x.max]");
  expect(await range()).toEqual([1, 61_250]);
  const box = (await page.locator("#plot .u-over").boundingBox())!;
  await page.mouse.move(box.x + box.width * 0.5, box.y + 100);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.75, box.y + 100, { steps: 5 });
  await page.mouse.up();
  const [from, to] = await range();
  expect([Math.round(from / 1000), Math.round(to / 1000)]).toEqual([31, 46]);
  await page.waitForTimeout(1500); // two polls: the view stays
  expect(await range()).toEqual([from, to]);
  expect(await page.evaluate("weftPlots().map((plot) => plot.scales.x.min)")).toEqual([from, from, from, from]);
  await page.mouse.move(box.x + box.width * 0.5, box.y + 100);
  const tip = await page.textContent("#plot .tip");
  const step = number(/step ([\d,]+)/.exec(tip!)![1]!);
  const { train } = history.curves();
  expect(tip).toContain(`loss ${train.lossNats[train.step.indexOf(step)]!.toFixed(4)}`);
  await page.click("#resetZoom");
  expect(await range()).toEqual([1, 61_250]);
  await page.click('[data-x="tokens"]');
  expect(await range()).toEqual([768, 61_250 * 768]);
  await page.click('[data-x="seconds"]');
  expect((await range())[1]).toBeCloseTo(61_250 / 53, 6);
  await page.check("#logarithmic");
  expect(await page.evaluate("weftPlots()[0].scales.y.distr")).toBe(3);
  await picture(page, "page-log-axis");
  await page.uncheck("#logarithmic");
  await page.click('[data-x="step"]');
  expect(complaints).toEqual([]);
});

test("two runs of the same folder beside this one", async () => {
  await using page = await open();
  await page.click("#compare summary");
  expect(await page.locator("#compareList label").count()).toBe(2);
  await page.check("#compareList label:nth-child(1) input");
  await page.check("#compareList label:nth-child(2) input");
  await page.locator('#legend :text("wider")').waitFor();
  await page.click("h1");
  expect(await page.evaluate("weftPlots()[0].series.length")).toBe(1 + 3 + 4);
  const box = (await page.locator("#plot .u-over").boundingBox())!;
  await page.mouse.move(box.x + box.width * 0.4, box.y + 60);
  expect(await page.textContent("#plot .tip")).toMatch(/no-warmup \d\.\d{4}\nwider \d\.\d{4}$/);
  await picture(page, "page-compared", true);
});

test("a coordinator that is lost is said to be, and the page goes on when it is back", async () => {
  await using page = await open({ expected: /^Failed to load resource: net::ERR_/ });
  const { port } = server.address() as AddressInfo;
  server.closeAllConnections();
  server.close();
  await once(server, "close");
  await page.locator('#state:text-is("no answer")').waitFor();
  await picture(page, "page-lost-coordinator");
  expect(await page.textContent("#notice")).toMatch(/does not answer/);
  status = running(3, {
    run: { name: "shakespeare-cpu", id: "another", startedAt: new Date().toISOString() },
    step: 40_000,
  });
  history = History.from(history.curves(), 40_000);
  server = await listen(port);
  await page.locator('#state:text-is("training")').waitFor();
  expect(await page.isVisible("#notice")).toBe(false);
  await page.waitForFunction("weftPlots()[0].scales.x.max <= 40000");
});

test("the buttons ask, the files come, and everything works under a proxy's path", async () => {
  const { port } = server.address() as AddressInfo;
  // declared before the page and so closed after it: a page without its server complains
  await using proxy = createServer((from, to) => {
    const path = from.url!.replace(/^\/runs\/a/, "");
    const on = request({ port, path, method: from.method, headers: from.headers }, (answer) => {
      to.writeHead(answer.statusCode!, answer.headers);
      answer.pipe(to);
    });
    from.pipe(on);
  }).listen(0, "127.0.0.1");
  await once(proxy, "listening");
  await using page = await open({ path: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}/runs/a/` });
  await page.click("#checkpointNow");
  await page.locator("#said:not([hidden])").waitFor();
  page.once("dialog", (dialog) => void dialog.accept());
  await page.click("#stopRun");
  await page.locator('#said:text("The run stops.")').waitFor();
  expect(asked).toEqual(["checkpoint", "asked for on the page"]);
  const csv = await Promise.all([page.waitForEvent("download"), page.click("#csv")]).then(([download]) => download);
  expect(csv.suggestedFilename()).toBe("shakespeare-cpu.csv");
  await page.locator("#checkpoints button").first().click();
  const link = page.locator("#checkpoints a", { hasText: "model.safetensors" }).first();
  const file = await Promise.all([page.waitForEvent("download"), link.click()]).then(([download]) => download);
  expect(await file.failure()).toBeNull();
  expect(await page.textContent("#pull")).toMatch(/^weft pull --from http:\/\/127\.0\.0\.1:\d+\/runs\/a --step /);
  await page.click("#copyPull");
  await page.locator('#copyPull:text-matches("Copied|Selected")').waitFor();
});

test("nothing scrolls sideways on a phone, with 64 workers neither", async () => {
  status = running(64);
  await using page = await open();
  await page.setViewportSize({ width: 360, height: 740 });
  await page.click("#workersMore");
  await page.waitForTimeout(300);
  expect(await page.evaluate("document.documentElement.scrollWidth")).toBe(360);
});

test("no complaint in the console", () => {
  expect(complaints).toEqual([]);
});
