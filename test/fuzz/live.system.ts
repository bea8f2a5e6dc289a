// Hostile peers against a live run of real processes: mutated messages and frames of workers that have the token, HTTP
// requests of anybody, thousands of idle connections, headers and bodies that come a byte at a time. The run goes on as if
// they were not there: no crash, steps without a gap, memory flat, the honest digest.
// FUZZ_MESSAGES and FUZZ_REQUESTS make it longer: npm run fuzz:live.
import { readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { WebSocket } from "ws";
import { statusSchema } from "../../coordinator/status.ts";
import { PhiloxStream } from "../../shared/arithmetic/philox.ts";
import { bytesOf, framesOf } from "../../shared/wire/frame.ts";
import { encodeMessage, protocolVersion, subprotocol } from "../../shared/wire/protocol.ts";
import { killAll, ledgerOf, temporary, text, weft } from "../system/weft.ts";

const messages = Number(process.env.FUZZ_MESSAGES ?? 3_000);
const requests = Number(process.env.FUZZ_REQUESTS ?? 1_000);
const token = "the-token-of-the-fuzzed-run";
const folder = temporary();
const out = join(folder, "run");
const model = [
  "--block-size",
  "64",
  "--n-layer",
  "2",
  "--n-head",
  "4",
  "--n-embd",
  "128",
  "--batch-size",
  "32",
  "--shards",
  "4",
];
const run = [...["--data", text, ...model, "--eval-interval", "0", "--checkpoint-interval", "0", "--timeout", "10"]];
const seed = Number(process.env.FUZZ_SEED ?? 1);
let coordinator: ReturnType<typeof weft>;
let port = 0;
const stepTimes: number[] = [];

beforeAll(async () => {
  coordinator = weft(
    ["coordinator", ...run, "--steps", "1000000", "--port", "0", "--max-workers", "64", "--out", out],
    { WEFT_TOKEN: token },
  );
  const { msg } = await coordinator.until((line) => line.msg.startsWith("listening on "));
  port = Number(/:(\d+):/.exec(msg)?.[1] ?? /127\.0\.0\.1:(\d+)/.exec(msg)![1]);
  coordinator.child.stderr!.on("data", (data) => {
    for (const _ of String(data).matchAll(/"msg":"step"/g)) stepTimes.push(performance.now());
  });
  weft(["worker", "--coordinator", `ws://127.0.0.1:${port}`, "--name", "honest", "--threads", "1"], {
    WEFT_TOKEN: token,
  });
  await coordinator.until((line) => line.msg === "step" && line.step! >= 3);
});
afterAll(async () => {
  killAll();
  await rm(folder, { recursive: true, force: true });
});

/** Chance that a seed gives again. */
class Draw {
  readonly #random: PhiloxStream;
  constructor(stream: number) {
    this.#random = new PhiloxStream(seed, stream);
  }
  below(n: number): number {
    return Math.min(n - 1, Math.floor(this.#random.uniform() * n));
  }
  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
  /** Bytes changed, cut, repeated, filled. */
  mutate(bytes: Buffer): Buffer {
    const copy = Buffer.from(bytes);
    if (copy.length === 0) return copy;
    const at = this.below(copy.length);
    switch (this.below(6)) {
      case 0:
        copy[at]! ^= 1 << this.below(8);
        return copy;
      case 1:
        return copy.subarray(0, at);
      case 2:
        return Buffer.concat([copy.subarray(0, at), copy]);
      case 3:
        return copy.fill(this.below(256), at, Math.min(copy.length, at + 1 + this.below(16)));
      case 4:
        return Buffer.concat([copy, Buffer.alloc(this.below(64), this.below(256))]);
      default:
        for (let i = 0; i < 8; i++) copy[this.below(copy.length)] = this.below(256);
        return copy;
    }
  }
}

const odd: readonly unknown[] = [
  null,
  -1,
  0.5,
  2 ** 53,
  Number.NaN,
  1e308,
  "",
  "x".repeat(5000),
  "\u001b[2J",
  [],
  {},
  true,
  Buffer.alloc(70_000),
  -0,
  [[[[[]]]]],
];

/** A message of right form with wrong content, or the other way round. */
function hostile(draw: Draw, arithmetic: string, sequence: number): Buffer {
  const lease = draw.below(50);
  const known: Record<string, unknown>[] = [
    { type: "hello", version: protocolVersion, name: `fuzz-${draw.below(1e6)}`, host: "fuzz", processId: 1 },
    { type: "ready", arithmetic, device: "fuzz", plannedBytes: 1 },
    { type: "answer", lease, losses: Buffer.alloc(8 * draw.below(9), 64), computeMs: 1 },
    { type: "handback", lease, reason: "fuzz", units: 0 },
    { type: "leaving", reason: "fuzz" },
  ];
  const message = { ...draw.of(known) };
  switch (draw.below(4)) {
    case 0: {
      const vector = new Float32Array(draw.below(4000)).fill(Number.NaN);
      const frames = [...framesOf("gradient", lease, bytesOf(vector))];
      return draw.mutate(Buffer.from(draw.of(frames.length > 0 ? frames : [Buffer.alloc(0)])));
    }
    case 1:
      return draw.mutate(encodeMessage(message as never, sequence));
    case 2:
      message[draw.of(Object.keys(message))] = draw.of(odd);
      return encodeMessage(message as never, sequence);
    default:
      message[draw.of(["extra", "constructor", "type", "lease"])] = draw.of(odd);
      return encodeMessage(message as never, sequence);
  }
}

/** One connection of a hostile worker: a right hello, sometimes a right ready, then anything. */
async function attack(draw: Draw, arithmetic: string, count: number): Promise<number> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}`, subprotocol, {
    headers: { authorization: `Bearer ${token}` },
  });
  let sent = 0;
  const closed = new Promise<void>((resolve) => {
    socket.on("close", resolve).on("error", () => resolve());
  });
  await new Promise<void>((resolve) => {
    socket.on("open", () => resolve());
    void closed.then(resolve);
  });
  const hello = {
    type: "hello",
    version: protocolVersion,
    name: `fuzz-${draw.below(1e9)}`,
    host: "fuzz",
    processId: 1,
  };
  // One in eight computes what the run computes, and takes leases that it never answers rightly.
  const ready = {
    type: "ready",
    arithmetic: draw.below(8) === 0 ? arithmetic : "native made-up float32",
    device: "fuzz",
    plannedBytes: 1,
  };
  const polite = draw.below(3);
  let sequence = 0;
  if (polite > 0 && socket.readyState === WebSocket.OPEN) socket.send(encodeMessage(hello as never, sequence++));
  if (polite > 1 && socket.readyState === WebSocket.OPEN) socket.send(encodeMessage(ready as never, sequence++));
  while (sent < count && socket.readyState === WebSocket.OPEN) {
    socket.send(hostile(draw, arithmetic, sequence++));
    sent++;
  }
  await Promise.race([closed, sleep(50)]);
  socket.terminate();
  return Math.max(1, sent);
}

function rssOf(pid: number): number {
  const kib = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Number(kib) / 1024;
}

const status = async () =>
  statusSchema.parse(
    await (await fetch(`http://127.0.0.1:${port}/status`, { headers: { authorization: `Bearer ${token}` } })).json(),
  );

/** While something goes on: the longest gap between two steps in seconds, and what memory grew by in MiB. */
async function undisturbed(act: () => Promise<void>): Promise<{ gap: number; grown: number }> {
  const pid = coordinator.child.pid!;
  const before = rssOf(pid);
  const began = performance.now();
  await act();
  const times = [began, ...stepTimes.filter((at) => at > began), performance.now()];
  const gap = Math.max(...times.slice(1).map((at, i) => at - times[i]!)) / 1000;
  expect(coordinator.child.exitCode).toBeNull();
  return { gap, grown: rssOf(pid) - before };
}

test(`${messages} mutated messages and frames`, async () => {
  const arithmetic = (await status()).arithmetic!;
  let left = messages;
  const attacker = async (stream: number): Promise<void> => {
    const draw = new Draw(stream);
    while (left > 0) {
      const count = Math.min(left, 1 + draw.below(40));
      left -= count;
      await attack(draw, arithmetic, count);
    }
  };
  const { gap, grown } = await undisturbed(async () => {
    await Promise.all(Array.from({ length: 16 }, (_, i) => attacker(i)));
  });
  console.log(
    `${messages} messages, seed ${seed}: longest step gap ${gap.toFixed(2)} s, memory grew by ${grown.toFixed(0)} MiB`,
  );
  expect(gap).toBeLessThan(15);
  expect(grown).toBeLessThan(150);
});

test(`${requests} HTTP requests`, async () => {
  const right = `Authorization: Bearer ${token}\r\n`;
  const seeds = [
    "GET /status HTTP/1.1\r\nHost: x\r\n",
    "GET /checkpoints/step-000001/manifest.json HTTP/1.1\r\nHost: x\r\n",
    "GET /checkpoints/..%2f..%2fetc/passwd HTTP/1.1\r\nHost: x\r\n",
    "GET /link?bytes=10 HTTP/1.1\r\nHost: x\r\n",
    "POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n",
    "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n",
    "GET /metrics HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1\r\n",
    "PUT /events?since=-1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n",
  ];
  const answers = new Map<string, number>();
  const one = (draw: Draw) =>
    new Promise<void>((resolve) => {
      const whole = Buffer.from(`${draw.of(seeds)}${draw.below(2) ? right : ""}Connection: close\r\n\r\nhello`);
      const socket = connect(port, "127.0.0.1");
      let came = "";
      socket.setTimeout(300, () => socket.destroy());
      socket.on("data", (data) => {
        came += came.length < 100 ? data.toString("latin1") : "";
      });
      socket.on("error", () => {});
      socket.on("close", () => {
        const code = /^HTTP\/1\.1 (\d+)/.exec(came)?.[1] ?? "none";
        answers.set(code, (answers.get(code) ?? 0) + 1);
        resolve();
      });
      socket.end(draw.mutate(whole));
    });
  let left = requests;
  const { gap, grown } = await undisturbed(async () => {
    await Promise.all(
      Array.from({ length: 16 }, async (_, i) => {
        const draw = new Draw(1000 + i);
        while (left-- > 0) await one(draw);
      }),
    );
  });
  console.log(
    `${requests} requests: ${[...answers].map(([code, n]) => `${code}: ${n}`).join(", ")}; longest step gap ${gap.toFixed(2)} s, memory grew by ${grown.toFixed(0)} MiB`,
  );
  expect(answers.get("500")).toBeUndefined();
  expect(gap).toBeLessThan(15);
  expect(grown).toBeLessThan(150);
});

test("2,000 idle connections, headers and bodies a byte at a time: the worker computes on, a new one comes in", async () => {
  const sockets: Socket[] = [];
  const ended: Promise<void>[] = [];
  const open = (first: string) => {
    const socket = connect(port, "127.0.0.1", () => socket.write(first));
    socket.on("error", () => {});
    ended.push(new Promise((resolve) => socket.on("close", () => resolve())));
    sockets.push(socket);
  };
  const drip = setInterval(() => {
    for (const socket of sockets) if (socket.writable && socket.bytesWritten > 0) socket.write("a");
  }, 1000);
  try {
    const { gap, grown } = await undisturbed(async () => {
      for (let i = 0; i < 2000; i++)
        open(
          ["", "GET /status HTTP/1.1\r\nX: ", "POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n"][
            i % 3
          ]!,
        );
      await sleep(500);
      // Of one address, and still it gets in: those who only wait go first.
      const second = weft(["worker", "--coordinator", `ws://127.0.0.1:${port}`, "--name", "second", "--threads", "1"], {
        WEFT_TOKEN: token,
      });
      await coordinator.until((line) => line.msg.startsWith("worker second joined"));
      second.child.kill("SIGTERM");
    });
    console.log(`2,000 idle connections: longest step gap ${gap.toFixed(2)} s, memory grew by ${grown.toFixed(0)} MiB`);
    expect(gap).toBeLessThan(15);
  } finally {
    clearInterval(drip);
    for (const socket of sockets) socket.destroy();
    await Promise.all(ended);
  }
});

test("after all of it: the digest of an undisturbed run", async () => {
  const { step } = await status();
  coordinator.child.kill("SIGTERM");
  expect(await coordinator.ended, coordinator.stderr().slice(-2000)).toBe(0);
  const alone = join(folder, "alone");
  const honest = weft([
    "train",
    ...run,
    "--schedule",
    "cosine",
    "--steps",
    "1000000",
    "--port",
    "0",
    "--workers",
    "2",
    "--out",
    alone,
  ]);
  await honest.until((line) => line.msg === "step" && line.step! >= step);
  honest.child.kill("SIGKILL");
  await honest.ended;
  expect(ledgerOf(alone)[step - 1]!.weights).toBe(ledgerOf(out)[step - 1]!.weights);
  expect(coordinator.stderr()).not.toContain(token);
});
