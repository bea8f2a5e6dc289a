// A worker's session with a coordinator that is played by hand.
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test, vi } from "vitest";
import { type WebSocket, WebSocketServer } from "ws";
import { VectorPool } from "../../shared/arithmetic/tree.ts";
import { systemClock } from "../../shared/clock.ts";
import { layoutOf } from "../../shared/family/layout.ts";
import { bytesOf, type Frame, framesOf } from "../../shared/wire/frame.ts";
import {
  decodeFromWorker,
  encodeMessage,
  type FromCoordinator,
  type FromWorker,
  isControl,
  protocolVersion,
  subprotocol,
} from "../../shared/wire/protocol.ts";
import { SharedVector } from "../../shared/wire/shared-memory.ts";
import { dial } from "../../shared/wire/web-socket.ts";
import { type Computer, computerOf } from "../../worker/computer.ts";
import { tfjs } from "../../worker/engine/tfjs/kind.ts";
import { runSession } from "../../worker/session.ts";
import { bigram } from "../seeds/bigram.ts";
import { testWhere } from "../where.ts";

const model = { ...bigram(5), blockSize: 4 };
const P = layoutOf(model).size;

let server: WebSocketServer | undefined;
afterEach(() => {
  for (const client of server?.clients ?? []) client.terminate();
  server?.close();
});

/** Starts a session; the worker is at the other end of what `hear` and `say` speak to. */
async function meet(own: Partial<Computer> = {}) {
  server = new WebSocketServer({ port: 0, host: "127.0.0.1", handleProtocols: () => subprotocol });
  await once(server, "listening");
  const leave = new AbortController();
  const url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const connected = once(server, "connection");
  const ended = runSession({
    pipe: await dial({ url, token: undefined, timeoutMs: 5000 }),
    clock: systemClock,
    url,
    name: "w",
    threads: 1,
    open: async () => ({
      ...computerOf(
        await tfjs.create({ model, maxRows: 1, precision: "float32", threads: 1, device: "cpu", backend: "wasm" }),
      ),
      ...own,
    }),
    onEvent: () => {},
    leave: leave.signal,
    handshakeMs: 5000,
  });
  const [socket] = (await connected) as [WebSocket];
  const heard: FromWorker[] = [];
  let [look, received, said] = [() => {}, 0, 0];
  socket.on("message", (data: Buffer) => {
    if (isControl(data)) heard.push(decodeFromWorker(data, received++));
    look();
  });
  return {
    ended,
    heard,
    say: (message: FromCoordinator) => socket.send(encodeMessage(message, said++)),
    /** @param most frames */
    send(kind: Frame["kind"], id: number, bytes: Uint8Array, most = Number.POSITIVE_INFINITY) {
      for (const frame of [...framesOf(kind, id, bytes)].slice(0, most)) socket.send(frame);
    },
    lease(lease: number, ids: number[]) {
      this.say({ ...order, lease });
      this.send("windows", lease, bytesOf(Uint16Array.from(ids)));
    },
    async hear(type: FromWorker["type"], count = 1) {
      while (heard.filter((message) => message.type === type).length < count)
        await new Promise<void>((resolve) => {
          look = resolve;
        });
    },
  };
}

const order = {
  ...{ type: "lease" as const, lease: 1, round: "gradient" as const, step: 0, units: 4 },
  ...{ first: 0, count: 1, rows: 1, windows: 1 },
};

const welcome = {
  ...{ type: "welcome" as const, version: protocolVersion, run: "r", model, parameters: P, seed: 1 },
  ...{
    vectors: 1 as const,
    localSteps: 1,
    shards: 4,
    rowsPerShard: 1,
    precision: "float32" as const,
    wire: "float32" as const,
  },
  timeoutMs: 5000,
};

const share = testWhere(SharedVector.create(1) !== undefined, "the native addon, to share memory");
share("a shared gradient stays until it has been taken", async () => {
  const [weights, gradient] = [SharedVector.create(P)!, SharedVector.create(P)!];
  const peer = await meet();
  peer.say({ ...welcome, sharedMemory: { weights: weights.address, gradient: gradient.address } });
  await peer.hear("ready");
  expect(peer.heard.at(-1)).toMatchObject({ sharesMemory: true });
  peer.say({ type: "weights", step: 0 });
  peer.lease(1, [0, 1, 2, 3, 4]);
  await peer.hear("answer");
  const first = gradient.values.slice();
  // The table is zero: probabilities of 1/5, a mean over 4 tokens, one of which is followed by token 1.
  expect(first[1]).toBeCloseTo((1 / 5 - 1) / 4, 6);
  peer.lease(2, [4, 3, 2, 1, 0]);
  // Long after the second gradient is computed nothing of it may show.
  peer.lease(3, [4, 3, 2, 1, 0]);
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(gradient.values).toEqual(first);
  expect(peer.heard.filter(({ type }) => type === "answer")).toHaveLength(1);
  peer.say({ type: "taken", lease: 1 });
  await peer.hear("answer", 2);
  expect(gradient.values).not.toEqual(first);
  peer.say({ type: "finish", reason: "done" });
  expect(await peer.ended).toMatchObject({ how: "finished" });
});

test("what a relay answers with goes back to the pool it came from", async () => {
  const pool = new VectorPool(P);
  const vector = pool.take();
  const peer = await meet({ pool, compute: async () => ({ losses: [1], vector }) });
  peer.say(welcome);
  await peer.hear("ready");
  const weights = new Uint8Array(4 * P);
  peer.send("weights", 0, weights);
  peer.lease(1, [0, 1, 2, 3, 4]);
  await peer.hear("answer");
  expect(pool.take()).toBe(vector);
  peer.say({ type: "finish", reason: "done" });
  await peer.ended;
});

test("weights are told of as they arrive, and that others took their place", async () => {
  const large = { ...model, vocabSize: 800 };
  const parameters = 800 * 800;
  const told: [Float32Array, number][] = [];
  const setWeights = async (_: number, sent: Float32Array) => {
    told.push([sent, -1]);
  };
  const peer = await meet({ foresee: (sent, known) => told.push([sent, known]), setWeights });
  peer.say({ ...welcome, model: large, parameters });
  await peer.hear("ready");
  const weights = new Uint8Array(4 * parameters);
  peer.send("weights", 0, weights, 2);
  peer.send("weights", 1, weights);
  await expect.poll(() => told.at(-1)?.[1]).toBe(-1);
  const chunk = 2 ** 18;
  expect(told.map(([, known]) => known)).toEqual([chunk, 2 * chunk, 0, chunk, 2 * chunk, parameters, -1]);
  // What is set is what was told of last.
  expect(told.at(-1)![0]).toBe(told.at(-2)![0]);
  expect(told[2]![0]).toBe(told[1]![0]);
  peer.say({ type: "finish", reason: "done" });
  await peer.ended;
});

/** The last of two steps. */
const local = {
  ...{ shards: 1, learningRates: [0.1], updates: 1, begun: 1 },
  optimizer: { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0, gradientClip: 1 },
};

test("a lease that is cancelled while its state comes goes back at once, and its memory to the pool", async () => {
  const large = { ...model, vocabSize: 800 };
  const parameters = 800 * 800;
  const pool = new VectorPool(parameters);
  const [taken, given] = [vi.spyOn(pool, "take"), vi.spyOn(pool, "give")];
  const peer = await meet({ pool });
  peer.say({ ...welcome, model: large, parameters, localSteps: 2, handsOver: true });
  await peer.hear("ready");
  expect(peer.heard.at(-1)).toMatchObject({ takesOver: true });
  const begin = (lease: number) => {
    peer.say({ ...order, lease, round: "local", local });
    peer.send("windows", lease, bytesOf(Uint16Array.of(0, 1, 2, 3, 4)));
    peer.send("state", lease, new Uint8Array(4 * parameters));
    // Two thirds of its second vector.
    peer.send("state", lease, new Uint8Array(4 * parameters), 2);
    peer.say({ type: "cancel", lease });
  };
  begin(1);
  begin(2);
  await peer.hear("handback", 2);
  expect(peer.heard.slice(-2)).toEqual(
    [1, 2].map((lease) => ({ type: "handback", lease, reason: "it was cancelled", units: 0 })),
  );
  expect([taken.mock.calls.length, given.mock.calls.length]).toEqual([4, 4]);
  peer.say({ type: "finish", reason: "done" });
  expect(await peer.ended).toMatchObject({ how: "finished" });
});

test("what was computed of a lease that others had begun is told in units as they are whole", async () => {
  let begin = () => {};
  const begun = new Promise<void>((resolve) => {
    begin = resolve;
  });
  const peer = await meet({
    compute: async ({ progress, signal }) => {
      progress(0.5);
      begin();
      await once(signal, "abort");
      return undefined;
    },
  });
  peer.say({ ...welcome, localSteps: 2, handsOver: true });
  await peer.hear("ready");
  peer.send("weights", 0, new Uint8Array(4 * P));
  peer.say({ ...order, round: "local", local });
  peer.send("windows", 1, bytesOf(Uint16Array.of(0, 1, 2, 3, 4)));
  for (let part = 0; part < 3; part++) peer.send("state", 1, new Uint8Array(4 * P));
  await begun;
  peer.say({ type: "cancel", lease: 1 });
  await peer.hear("handback");
  expect(peer.heard.at(-1)).toMatchObject({ lease: 1, units: 1 / 4 });
  peer.say({ type: "finish", reason: "done" });
  await peer.ended;
});

test("memory that is out of reach is not claimed, nor taken when it is offered again", async () => {
  const peer = await meet();
  const nowhere = { path: `/proc/${process.pid}/fd/987654`, key: "00" };
  peer.say({ ...welcome, sharedMemory: { weights: nowhere, gradient: nowhere } });
  await peer.hear("ready");
  expect(peer.heard.at(-1)).not.toHaveProperty("sharesMemory");
  peer.say({ type: "weights", step: 0 });
  expect(await peer.ended).toMatchObject({
    how: "lost",
    reason: expect.stringContaining("shared weights for a worker that shares none"),
  });
});

type Peer = Awaited<ReturnType<typeof meet>>;

test.each<[string, (peer: Peer) => void, RegExp]>([
  ["a lease before the worker is ready", (peer) => peer.say(order), /a lease before this worker was ready/],
  ["a second welcome", (peer) => [peer.say(welcome), peer.say(welcome)], /a second welcome/],
])("a coordinator that sends %s is left with a clear word", async (_, misbehave, reason) => {
  const peer = await meet();
  misbehave(peer);
  expect(await peer.ended).toMatchObject({ how: "lost", reason: expect.stringMatching(reason) });
});

test.each<[string, (peer: Peer) => void, RegExp]>([
  ["windows that are too short", (peer) => peer.lease(1, [0, 1, 2]), /windows of lease 1: 6 bytes, expected 10/],
  [
    "windows of an odd length",
    (peer) => [peer.say(order), peer.send("windows", 1, new Uint8Array(9))],
    /windows of lease 1: 9 bytes, expected 10/,
  ],
  ["windows without end", (peer) => peer.lease(1, Array(100_000).fill(0)), /200000 bytes, expected 10/],
  ["windows that nobody announced", (peer) => peer.send("windows", 7, new Uint8Array(10)), /windows 7 .*not announced/],
  [
    "a lease that is no node of the tree",
    (peer) => peer.say({ ...order, first: 1, count: 2, windows: 2 }),
    /not a node/,
  ],
  ["a lease without its windows", (peer) => peer.say({ ...order, count: 2, windows: 1 }), /not its windows/],
  ["more rows than the welcome said", (peer) => peer.say({ ...order, rows: 9, windows: 9 }), /9 windows a unit, .* 1/],
  [
    "leases and no windows",
    (peer) => [peer.say(order), peer.say({ ...order, lease: 2 })],
    /lease 2 before all of lease 1/,
  ],
  [
    "an update to weights that are not here",
    (peer) => peer.send("update", 1, new Uint8Array(4 * P)),
    /update to step 1/,
  ],
  ["weights of another length", (peer) => peer.send("weights", 0, new Uint8Array(4 * P + 4)), /weights/],
  ["a state that nobody announced", (peer) => peer.send("state", 1, new Uint8Array(4 * P)), /state 1 .*not announced/],
  ["a gradient", (peer) => peer.send("gradient", 1, new Uint8Array(4 * P)), /gradient 1 that was not announced/],
  ["local steps that are none", (peer) => peer.say({ ...order, round: "local" }), /local steps without their terms/],
])("a coordinator that welcomes and then sends %s is left with a clear word", async (_, misbehave, reason) => {
  const peer = await meet();
  peer.say(welcome);
  await peer.hear("ready");
  misbehave(peer);
  expect(await peer.ended).toMatchObject({ how: "lost", reason: expect.stringMatching(reason) });
});

test("ids that are in no vocabulary go back with the lease, and the worker stays", async () => {
  const peer = await meet();
  peer.say(welcome);
  await peer.hear("ready");
  peer.send("weights", 0, new Uint8Array(4 * P));
  peer.lease(1, [0, 1, 2, 3, 60_000]);
  await peer.hear("handback");
  expect(peer.heard.at(-1)).toMatchObject({ lease: 1, reason: expect.stringContaining("60000") });
  peer.lease(2, [0, 1, 2, 3, 4]);
  await peer.hear("answer");
  peer.say({ type: "finish", reason: "ü".repeat(2000) });
  expect(await peer.ended).toMatchObject({ how: "finished" });
});
