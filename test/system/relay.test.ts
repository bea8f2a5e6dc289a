// Relays as real processes: two of them above one another, of which the lower is killed; its workers go on where they were
// told to, and the bits are those of one worker.
import { afterEach, expect, test } from "vitest";
import type { RelayStatus } from "../../coordinator/serve/relay-pages.ts";
import { statusSchema } from "../../coordinator/status.ts";
import { coordinator, digestOf, killAll, ledgerOf, temporary, text, weft } from "./weft.ts";

afterEach(killAll);

const options = [
  ...["--data", text, "--block-size", "16", "--n-layer", "2", "--n-head", "2", "--n-embd", "32", "--wire", "bf16"],
  ...["--batch-size", "16", "--shards", "8", "--warmup-steps", "5", "--steps", "300", "--eval-windows", "40"],
  ...["--eval-interval", "0", "--checkpoint-interval", "0"],
];

async function relay(name: string, above: readonly string[]) {
  const where = above.flatMap((url) => ["--coordinator", url]);
  const run = weft(["relay", "--port", "0", "--threads", "1", "--name", name, ...where]);
  const { msg } = await run.until((line) => line.msg.startsWith("listening on "));
  return { ...run, url: `ws://${/listening on (\S+): relay/.exec(msg)![1]}` };
}

test("a relay below a relay is killed, and its workers go on with the one above", async () => {
  const flags = [...options, "--steps", "600"];
  const out = temporary();
  const run = await coordinator([...flags, "--out", out]);
  const upper = await relay("upper", [run.url]);
  const lower = await relay("lower", [upper.url, run.url]);
  const below = (name: string) =>
    weft([
      ...["worker", "--threads", "1", "--name", name],
      ...["--coordinator", lower.url, "--coordinator", upper.url, "--coordinator", run.url],
    ]);
  const [first, second] = [below("first"), below("second")];
  const joined = (relayed: typeof lower, name: string) =>
    relayed.until((line) => line.msg.startsWith(`worker ${name} joined`));
  await Promise.all([joined(lower, "first"), joined(lower, "second"), joined(upper, "lower")]);
  const status = async (url: string): Promise<unknown> => (await fetch(`${url.replace("ws", "http")}/status`)).json();
  const devices = async () => statusSchema.parse(await status(run.url)).workers.map(({ id, device }) => [id, device]);
  await expect.poll(devices).toEqual([["upper", expect.stringMatching(/^relay: 1 worker, relay: 2 workers, /)]]);
  const speeds = async () =>
    ((await status(lower.url)) as RelayStatus).workers.map(({ id, tokensPerSec }) => [id, (tokensPerSec ?? 0) > 0]);
  await expect
    .poll(async () => (await speeds()).sort())
    .toEqual([
      ["first", true],
      ["second", true],
    ]);
  const page = await (await fetch(lower.url.replace("ws", "http"))).text();
  expect(page).toMatch(
    /^relay of run \S+, weights of step \d+\n\nworker +state +tokens.s +shards +device\n(first|second) +contributing/,
  );
  lower.child.kill("SIGKILL");
  await Promise.all([joined(upper, "first"), joined(upper, "second")]);
  expect(await run.ended, run.stderr()).toBe(0);
  expect([await upper.ended, await first.ended, await second.ended]).toEqual([0, 0, 0]);
  const helpers = new Set(ledgerOf(out).flatMap(({ parts }) => parts.map(({ worker }) => worker)));
  expect(helpers).toEqual(new Set(["upper"]));

  expect(digestOf(out)).toBe(await alone(flags));
});

test("rounds of local steps, their moments and a small wire, below a relay", async () => {
  // Of several frames each: what goes down and up does so chunk by chunk.
  const shape = ["--n-layer", "1", "--n-embd", "256", "--batch-size", "8"];
  const flags = [...options, ...shape, "--local-steps", "10", "--replicas", "4", "--wire", "int8", "--steps", "25"];
  const out = temporary();
  const run = await coordinator([...flags, "--out", out]);
  const above = await relay("above", [run.url]);
  for (const name of ["first", "second"])
    weft(["worker", "--threads", "1", "--name", name, "--coordinator", above.url]);
  expect(await run.ended, run.stderr()).toBe(0);
  expect(digestOf(out)).toBe(await alone(flags));
});

/** The digest of one worker that shares the coordinator's memory. */
async function alone(flags: readonly string[]): Promise<string> {
  const out = temporary();
  const train = weft(["train", ...flags, "--out", out, "--port", "0", "--workers", "1", "--sample-tokens", "0"]);
  expect(await train.ended, train.stderr()).toBe(0);
  return digestOf(out);
}
