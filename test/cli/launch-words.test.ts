// What launch tells the machines to start: where they meet, over either kind of address and with TLS, and with several GPUs.
import { expect, test } from "vitest";
import type { HostEntry } from "../../cli/hosts.ts";
import { coordinatorWords, type Machine, meetingOf, missingGpus, urlFor, workerWords } from "../../cli/launch-words.ts";
import { resolveOptions } from "../../shared/resolve.ts";

const entry = (ssh: string, more: Partial<HostEntry> = {}): HostEntry => ({ ssh, weft: "weft", ...more });
const machine = (ssh: string, client = "", server = ""): Machine => ({
  entry: entry(ssh),
  weft: "weft",
  client,
  server,
});
const resolved = (flags: Record<string, string | number | boolean> = {}) => resolveOptions({ flags });
const fingerprint = `sha256:${"a".repeat(43)}`;

test("each machine calls the coordinator as ssh came to it, this one by the loopback", () => {
  const machines = [machine("here"), machine("a", "10.0.0.1", "10.0.0.11"), machine("b", "10.9.0.1", "10.9.0.2")];
  expect(meetingOf(resolved(), machines, undefined, undefined)).toEqual({
    listen: "0.0.0.0",
    calls: ["127.0.0.1", "10.0.0.1", "10.9.0.1"],
  });
  expect(meetingOf(resolved(), machines, machines[1], undefined).calls).toEqual([
    "10.0.0.11",
    "127.0.0.1",
    "10.0.0.11",
  ]);
  expect(meetingOf(resolved(), machines, undefined, "head.lan").calls).toEqual(["127.0.0.1", "head.lan", "head.lan"]);
});

test("a coordinator that listens at one address is called there, by its own machine too", () => {
  const machines = [machine("here"), machine("a", "10.0.0.1", "10.0.0.11")];
  expect(meetingOf(resolved({ host: "10.0.0.1" }), machines, undefined, undefined)).toEqual({
    listen: "10.0.0.1",
    calls: ["10.0.0.1", "10.0.0.1"],
  });
});

test("IPv6: it listens on both kinds, the address stands in brackets, and TLS's fingerprint stays behind it", () => {
  const machines = [machine("a", "fd77::1", "fd77::11"), machine("b", "10.0.0.1", "10.0.0.12")];
  const { listen, calls } = meetingOf(resolved(), machines, undefined, undefined);
  expect(listen).toBe("::");
  expect(calls.map((call) => urlFor(`wss://head:7171#${fingerprint}`, call))).toEqual([
    `wss://[fd77::1]:7171#${fingerprint}`,
    `wss://10.0.0.1:7171#${fingerprint}`,
  ]);
  expect(urlFor("ws://[::]:7171", "head.lan")).toBe("ws://head.lan:7171");
  expect(() => meetingOf(resolved(), [machine("a", "fe80::1%eth0")], undefined, undefined)).toThrow(
    /^launch: a would reach the coordinator by fe80::1%eth0, .*say another with address:/,
  );
});

test("the words: options that were asked for, and nothing of this machine's token or folder to resume", () => {
  const asked = resolved({ tls: "self-signed", steps: 5, sharedMemory: false, tokenFile: "t", resume: true });
  const words = coordinatorWords(asked, "::", 7171, { resume: true });
  expect(words.join(" ")).toBe(
    "coordinator --steps 5 --tls self-signed --no-shared-memory --host :: --port 7171 --no-stay --resume",
  );
  expect(coordinatorWords(asked, "::", 7171, {}).at(-1)).toBe("--no-stay");
});

test("GPUs: one command a host, which the launcher there makes a process each of; what a host lacks is said by number", () => {
  const four = [0, 1, 2, 3].map((i) => `GPU ${i}: NVIDIA H100 80GB HBM3 (UUID: GPU-${i})`);
  const words = (more: Partial<HostEntry>) => workerWords(resolved(), entry("a", more), "ws://h:1").join(" ");
  expect(words({ gpus: "all" })).toBe("worker --gpus all --coordinator ws://h:1");
  expect(words({ gpus: "0,3", threads: 4 })).toBe("worker --gpus 0,3 --threads 4 --coordinator ws://h:1");
  expect(words({ processes: 2 })).toBe("worker --processes 2 --coordinator ws://h:1");
  for (const gpus of ["all", "0,3", "none", undefined]) expect(missingGpus(entry("a", { gpus }), four)).toBeUndefined();
  expect(missingGpus(entry("a", { gpus: "0,4,5" }), four)).toBe(
    "launch: a has no GPU 4, 5, which gpus: 0,4,5 asks for; nvidia-smi lists 4: 0, 1, 2, 3",
  );
  expect(missingGpus(entry("a", { gpus: "all" }), [])).toMatch(/a has no GPU that nvidia-smi lists/);
  expect(missingGpus(entry("a", { gpus: "none" }), [])).toBeUndefined();
});
