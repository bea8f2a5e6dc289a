// What one worker is sent, message by message, through a pipe that is emptied by hand.
import { expect, test } from "vitest";
import { Connection, type ConnectionEvents } from "../../../coordinator/crew/connection.ts";
import { Uploads } from "../../../coordinator/crew/uploads.ts";
import { bestCodec } from "../../../shared/arithmetic/native.ts";
import { VectorPool } from "../../../shared/arithmetic/tree.ts";
import { layoutOf } from "../../../shared/family/layout.ts";
import { parseFrame } from "../../../shared/wire/frame.ts";
import type { PipeEvents } from "../../../shared/wire/pipe.ts";
import {
  decodeFromCoordinator,
  encodeMessage,
  type FromWorker,
  isControl,
  protocolVersion,
} from "../../../shared/wire/protocol.ts";
import { bigram } from "../../seeds/bigram.ts";

const model = { ...bigram(5), blockSize: 4 };
const parameters = layoutOf(model).size;
const optimizer = { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0, gradientClip: 1 };
const local = { shards: 1, learningRates: [0.1, 0.1, 0.1, 0.1], updates: 0, optimizer };
const order = {
  ...{ type: "lease" as const, lease: 1, round: "local" as const, step: 0, units: 4 },
  ...{ first: 0, count: 1, rows: 1, windows: 4, local },
};
const windows = Uint16Array.from({ length: 20 }, (_, i) => i % 5);

/** A worker that is ready, and whose pipe is full whenever a message is in it. */
function meet(events: Partial<ConnectionEvents> = {}) {
  const sent: string[] = [];
  const waiting: (() => void)[] = [];
  let [peer, said, heard] = [{} as PipeEvents, 0, 0];
  const none = () => {};
  const uploads = new Uploads(new VectorPool(parameters), () => 0);
  const connection = new Connection({
    pipe: {
      ...{ isOpen: true, ping: none, pause: none, resume: none, close: none, terminate: none },
      get queuedBytes() {
        return waiting.length > 0 ? 2 ** 30 : 0;
      },
      listen: (listener) => {
        peer = listener;
      },
      send: (message, left) => {
        sent.push(isControl(message) ? decodeFromCoordinator(message, heard++).type : parseFrame(message).kind);
        waiting.push(left);
      },
    },
    clock: { now: () => 0, after: () => ({ cancel: none }), every: () => ({ cancel: none }) },
    welcome: {
      ...{ type: "welcome", version: protocolVersion, run: "r", model, parameters, vectors: 1, localSteps: 4, seed: 1 },
      ...{ shards: 4, rowsPerShard: 1, precision: "float32", wire: "float32", timeoutMs: 1000, handsOver: true },
    },
    memory: undefined,
    uploads,
    codec: bestCodec("float32"),
    address: undefined,
    uniqueName: (wanted) => wanted,
    whyKeptOut: () => undefined,
    events: {
      ...{ ready: none, changed: none, answered: none, waits: none, giveWay: none, progressed: none },
      ...{ offered: none, handedBack: none, gone: none, ...events },
      broken: (error) => {
        throw error;
      },
    },
  });
  const say = (message: FromWorker) => peer.message(encodeMessage(message, said++));
  say({ type: "hello", version: protocolVersion, name: "w", host: "h", processId: 1 });
  say({ type: "ready", arithmetic: "a", device: "d", plannedBytes: 0, takesOver: true });
  /** What is in the pipe leaves it, and what waited for that goes there. */
  const empty = async () => {
    for (const left of waiting.splice(0)) left();
    await new Promise((resolve) => setImmediate(resolve));
  };
  return { connection, uploads, sent, say, empty, peer: () => peer };
}

test.each([
  ["cancelled", ({ connection }) => connection.cancel(1), ["cancel"]],
  ["handed back", ({ say }) => say({ type: "handback", lease: 1, reason: "no", units: 0 }), []],
  ["lost with its worker", ({ peer }) => peer().closed("gone"), []],
] as [string, (met: ReturnType<typeof meet>) => void, string[]][])(
  "of a lease that is %s no more is sent, nor read of its state",
  async (_, end, after) => {
    const met = meet();
    await met.empty();
    const state = [0, 1, 2].map(() => new Float32Array(parameters));
    met.connection.lease(order, { losses: 3, vector: true }, windows, state);
    for (let i = 0; i < 3; i++) await met.empty();
    const before = ["welcome", "lease", "windows", "state", "state"];
    expect(met.sent).toEqual(before);
    Object.defineProperty(state[2], "subarray", {
      value: () => {
        throw new Error("its memory is another's by now");
      },
    });
    end(met);
    for (let i = 0; i < 3; i++) await met.empty();
    expect(met.sent).toEqual([...before, ...after]);
  },
);
