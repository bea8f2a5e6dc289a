// Small wires with real processes: the same bits whoever computes, over shared memory, over sockets, and across a
// coordinator that is killed; and the bytes that they promise, as the coordinator counts them.
import { afterEach, expect, test } from "vitest";
import { statusSchema } from "../../coordinator/status.ts";
import { atStep, coordinator, digestOf, killAll, temporary, text, weft } from "./weft.ts";

afterEach(killAll);

const options = (wire: string, steps: number) => [
  ...["--data", text, "--block-size", "16", "--n-layer", "2", "--n-head", "2", "--n-embd", "32", "--wire", wire],
  ...["--batch-size", "16", "--shards", "8", "--warmup-steps", "5", "--steps", String(steps), "--eval-windows", "8"],
  ...["--eval-interval", "0", "--checkpoint-interval", "30"],
];

async function trained(wire: string, steps: number): Promise<string> {
  const out = temporary();
  const run = weft([
    "train",
    ...options(wire, steps),
    "--out",
    out,
    "--port",
    "0",
    "--workers",
    "1",
    "--sample-tokens",
    "0",
  ]);
  expect(await run.ended, run.stderr()).toBe(0);
  return digestOf(out);
}

test("each wire has bits of its own, and keeps them over three workers' sockets and a killed coordinator", async () => {
  const digests = new Set<string>();
  for (const wire of ["bf16", "int8", "int4"]) {
    const out = temporary();
    const flags = [...options(wire, 100), "--no-shared-memory", "--out", out];
    const first = await coordinator(flags);
    for (let i = 0; i < 3; i++) weft(["worker", "--coordinator", first.url, "--threads", "1"]);
    await first.until((line) => line.msg.startsWith("checkpoint ") && (line.step ?? 0) >= 30);
    first.child.kill("SIGKILL");
    await first.ended;
    const second = weft(["coordinator", ...flags, "--resume", "--no-stay", "--port", first.url.split(":").at(-1)!]);
    expect(await second.ended, second.stderr()).toBe(0);
    expect(second.log.some(({ msg }) => msg.startsWith("resuming"))).toBe(true);
    const digest = digestOf(out);
    expect(digest, wire).toBe(await trained(wire, 100));
    digests.add(digest);
  }
  expect(digests.size).toBe(3);
});

test.each([
  ["step", 1, []],
  ["round of local steps", 10, ["--local-steps", "10", "--replicas", "4", "--inner-state", "fresh"]],
] as const)("bf16: two bytes a parameter each way for a %s, within one in twenty", async (_, each, flags) => {
  const run = await coordinator([
    ...[...options("bf16", 300), ...flags],
    ...["--no-shared-memory", "--stay", "--out", temporary()],
  ]);
  weft(["worker", "--coordinator", run.url]);
  const status = async () => statusSchema.parse(await (await fetch(`${run.url.replace("ws", "http")}/status`)).json());
  await run.until(atStep(50));
  const from = await status();
  await run.until((line) => line.msg === "validation");
  const to = await status();
  const steps = to.step - from.step;
  const vector = 2 * to.model.parameters;
  const wanted = (vector * steps) / each;
  const windows = steps * 16 * 17 * 2;
  for (const way of ["bytesIn", "bytesOut"] as const) {
    const moved = to[way] - from[way];
    // One vector for what the step in the middle has moved already.
    const most = 1.05 * wanted + vector + (way === "bytesOut" ? windows : 0);
    expect(moved, `${way} of ${steps} steps, ${wanted} bytes of values`).toBeLessThan(most);
    expect(moved).toBeGreaterThan(wanted - vector);
  }
});
