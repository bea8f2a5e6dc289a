// How much memory the coordinator takes where many workers send a large model's gradients at once: the real program, and
// workers that keep nothing, speak the protocol and wait for each other, so that all answers set out together.
import { readFileSync } from "node:fs";
import type { WireFormat } from "../shared/arithmetic/codec.ts";
import { bestCodec } from "../shared/arithmetic/native.ts";
import { systemClock } from "../shared/clock.ts";
import { layoutOf } from "../shared/family/layout.ts";
import { Channel } from "../shared/wire/channel.ts";
import { encodedFrames } from "../shared/wire/frame.ts";
import {
  decodeFromCoordinator,
  type FromCoordinator,
  type FromWorker,
  type LeaseMessage,
  packLosses,
  protocolVersion,
} from "../shared/wire/protocol.ts";
import { dial } from "../shared/wire/web-socket.ts";
import { startCoordinator } from "./coordinator.ts";

export interface MemoryRow {
  readonly workers: number;
  readonly parameters: number;
  readonly wire: WireFormat;
  readonly seconds: number;
  /** The most that the coordinator's process has had. */
  readonly residentBytes: number;
}

/** 12 blocks, 928 wide: as many parameters as GPT-2 has, without its vocabulary. */
const shape = "--n-layer 12 --n-head 16 --n-embd 928 --block-size 8";
const steps = 2;

export async function measureMemory(workers: number, wire: WireFormat): Promise<MemoryRow> {
  const flags = `${shape} --shards ${workers} --batch-size ${workers} --wire ${wire} --timeout 1200`;
  const startedAt = performance.now();
  const coordinator = await startCoordinator(flags, workers);
  const codec = bestCodec(wire);
  let gradient: Float32Array | undefined;
  let holding = 0;
  let begin: () => void = () => {};
  const all = new Promise<void>((resolve) => {
    begin = resolve;
  });
  const join = async (name: string): Promise<void> => {
    const pipe = await dial({ url: coordinator.url, token: undefined, timeoutMs: 60_000 });
    const channel: Channel<FromCoordinator, FromWorker> = new Channel({
      ...{ pipe, clock: systemClock, decode: decodeFromCoordinator },
      events: { control: (message) => hear(message), frame: () => undefined, lost: () => {}, broken: () => {} },
    });
    const answer = ({ lease, count }: LeaseMessage) =>
      channel.add(async () => {
        await all;
        for (const frame of encodedFrames("gradient", lease, gradient!, codec)) await channel.send(frame);
        const losses = packLosses(new Array(count).fill(1));
        await channel.tell({ type: "answer", lease, losses, computeMs: 1 });
      });
    const hear = (message: FromCoordinator) => {
      if (message.type === "welcome") {
        gradient ??= new Float32Array(layoutOf(message.model).size).fill(1e-6);
        channel.say({ type: "ready", arithmetic: "native avx2 float32", device: "none", plannedBytes: 0 });
      }
      if (message.type !== "lease") return;
      if (++holding === workers) begin();
      answer(message);
    };
    channel.say({ type: "hello", version: protocolVersion, name, host: "here", processId: process.pid });
  };
  try {
    await Promise.all(Array.from({ length: workers }, (_, i) => join(`w${i}`)));
    await coordinator.until((status) => status.step >= steps);
    const peak = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${coordinator.pid}/status`, "utf8"))![1];
    return {
      ...{ workers, wire, parameters: gradient!.length },
      seconds: (performance.now() - startedAt) / 1000,
      residentBytes: Number(peak) * 1024,
    };
  } finally {
    coordinator.end();
  }
}
