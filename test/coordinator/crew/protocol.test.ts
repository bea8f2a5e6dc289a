// A coordinator among strangers: whatever a peer says, it gets a reason, and the run goes on and ends well. The peers
// here are real WebSockets that speak the protocol by hand.
import { once } from "node:events";
import { join } from "node:path";
import pino from "pino";
import { afterEach, beforeEach, expect, test } from "vitest";
import { WebSocket } from "ws";
import { TrainingRun } from "../../../coordinator/loop.ts";
import { accessWith } from "../../../coordinator/serve/access.ts";
import { type RunServer, serve } from "../../../coordinator/serve/server.ts";
import { setUpRun } from "../../../coordinator/setup.ts";
import type { OptionName } from "../../../shared/config.ts";
import { bytesOf, type Frame, framesOf, parseFrame } from "../../../shared/wire/frame.ts";
import {
  decodeFromCoordinator,
  encodeMessage,
  type FromCoordinator,
  type FromWorker,
  isControl,
  packLosses,
  protocolVersion,
} from "../../../shared/wire/protocol.ts";
import { openSharedVector, SharedVector } from "../../../shared/wire/shared-memory.ts";
import { temporary, text } from "../../system/weft.ts";
import { testWhere } from "../../where.ts";

const token = "a token of sufficient length".replaceAll(" ", "-");
/** Of the run: its vocabulary is that of the text. */
let parameters = 0;
/** What the peers here say that they compute with. */
const byHand = "native plain float32";
let run: TrainingRun;
let server: RunServer;
let trained: Promise<unknown>;
let peers: Peer[] = [];

async function start(flags: Partial<Record<OptionName, unknown>> = {}): Promise<void> {
  const sources = {
    flags: {
      ...{ data: text, blockSize: 8, nLayer: 1, nHead: 1, nEmbd: 8, batchSize: 4, shards: 4, steps: 2 },
      ...{
        evalWindows: 4,
        evalSampleTokens: 0,
        out: join(temporary(), "run"),
        port: 0,
        timeout: 2,
        maxWorkers: 3,
        ...flags,
      },
    },
  };
  const log = pino({ level: "silent" });
  const setup = await setUpRun(sources, log, { substitute: false });
  run = new TrainingRun(setup);
  parameters = run.status().model.parameters;
  server = await serve(run, run, { ...setup.options, access: accessWith(token), log });
  trained = run.train().catch((error: Error) => error);
}

beforeEach(() => {
  peers = [];
});
afterEach(async () => {
  run.stop("the test is over");
  for (const peer of peers) peer.socket.terminate();
  await trained;
  await server.close();
});

class Peer {
  readonly socket: WebSocket;
  readonly heard: FromCoordinator[] = [];
  readonly frames: Frame[] = [];
  #said = 0;
  #received = 0;
  readonly closed: Promise<{ code: number; reason: string }>;
  #look: () => void = () => {};

  constructor(headers: Record<string, string> = { authorization: `Bearer ${token}` }, subprotocol = "weft.v1") {
    this.socket = new WebSocket(`ws://${server.address}`, subprotocol, { headers });
    peers.push(this);
    // Connections end in every way here; what matters is looked at elsewhere.
    this.socket.on("error", () => {});
    this.closed = new Promise((resolve) => {
      this.socket.on("close", (code, reason) => resolve({ code, reason: reason.toString() }));
    });
    this.socket.on("message", (data: Buffer) => {
      if (isControl(data)) this.heard.push(decodeFromCoordinator(data, this.#received++));
      else this.frames.push(parseFrame(data));
      this.#look();
    });
  }

  say(message: FromWorker): void {
    this.socket.send(encodeMessage(message, this.#said++));
  }

  async opened(): Promise<this> {
    await new Promise((resolve, reject) => this.socket.once("open", resolve).once("error", reject));
    return this;
  }

  /** The HTTP status and body of a refused upgrade. */
  refused(): Promise<string> {
    return new Promise((resolve, reject) => {
      this.socket.once("open", () => reject(new Error("it was let in")));
      this.socket.once("unexpected-response", (_request, response) => {
        let body = "";
        response.on("data", (chunk: Buffer) => {
          body += chunk.toString();
        });
        response.on("end", () => resolve(`${response.statusCode} ${body}`));
      });
    });
  }

  async hear<T extends FromCoordinator["type"]>(type: T, after = 0): Promise<Extract<FromCoordinator, { type: T }>> {
    for (;;) {
      const found = this.heard.slice(after).find((message) => message.type === type);
      if (found) return found as Extract<FromCoordinator, { type: T }>;
      await new Promise<void>((resolve) => {
        this.#look = resolve;
      });
    }
  }

  /** Greet, get ready, and wait for a lease. */
  async join(name: string, arithmetic = byHand, sharesMemory = false, data?: string) {
    await this.opened();
    this.say({ type: "hello", version: protocolVersion, name, host: "here", processId: 1 });
    const { sharedMemory } = await this.hear("welcome");
    const own = { arithmetic, device: "none", plannedBytes: 0, takesOver: true } as const;
    const ready = { type: "ready" as const, ...own, ...(data && { data }) };
    this.say(sharesMemory ? { ...ready, sharesMemory } : ready);
    return sharedMemory;
  }

  /** @param floats of the vector */
  answer(lease: number, count: number, value: number, loss = 1, floats = parameters): void {
    for (const frame of framesOf("gradient", lease, bytesOf(new Float32Array(floats).fill(value))))
      this.socket.send(frame);
    this.say({ type: "answer", lease, losses: packLosses(new Array(count).fill(loss)), computeMs: 1 });
  }

  /** Leave, and wait until a state may come. */
  async offer(lease: number): Promise<void> {
    this.say({ type: "leaving", reason: "bye" });
    this.say({ type: "offer", lease });
    await this.hear("accept");
  }

  /** A state of this value. */
  sendState(lease: number, value = 0.5, floats = 3 * parameters): void {
    for (const frame of framesOf("state", lease, bytesOf(new Float32Array(floats).fill(value))))
      this.socket.send(frame);
  }

  /** @param steps that the state is said to be after */
  handOver(lease: number, steps: number, value = 0.5, floats = 3 * parameters): void {
    this.sendState(lease, value, floats);
    this.say({ type: "handback", lease, reason: "bye", state: packLosses(new Array(steps).fill(1)) });
  }

  /** Answer every lease to the end of the run, each once it may. */
  async workOn(value = 0.01, loss = 1, may: (step: number) => Promise<void> = async () => {}): Promise<void> {
    for (let seen = 0; ; seen++) {
      while (this.heard.length <= seen)
        await new Promise<void>((resolve) => {
          this.#look = resolve;
        });
      const message = this.heard[seen]!;
      if (message.type === "finish") return;
      if (message.type !== "lease") continue;
      await may(message.step);
      const { lease, count, round, windows } = message;
      if (round === "gradient") this.answer(lease, count, value, loss);
      else this.say({ type: "answer", lease, losses: packLosses(new Array(windows).fill(1)), computeMs: 1 });
    }
  }
}

test("who shows no token, or speaks something else, is not let in and hears why", async () => {
  await start();
  expect(await new Peer({}).refused()).toBe("401 the token is missing or wrong; set WEFT_TOKEN or --token-file");
  expect(await new Peer({ authorization: "Bearer wrong-token-of-some-length" }).refused()).toMatch(/^401/);
  expect(await new Peer(undefined, "chat").refused()).toBe(
    '400 this is a weft.v1 coordinator; connect with "weft worker"',
  );
  await Promise.all([1, 2, 3].map(() => new Peer().opened()));
  expect(await new Peer().refused()).toBe("503 as many workers as --max-workers are connected");
});

test.each<[string, (peer: Peer) => void, RegExp]>([
  ["noise", (p) => p.socket.send(Buffer.from("noise")), /neither control nor tensor/],
  ["a bare map", (p) => p.socket.send(Buffer.from([0x81, 0xa1, 0x61, 1])), /speaks an older version of the protocol/],
  ["a map without sense", (p) => p.say({ a: 1 } as never), /message 2 from the worker is malformed: type is missing/],
  [
    "losses without end",
    (p) => p.say({ type: "answer", lease: 1, losses: new Array(65_536).fill(null), computeMs: 1 } as never),
    /is malformed: losses: .{1,80}$/,
  ],
  [
    "a flipped bit",
    (p) => {
      const message = encodeMessage({ type: "handback", lease: 1, reason: "one", units: 0 }, 2);
      message[message.length - 1]! ^= 1;
      p.socket.send(message);
    },
    /message 2 from the worker arrived damaged or out of turn/,
  ],
  [
    "a message twice",
    (p) => {
      const message = encodeMessage({ type: "leaving", reason: "" }, 2);
      p.socket.send(message);
      p.socket.send(message);
    },
    /message 3 from the worker arrived damaged or out of turn/,
  ],
  ["progress of nothing", (p) => p.say({ type: "progress", lease: 7, losses: 1 }), /does not hold lease 7/],
  ["a lease nobody gave", (p) => p.say({ type: "handback", lease: 7, reason: "", units: 0 }), /does not hold lease 7/],
  [
    "a second hello",
    (p) => p.say({ type: "hello", version: protocolVersion, name: "x", host: "x", processId: 1 }),
    /a second hello/,
  ],
  ["weights", (p) => p.socket.send([...framesOf("weights", 0, new Uint8Array(8))][0]!), /a worker sends no weights/],
  [
    "a damaged frame",
    (p) => {
      const [frame] = [...framesOf("gradient", 1, new Uint8Array(8))];
      frame![44]! ^= 1;
      p.socket.send(frame!);
    },
    /arrived damaged/,
  ],
])("%s closes the socket with the reason", async (_what, say, reason) => {
  await start();
  const peer = new Peer();
  await peer.join("odd");
  say(peer);
  const closed = await peer.closed;
  expect(closed.code).toBe(4000);
  expect(closed.reason).toMatch(reason);
});

test("progress goes forward, and no further than there is to do", async () => {
  await start();
  for (const losses of [[100_000], [1, 1]]) {
    const peer = new Peer();
    await peer.join("odd");
    const { lease } = await peer.hear("lease");
    for (const known of losses) peer.say({ type: "progress", lease, losses: known });
    expect((await peer.closed).reason).toMatch(/progress of lease \d+: (100000|1) losses of \d+, after [01]$/);
  }
});

test("a message beyond every bound is cut off", async () => {
  await start();
  const peer = await new Peer().opened();
  peer.socket.send(Buffer.alloc(3 * 2 ** 20));
  expect((await peer.closed).code).toBe(1009);
});

test("another protocol version, and another arithmetic, are refused by name", async () => {
  await start();
  const old = await new Peer().opened();
  old.say({ type: "hello", version: 0, name: "old", host: "x", processId: 1 });
  expect((await old.hear("refuse")).reason).toContain(
    `worker old speaks version 0 of the protocol, this coordinator ${protocolVersion}`,
  );
  const first = new Peer();
  await first.join("first");
  const granted = await first.hear("lease");
  const other = new Peer();
  await other.join("other", "native avx2 float32");
  // Who answers first decides, not who comes first.
  first.answer(granted.lease, granted.count, 0.01);
  expect((await other.hear("refuse")).reason).toMatch(
    /this run computes with "native plain float32" and the bits would differ/,
  );
});

test("who has other data than the run's is refused, who has them is sent no windows", async () => {
  await start();
  const stranger = new Peer();
  await stranger.join("stranger", byHand, false, "f00d");
  expect((await stranger.hear("refuse")).reason).toMatch(
    /worker stranger would draw windows of other data than the run's/,
  );
  const own = new Peer();
  await own.join("own", byHand, false, run.about().data.sha256);
  expect(await own.hear("lease")).toMatchObject({ round: "gradient", drawn: true });
});

test("a gradient of another length, or cut short, costs its sender the connection and the run nothing", async () => {
  await start();
  const short = new Peer();
  await short.join("short");
  const { lease } = await short.hear("lease");
  short.socket.send([...framesOf("gradient", lease, new Uint8Array(512))][0]!);
  expect((await short.closed).reason).toMatch(
    `512 bytes, expected ${(4 * parameters).toLocaleString("en")}; the model differs`,
  );
  const hasty = new Peer();
  await hasty.join("hasty");
  const granted = await hasty.hear("lease");
  hasty.say({
    type: "answer",
    lease: granted.lease,
    losses: packLosses(new Array(granted.count).fill(1)),
    computeMs: 1,
  });
  expect((await hasty.closed).reason).toMatch(/came before its whole gradient/);
  const good = new Peer();
  await good.join("good");
  await good.workOn();
  expect(await trained).toMatchObject({ step: 2, finished: true });
});

const share = testWhere(SharedVector.create(1) !== undefined, "the native addon, to share memory");
share("a worker that shares memory beside one that does not: weights and gradients go both ways", async () => {
  await start();
  const near = new Peer();
  const memory = await near.join("near", byHand, true);
  const weights = openSharedVector(memory!.weights, parameters, false)!;
  const gradient = openSharedVector(memory!.gradient, parameters, true)!;
  expect((await near.hear("weights")).step).toBe(0);
  const before = weights.slice();
  expect(before.some((weight) => weight !== 0)).toBe(true);
  const { lease, count } = await near.hear("lease");
  gradient.fill(0.25);
  near.say({ type: "answer", lease, losses: packLosses(new Array(count).fill(1)), computeMs: 1 });
  expect((await near.hear("taken")).lease).toBe(lease);
  gradient.fill(Number.NaN); // ours again: what was taken is safe from it
  const far = new Peer();
  await far.join("far");
  await far.workOn();
  expect(await trained).toMatchObject({ step: 2, finished: true });
  expect(weights).not.toEqual(before);
  expect(weights.every(Number.isFinite)).toBe(true);
});

share("a worker of another machine is offered no memory, and none that was not offered is believed", async () => {
  await start({ sharedMemory: false });
  const liar = new Peer();
  expect(await liar.join("liar", byHand, true)).toBeUndefined();
  expect((await liar.closed).reason).toMatch(/shared memory that was not offered/);
});

share("a worker that shares memory sends no gradients", async () => {
  await start();
  const peer = new Peer();
  await peer.join("both", byHand, true);
  const { lease } = await peer.hear("lease");
  peer.socket.send([...framesOf("gradient", lease, new Uint8Array(4 * parameters))][0]!);
  expect((await peer.closed).reason).toMatch(/sends a gradient that it said it would share/);
});

test("a made-up arithmetic, and another than the run was started with, are refused at once", async () => {
  await start({ isa: "avx2" });
  const odd = new Peer();
  await odd.join("odd", "by hand");
  expect((await odd.hear("refuse")).reason).toMatch(/"by hand" is no arithmetic that this coordinator knows/);
  const plain = new Peer();
  await plain.join("plain");
  expect((await plain.hear("refuse")).reason).toMatch(/this run was started with --isa avx2/);
});

test.each([
  ["a gradient of NaN", Number.NaN, 1, /a gradient of norm NaN/],
  ["one that cannot be summed", 1e38, 1, /a gradient of norm 4\.\d+e\+39/],
  ["a loss of NaN", 0, Number.NaN, /a loss of NaN/],
  ["a loss without end", 0, 1.7e308, /a loss of 1\.7e\+308/],
])(
  "%s never counts; twice for the same part, with nobody else to ask, and the run has diverged",
  async (_what, value, loss, why) => {
    await start();
    const peer = new Peer();
    await peer.join("odd");
    void peer.workOn(value, loss);
    const { message } = (await trained) as Error;
    expect(message).toMatch(why);
    expect(message).toMatch(/^the run diverged: step 1: .*, computed twice by odd; no step was good; start again/);
    expect(run.status().leases.counted).toBe(0);
  },
);

test("what one worker gives wrongly another gives rightly: the run goes on, and the first is asked for other parts", async () => {
  await start({ steps: 3 });
  const odd = new Peer();
  await odd.join("odd");
  void odd.workOn(Number.NaN);
  const good = new Peer();
  await good.join("good");
  await good.workOn();
  expect(await trained).toMatchObject({ step: 3, finished: true });
});

test("--verify with nobody to ask: after the timeout answers count unconfirmed, which is said and stands in the ledger", async () => {
  await start({ verify: 1, timeout: 1 });
  const alone = new Peer();
  await alone.join("alone");
  await alone.workOn();
  expect(await trained).toMatchObject({ step: 2, finished: true });
  expect(run.status().leases).toMatchObject({ confirmed: 0 });
  const warned = run.journal
    .after(0)
    .filter(({ text }) => text.startsWith("nobody is there to confirm what alone computes"));
  expect(warned).toHaveLength(1);
});

test("--verify with two who differ and no third: both are asked once more, then the run stops and says why", async () => {
  await start({ verify: 1, timeout: 1 });
  const left = new Peer();
  await left.join("left");
  const right = new Peer();
  await right.join("right");
  void left.workOn(0.01);
  void right.workOn(0.02);
  const { message } = (await trained) as Error;
  expect(message).toMatch(
    /^the run stopped after step 0: (left and right|right and left) give different answers for .* of step 1, and no other worker is there to say who is right/,
  );
  expect(run.status().quarantined).toEqual([]);
});

test("--verify with a third: the odd one goes, and its name is not let in again", async () => {
  await start({ verify: 1, steps: 3 });
  const joined: Peer[] = [];
  for (const name of ["a", "odd", "b"]) {
    joined.push(new Peer());
    await joined.at(-1)!.join(name);
  }
  const [a, odd, b] = joined as [Peer, Peer, Peer];
  void odd.workOn(0.02);
  void a.workOn();
  await b.workOn();
  expect(await trained).toMatchObject({ finished: true });
  expect((await odd.hear("refuse")).reason).toMatch(
    /^odd gave another answer for .* of step 1 than . and . gave alike$/,
  );
  expect(run.status().quarantined).toMatchObject([{ names: ["odd"], address: null, step: 0 }]);
});

test("--verify: newcomers who say the same do not confirm each other while a confirmed worker is there", async () => {
  await start({ verify: 0.01, steps: 30, maxWorkers: 9 });
  const join = async (name: string) => {
    const peer = new Peer();
    await peer.join(name);
    return peer;
  };
  let go = (): void => {};
  const all = new Promise<void>((resolve) => {
    go = resolve;
  });
  const may = async (step: number) => (step < 5 ? undefined : await all);
  const honest = [await join("a"), await join("b")].map((peer) => peer.workOn(0.01, 1, may));
  while (run.status().step < 5) await new Promise(setImmediate);
  for (const name of ["x", "y"]) {
    const liar = await join(name);
    while (!run.status().workers.some(({ id, state }) => id === name && state === "contributing"))
      await new Promise(setImmediate);
    void liar.workOn(0.02);
  }
  go();
  await Promise.race(honest);
  expect(await trained).toMatchObject({ finished: true });
  expect(
    run
      .status()
      .quarantined.map(({ names }) => names[0])
      .sort(),
  ).toEqual(["x", "y"]);
});

test("a run stopped before its first step leaves no checkpoint behind", async () => {
  await start();
  run.stop("no reason");
  expect(await trained).toMatchObject({ step: 0, finished: false, checkpoint: null });
  expect(run.status().checkpoints).toEqual([]);
});

test("a stop on the page sends workers home; one by a signal lets them wait for the run to be resumed", async () => {
  await start();
  const home = new Peer();
  await home.join("home");
  const asked = await fetch(`http://${server.address}/actions/stop`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}` },
  });
  expect(asked.status).toBe(200);
  expect((await home.hear("finish")).reason).toBe("the run was stopped: asked for on the page");
  home.socket.terminate();
  expect(await trained).toMatchObject({ finished: false });
  await server.close();
  await start();
  const waits = new Peer();
  await waits.join("waits");
  run.stop("SIGTERM");
  expect((await waits.closed).reason).toBe("the coordinator stops");
  expect(waits.heard.filter(({ type }) => type === "finish")).toEqual([]);
});

test("leases handed back go to others; a worker that only hands back is sent away", async () => {
  await start();
  const lazy = new Peer();
  await lazy.join("lazy");
  let seen = 0;
  for (let i = 0; i < 3; i++) {
    const { lease } = await lazy.hear("lease", seen);
    seen = lazy.heard.length;
    lazy.say({ type: "handback", lease, reason: "tired", units: 0 });
  }
  expect((await lazy.hear("refuse")).reason).toMatch(/handed back 3 leases in a row, the last because tired/);
  const good = new Peer();
  await good.join("good");
  await good.workOn();
  expect(await trained).toMatchObject({ finished: true });
  const metrics = await run.metrics.render();
  for (const phase of ["eval", "checkpoint"])
    expect(metrics).toContain(`weft_step_phase_duration_seconds_count{phase="${phase}"} 1`);
});

test("a peer that connects and says nothing is closed after the handshake's time", async () => {
  await start({ timeout: 1 });
  const peer = await new Peer().opened();
  expect((await peer.closed).reason).toMatch(/not ready to work after 1.0 s/);
});

const local = { localSteps: 4, replicas: 2, steps: 4 };

test.each<[string, (peer: Peer, lease: number) => void, RegExp]>([
  ["of another size", (p, id) => p.handOver(id, 2, 0, 3 * parameters - 1), /state \d+: .* bytes, expected .* differs/],
  ["after no step", (p, id) => p.handOver(id, 0), /a state after 0 of the 4 steps of lease/],
  ["after all steps", (p, id) => p.handOver(id, 4), /a state after 4 of the 4 steps of lease/],
  ["that never came", (p, id) => p.handOver(id, 2, 0, 0), /lease \d+ was handed over before its whole state/],
  ["and another", (p, id) => [p.handOver(id, 2, Number.NaN), p.handOver(id, 2)], /does not hold lease/],
  ["of twice the size", (p, id) => p.handOver(id, 2, 0, 6 * parameters), /bytes, expected .* differs/],
  ["offered again", (p, id) => p.say({ type: "offer", lease: id }), /lease \d+ is offered again/],
  [
    "in whose middle comes the answer",
    (p, id) => [p.sendState(id), p.answer(id, 4, 1, 1, 3 * parameters)],
    /lease \d+ is answered in the middle of being handed over/,
  ],
  ["after the gradient", (p, id) => [p.answer(id, 4, 1, 1, 3 * parameters), p.sendState(id)], /does not hold lease/],
])("a state %s is refused with a clear word", async (_, handOver, reason) => {
  await start(local);
  const peer = new Peer();
  await peer.join("liar");
  const { lease } = await peer.hear("lease");
  await peer.offer(lease);
  handOver(peer, lease);
  expect((await peer.closed).reason).toMatch(reason);
  expect([run.dispatch.crew.uploads.size, run.dispatch.crew.uploads.aside]).toEqual([0, 0]);
});

test("a state that nobody asked for is refused, and the run goes on whatever comes with it", async () => {
  await start(local);
  const shares = SharedVector.create(1) !== undefined;
  for (const [name, say, reason] of [
    [
      "eager",
      (p, id) => [p.say({ type: "leaving", reason: "bye" }), p.sendState(id)],
      /a state of lease \d+, which was not accepted/,
    ],
    ["staying", (p, id) => p.say({ type: "offer", lease: id }), /staying would hand over lease \d+ and does not leave/],
  ] as [string, (peer: Peer, lease: number) => void, RegExp][]) {
    const peer = new Peer();
    await peer.join(name, byHand, shares);
    const { lease } = await peer.hear("lease");
    say(peer, lease);
    peer.say({ type: "answer", lease, losses: packLosses([1, 1, 1, 1]), computeMs: 1 });
    expect((await peer.closed).reason).toMatch(reason);
  }
  const good = new Peer();
  await good.join("good");
  for (let heard = 0, left = 2; left > 0; ) {
    const { lease, count, first } = await good.hear("lease", heard);
    heard = good.heard.findIndex((message) => message.type === "lease" && message.first === first) + 1;
    good.answer(lease, 4 * count, 0.5, 1, 3 * parameters);
    left -= count;
  }
  await expect.poll(() => run.status().step).toBe(4);
});

test("who was accepted and finishes all the same is counted, and its room is free", async () => {
  await start(local);
  const peer = new Peer();
  await peer.join("quick");
  const { lease, count } = await peer.hear("lease");
  await peer.offer(lease);
  expect(run.dispatch.crew.uploads.aside).toBe(1);
  peer.answer(lease, 4 * count, 0.5, 1, 3 * parameters);
  await expect.poll(() => run.dispatch.counts.counted).toBe(1);
  expect(run.dispatch.crew.uploads.aside).toBe(0);
});

test("with --verify nobody hands over", async () => {
  await start({ ...local, verify: 0.5 });
  const peer = new Peer();
  await peer.join("helpful");
  expect(await peer.hear("welcome")).not.toHaveProperty("handsOver");
  const { lease } = await peer.hear("lease");
  peer.say({ type: "leaving", reason: "bye" });
  peer.say({ type: "offer", lease });
  expect((await peer.closed).reason).toMatch(/lease \d+ cannot be handed over/);
});

test("what was handed over goes down with what is left; who makes no number of it is not blamed, and begins anew", async () => {
  await start(local);
  const first = new Peer();
  await first.join("first");
  const whole = await first.hear("lease");
  expect(whole.local).not.toHaveProperty("begun");
  await first.offer(whole.lease);
  first.handOver(whole.lease, 3);
  const second = new Peer();
  await second.join("second");
  const rest = await second.hear("lease");
  const rates = whole.local!.learningRates;
  expect(rest).toMatchObject({ first: whole.first, count: 1, windows: whole.windows / 4 });
  expect(rest.local).toEqual({ ...whole.local, learningRates: rates.slice(3), updates: 3, begun: 3 });
  await expect.poll(() => second.frames.at(-1)?.kind).toBe("state");
  const ids = (peer: Peer, lease: number) =>
    Buffer.concat(peer.frames.filter(({ kind, id }) => kind === "windows" && id === lease).map(({ data }) => data));
  expect(ids(second, rest.lease)).toEqual(ids(first, whole.lease).subarray((ids(first, whole.lease).length / 4) * 3));
  const state = second.frames.filter(({ kind, id }) => kind === "state" && id === rest.lease);
  expect(Buffer.concat(state.map(({ data }) => data))).toEqual(
    Buffer.from(bytesOf(new Float32Array(3 * parameters).fill(0.5))),
  );
  expect(run.journal.after(0).map(({ text }) => text)).toContain(
    `second took over replica ${rest.first} at step 3 of 4 from first`,
  );
  const heard = second.heard.length;
  second.answer(rest.lease, 1, Number.NaN, 1, 3 * parameters);
  const anew = await second.hear("lease", heard);
  expect(anew).toMatchObject({ first: rest.first, local: whole.local });
  expect(run.status().workers.map(({ probation }) => probation)).toEqual([null, null]);
  // No more states of this unit: the next could be as bad.
  second.say({ type: "leaving", reason: "bye" });
  second.say({ type: "offer", lease: anew.lease });
  second.socket.ping();
  await once(second.socket, "pong");
  expect(second.heard.slice(heard).map(({ type }) => type)).not.toContain("accept");
});

test("a state that is no number is not gone on from", async () => {
  await start(local);
  const first = new Peer();
  await first.join("first");
  const { lease } = await first.hear("lease");
  await first.offer(lease);
  first.handOver(lease, 3, Number.NaN);
  const second = new Peer();
  await second.join("second");
  expect((await second.hear("lease")).local).not.toHaveProperty("begun");
  expect(run.journal.after(0).map(({ text }) => text)).toContain(
    "the state of replica 0 of steps 1 to 4 from first refused: it holds what is no number",
  );
});

test("a state that is half there when its sender goes is nothing, and takes no room any more", async () => {
  await start({ ...local, innerState: "fresh" });
  const [{ uploads }, first] = [run.dispatch.crew, new Peer()];
  await first.join("first");
  const { lease } = await first.hear("lease");
  first.say({ type: "progress", lease, losses: 1 });
  await first.offer(lease);
  // What comes is a sign of life, and says nothing of how far it is.
  const heard = () => run.dispatch.leases[0]!.heard!;
  const before = heard();
  first.sendState(lease, 0, parameters);
  await expect.poll(() => heard().at).toBeGreaterThan(before.at);
  expect(heard()).toEqual({ ...before, at: heard().at });
  expect(uploads.aside).toBe(3);
  first.socket.terminate();
  await expect.poll(() => uploads.aside).toBe(0);
  const second = new Peer();
  await second.join("second");
  const anew = await second.hear("lease");
  expect(anew.local).not.toHaveProperty("begun");
  // Two of its three vectors are not the whole, whatever its sender says.
  await second.offer(anew.lease);
  for (let part = 0; part < 2; part++) second.sendState(anew.lease, 0, parameters);
  second.handOver(anew.lease, 2, 0, 0);
  expect((await second.closed).reason).toMatch(/was handed over before its whole state/);
  expect(uploads.aside).toBe(0);
});
