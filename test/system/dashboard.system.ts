// The dashboard of a real run in the real Chromium: it opens with the token, shows what /status says, and is quiet.
import type { Browser, Page, Response } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Curves } from "../../coordinator/history.ts";
import { type RunStatus, statusSchema } from "../../coordinator/status.ts";
import { openBrowser, picture } from "./browser.ts";
import { type RealRun, startRun, token } from "./real-run.ts";

let run: RealRun;
let browser: Browser;
let page: Page;
const complaints: string[] = [];
const foreign: string[] = [];
/** The last /status that the page was given. */
let given: RunStatus;
/** Answers that are being read: none may be when the browser closes. */
const reading: Promise<void>[] = [];

beforeAll(async () => {
  run = await startRun(400);
  browser = await openBrowser();
  page = await browser.newPage({ viewport: { width: 1240, height: 1320 } });
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    // 401 is how the page learns that a token is wanted, and that it was given a wrong one.
    const isLocked = message.text().includes("status of 401") && /\/(status|login)$/.test(message.location().url);
    if (["error", "warning"].includes(message.type()) && !isLocked) complaints.push(message.text());
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(`http://${run.address}/`) && !request.url().startsWith("data:"))
      foreign.push(request.url());
  });
  const read = async (response: Response): Promise<void> => {
    given = statusSchema.parse(await response.json());
  };
  page.on("response", (response) => {
    if (response.ok() && response.url().endsWith("/status")) reading.push(read(response));
  });
});

afterAll(async () => {
  page?.removeAllListeners("response");
  await Promise.all(reading);
  await browser?.close();
  await run?.[Symbol.asyncDispose]();
});

const text = async (id: string): Promise<string> => (await page.textContent(`#${id}`))?.trim() ?? "";

test("a wrong token is refused with a sentence, the right one opens the page", async () => {
  await page.goto(`http://${run.address}/`);
  await page.fill("#token", "not-the-token-of-this-run");
  await page.click("#login button");
  await page.waitForSelector("#loginError:not(:empty)");
  expect(await text("loginError")).toBe("this is not the run's token");
  await page.fill("#token", token);
  await page.click("#login button");
  await page.waitForSelector("#content:not([hidden])");
  expect(await page.isVisible("#login")).toBe(false);
  expect(await page.context().cookies()).toMatchObject([{ httpOnly: true, sameSite: "Strict" }]);
});

test("it says what the run waits for, moves while it computes, and shows both workers", async () => {
  expect([await text("state"), await text("notice")]).toEqual([
    "waiting",
    `Waiting: ${(await run.status()).waitingFor}`,
  ]);
  run.begin();
  const step = async (): Promise<number> => Number(/Step (\d+) of/.exec(await text("step"))?.[1]);
  const before = await step();
  while ((await step()) <= before) await page.waitForTimeout(100);
  await page.locator("#workers tbody tr").nth(1).waitFor();
  await run.until(({ step, steps }) => step > steps / 2);
  await page.waitForTimeout(1100);
  await picture(page, "dashboard-running");
});

test("every number on the page is the one that /status gave", async () => {
  await run.until(({ state }) => state === "finished");
  await page.waitForSelector('#state:text-is("finished")');
  await page.locator("#checkpoints .badge.final").waitFor(); // written beside the end of the training
  const status = await run.status();
  expect(given.lossNats).toBe(status.lossNats);
  const fixed = (x: number | null, digits: number) => x!.toFixed(digits);
  expect({
    run: await text("runName"),
    step: await text("step"),
    eta: await text("eta"),
    loss: await text("lossNats"),
    validation: await text("valLossNats"),
    speed: await text("tokensPerSec"),
    norm: await text("gradientNorm"),
    rate: await text("learningRate"),
    tokens: await text("tokens"),
    title: await page.title(),
  }).toEqual({
    run: status.run.name,
    step: `Step ${status.step} of ${status.steps}`,
    eta: "done",
    loss: fixed(status.lossNats, 4),
    validation: fixed(status.valLossNats, 4),
    speed: Math.round(given.tokensPerSec!).toLocaleString("en"),
    norm: fixed(status.gradientNorm, 3),
    rate: status.learningRate!.toExponential(2),
    tokens: status.tokens.toLocaleString("en"),
    title: `${status.step}/${status.steps} ${fixed(status.lossNats, 3)} · ${status.run.name}`,
  });
  const cells = (table: string) =>
    page.$$eval(`#${table} tbody tr`, (rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent)));
  const shown = await cells("checkpoints");
  expect(shown.map(([name, step, loss]) => [name?.replace(/(best|final)/g, ""), step, loss])).toEqual(
    status.checkpoints.map(({ name, step, valLossNats }) => [name, String(step), fixed(valLossNats, 4)]),
  );
  expect(shown.map(([name]) => name?.includes("best"))).toEqual(status.checkpoints.map(({ best }) => best));
  const total = Object.values(given.phaseSeconds).reduce((sum, seconds) => sum + seconds, 0);
  const parts = await page.$$eval("#parts > div", (rows) => rows.map((row) => row.querySelector("span")?.textContent));
  expect(parts).toEqual(Object.values(given.phaseSeconds).map((x) => `${((100 * x) / total).toFixed(0)} %`));
  await picture(page, "dashboard-finished");
});

test("the loss curve goes from the first step to the current one, and dark mode draws it anew", async () => {
  const box = (await page.locator("#plot .u-over").boundingBox())!;
  await page.mouse.move(box.x + box.width - 2, box.y + 80);
  const tip = (await page.textContent("#plot .tip"))!;
  const { train } = (await (await run.get("/history")).json()) as Curves;
  const step = Number(/^step (\d+),/.exec(tip)?.[1]);
  expect(tip).toContain(`loss ${train.lossNats[train.step.indexOf(step)]!.toFixed(4)}`);
  expect(await page.evaluate("[weftPlots()[0].scales.x.min, weftPlots()[0].scales.x.max]")).toEqual([1, run.steps]);
  const background = () => page.evaluate<string>("getComputedStyle(document.body).backgroundColor");
  await page.emulateMedia({ colorScheme: "dark" });
  expect(await background()).toBe("rgb(14, 17, 22)");
  await page.emulateMedia({ colorScheme: "light" });
  expect(await background()).toBe("rgb(245, 246, 248)");
});

test("the events are the run's: workers, evaluations, checkpoints", async () => {
  await page.click("#eventsMore");
  const kinds = await page.locator("#events .badge").allTextContents();
  const count = (kind: string) => kinds.filter((found) => found === kind).length;
  expect([count("started"), count("joined"), count("evaluation"), count("ended")]).toEqual([1, 2, 5, 1]);
  expect(count("checkpoint")).toBeGreaterThanOrEqual(5);
});

test("nothing scrolls sideways on a phone", async () => {
  await page.setViewportSize({ width: 360, height: 740 });
  expect(await page.evaluate("document.documentElement.scrollWidth")).toBe(360);
  await picture(page, "dashboard-phone");
});

test("no complaint in the console, and no request to anybody else", () => {
  expect(complaints).toEqual([]);
  expect(foreign).toEqual([]);
});
