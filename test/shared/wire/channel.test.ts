// When a peer that takes nothing in is given up, by a clock that is turned by hand.
import { expect, test } from "vitest";
import { Channel } from "../../../shared/wire/channel.ts";
import type { PipeEvents } from "../../../shared/wire/pipe.ts";
import { decodeFromCoordinator, type FromCoordinator, type FromWorker } from "../../../shared/wire/protocol.ts";

/** A channel whose peer pings for so many seconds and reads nothing. @returns why it was lost, and when */
function sendTo({ pingsForMs, pings }: { pingsForMs: number; pings: boolean }): string | undefined {
  let now = 0;
  let [look, peer] = [() => {}, {} as PipeEvents];
  let lost: string | undefined;
  const channel = new Channel<FromCoordinator, FromWorker>({
    pipe: {
      ...{ isOpen: true, queuedBytes: 0, send: () => {}, ping: () => {}, pause: () => {}, resume: () => {} },
      ...{ close: () => {}, terminate: () => {} },
      listen: (events) => {
        peer = events;
      },
    },
    clock: {
      now: () => now,
      after: () => ({ cancel: () => {} }),
      every: (_ms, act) => {
        look = act;
        return { cancel: () => {} };
      },
    },
    decode: decodeFromCoordinator,
    events: {
      control: () => {},
      frame: () => undefined,
      lost: (reason) => {
        lost = `${reason}, at ${now / 1000} s`;
      },
      broken: (error) => {
        throw error;
      },
    },
  });
  channel.watch(30_000, 6000, pings);
  channel.say({ type: "leaving", reason: "a message that does not leave" });
  for (; now < 600_000 && !lost; now += 6000) {
    if (now < pingsForMs) peer.ping();
    look();
  }
  return lost;
}

test("a worker waits for a coordinator that pings and has no room; not for one that is silent too", () => {
  expect(sendTo({ pingsForMs: 600_000, pings: false })).toBeUndefined();
  expect(sendTo({ pingsForMs: 120_000, pings: false })).toMatch(/^silent for 36.0 s, .*, at 150 s$/);
});

test("a coordinator gives up a worker that reads nothing, whatever it says", () => {
  expect(sendTo({ pingsForMs: 600_000, pings: true })).toMatch(/^has read nothing for 36.0 s, .*, at 36 s$/);
});
