// `weft launch` on three hosts with an sshd each: what is lost, killed or interrupted changes no bit and leaves nothing.
import { spawnSync } from "node:child_process";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeAll, expect, test } from "vitest";
import { atStep, digestOf, killAll, ledgerOf, type Running, temporary, text, weft } from "./weft.ts";

const hosts = process.env.WEFT_SSH_HOSTS ?? "";
const program = `${process.execPath} ${join(import.meta.dirname, "../../dist/cli/weft.js")}`;
/** A folder that every host has for itself. */
const disk = join(hosts, "disk");
const steps = 900;
const tiny = [
  ...["--data", text, "--block-size", "16", "--n-layer", "2", "--n-head", "2", "--n-embd", "48", "--batch-size", "16"],
  ...["--shards", "8", "--warmup-steps", "5", "--steps", String(steps), "--eval-windows", "40", "--eval-interval", "0"],
];
const names = ["host-a", "host-b", "host-c"];
let undisturbed: string;
afterEach(() => {
  killAll();
  for (const host of names) startHost(host);
});

/** A file for three hosts. @param as what they are called by, where that is not their names */
function hostsFile(coordinator: string, changes: Record<string, object> = {}, as: readonly string[] = names): string {
  const path = join(temporary(), "hosts.yaml");
  const list = names.map((name, i) => ({ ssh: as[i], weft: program, threads: 1, ...changes[name] }));
  writeFileSync(path, JSON.stringify({ coordinator, sshConfig: join(hosts, "ssh_config"), hosts: list }));
  return path;
}

const launch = (file: string, out: string, ...more: string[]): Running =>
  weft(["launch", file, ...tiny, "--port", "7171", "--out", out, "--checkpoint-interval", "100", ...more]);

/** Processes of a host, its sshd too. */
function pidsOf(host: string): number[] {
  const { stdout } = spawnSync("ip", ["netns", "pids", `weft-${host}`], { encoding: "utf8" });
  return stdout.split("\n").filter(Boolean).map(Number);
}

/** Command lines of Weft on a host, with their process ids. */
function running(host: string): string[] {
  const lines = pidsOf(host).map((pid) =>
    spawnSync("ps", ["-o", "pid=,args=", "-p", String(pid)], { encoding: "utf8" }).stdout.trim(),
  );
  return lines.filter((line) => / (worker|coordinator) /.test(line));
}

/** Every process of a host ends at once. */
async function killHost(host: string): Promise<void> {
  for (let pids = pidsOf(host); pids.length > 0; pids = pidsOf(host)) {
    spawnSync("kill", ["-9", ...pids.map(String)]);
    await sleep(50);
  }
}

function startHost(host: string): void {
  if (pidsOf(host).length === 0) spawnSync("sh", [join(hosts, `start-${host}`)]);
}

async function expectNothingLeft(): Promise<void> {
  for (const host of names) {
    for (let tries = 0; running(host).length > 0 && tries < 50; tries++) await sleep(200);
    expect([host, running(host)]).toEqual([host, []]);
  }
}

const workersOf = (out: string): string[] => [
  ...new Set(ledgerOf(out).flatMap(({ parts }) => parts.map(({ worker }) => worker.replace(/-\d+$/, "")))),
];

beforeAll(async () => {
  expect(hosts, "WEFT_SSH_HOSTS is not set: start this test with scripts/ci-ssh.sh").not.toBe("");
  const out = temporary();
  const run = launch(hostsFile("here"), out);
  expect(await run.ended, run.stderr()).toBe(0);
  expect(workersOf(out).sort()).toEqual(["host-a", "host-b", "host-c"]);
  expect(run.stdout()).toContain(`checkpoint: ${join(out, `step-000${steps}`)}`);
  await expectNothingLeft();
  undisturbed = digestOf(out);
});

test("a host that is killed is named, and the run goes on without it to the same bits", async () => {
  const out = temporary();
  const run = launch(hostsFile("here"), out, "--steps", String(steps), "--timeout", "5");
  await run.until(atStep(60));
  await killHost("host-c");
  await run.until(({ msg }) => msg.startsWith("host-c is lost"));
  startHost("host-c");
  // A worker alone: it is started again.
  process.kill(Number.parseInt(running("host-b")[0]!, 10), "SIGKILL");
  await run.until(({ msg }) => /^the worker on host-b ended with 137.*starting it again/.test(msg));
  expect(await run.ended, run.stderr()).toBe(0);
  expect(digestOf(out)).toBe(undisturbed);
  await expectNothingLeft();
});

test("the coordinator's host is killed: it goes on there when the host is back, and its checkpoint comes here", async () => {
  const run = launch(hostsFile("host-a"), join(disk, "killed"));
  await run.until(({ msg }) => /checkpoint \S+step-000200$/.test(msg));
  await killHost("host-a");
  await run.until(({ msg }) => msg.startsWith("the coordinator on host-a is lost"));
  startHost("host-a");
  await run.until(({ msg }) => /^host-a: resuming from .*step-000[2-8]00/.test(msg));
  expect(await run.ended, run.stderr()).toBe(0);
  expect(digestOf(join(disk, "killed"))).toBe(undisturbed);
  expect(readdirSync(join(disk, "killed"))).toContain(`step-000${steps}`);
  await expectNothingLeft();
});

test("Ctrl-C stops all, and what came here from the coordinator's host goes on here, over IPv6 and TLS, to the same bits", async () => {
  const out = join(disk, "stopped");
  const stopped = launch(hostsFile("host-b"), out);
  await stopped.until(atStep(60));
  stopped.child.kill("SIGINT");
  expect(await stopped.ended, stopped.stderr()).toBe(0);
  expect(stopped.stdout()).toContain("to go on:   the same command with --resume");
  await expectNothingLeft();
  const addresses = ["fd77::11", "fd77::12", "fd77::13"];
  const run = launch(hostsFile("here", {}, addresses), out, "--resume", "--tls", "self-signed");
  await run.until(({ msg }) => /host-c-\d+ joined/.test(msg));
  // Without TLS it would be ws, without the fingerprint refused: the certificate is nobody's.
  expect(running("host-c").join()).toMatch(/--coordinator wss:\/\/\[fd77::1\]:7171#sha256:[\w-]{43}/);
  expect(await run.ended, run.stderr()).toBe(0);
  expect(digestOf(out)).toBe(undisturbed);
});

test("what is wrong with the hosts is said, all of it, before anything starts", async () => {
  const changes = { "host-a": { weft: "/nowhere/weft" }, "host-b": { gpus: "all" } };
  const path = hostsFile("here", changes);
  await killHost("host-c");
  const run = launch(path, temporary());
  expect(await run.ended).toBe(1);
  expect(run.stderr()).toMatch(/host-a has no Weft as "\/nowhere\/weft": .*not found/);
  expect(run.stderr()).toMatch(/host-b has no GPU/);
  expect(run.stderr()).toMatch(/host-c cannot be reached: .*Connection refused/);
});
