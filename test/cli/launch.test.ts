// `weft launch` with a stand-in for ssh that is this machine's shell. scripts/ci-ssh.sh has the real one.
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { readHosts } from "../../cli/hosts.ts";
import { atStep, killAll, ledgerOf, temporary, text, weft } from "../system/weft.ts";

const folder = temporary();
afterAll(killAll);

/** Notes how it was called; knows two hosts. */
writeFileSync(
  join(folder, "ssh"),
  `#!/bin/sh
echo "$*" >>${folder}/calls
case "$*" in
  *"-O exit"*) exit 0 ;;
  *"-- host-"[ab]" sh") SSH_CONNECTION="127.0.0.1 5000 127.0.0.1 22"; export SSH_CONNECTION; exec sh ;;
  *) echo "ssh: no such host" >&2; exit 255 ;;
esac
`,
);
chmodSync(join(folder, "ssh"), 0o755);
const PATH = `${folder}:${process.env.PATH}`;
const program = `${process.execPath} ${join(import.meta.dirname, "../../dist/cli/weft.js")}`;

function file(value: unknown): string {
  const path = join(temporary(), "hosts.yaml");
  writeFileSync(path, typeof value === "string" ? value : JSON.stringify(value));
  return path;
}

test("the file: a name or a map each, and what is wrong by its field", async () => {
  const path = file("coordinator: me@b\nhosts:\n  - a\n  - { ssh: me@b, weft: npx weft, gpus: all }\n");
  expect(await readHosts(path)).toEqual({
    coordinator: "me@b",
    hosts: [
      { ssh: "a", weft: "weft" },
      { ssh: "me@b", weft: "npx weft", gpus: "all" },
    ],
  });
  const six = file("address: '[fd00::1]'\nhosts:\n  - { ssh: fd00::2, gpus: 0 }\n");
  expect(await readHosts(six)).toMatchObject({ address: "fd00::1", hosts: [{ ssh: "fd00::2", gpus: "0" }] });
  for (const [content, complaint] of [
    ["hosts: [{ ssh: a, gpus: [0, 1] }]", /hosts.0.gpus: .*must be all, none, or numbers such as 0,2/],
    ["hosts: []", /hosts/],
    ["hosts: [-oProxyCommand=x]", /hosts.0.ssh: must be a host as in `ssh HOST`/],
    ["hosts: [{ ssh: a, gpu: all }]", /hosts.0: has an unknown field "gpu"/],
    ["hosts: [a, a]", /has a twice; one entry may have processes: 2/],
    ["hosts: [a]\ncoordinator: b", /coordinator b is none of the hosts \(a\), nor "here"/],
    ["hosts: [a", /is no YAML/],
  ] as const)
    await expect(readHosts(file(content)), content).rejects.toThrow(complaint);
});

test("all that is wrong with the hosts is said before anything starts", async () => {
  const hosts = ["host-a", { ssh: "host-b", weft: "/nowhere/weft" }, "host-x"];
  const run = weft(["launch", file({ hosts })], { PATH: `${folder}:/usr/bin:/bin` });
  expect(await run.ended).toBe(1);
  expect(run.stderr()).toMatch(/host-a has no Weft as "weft": .*not found/);
  expect(run.stderr()).toMatch(/host-b has no Weft as "\/nowhere\/weft": .*not found/);
  expect(run.stderr()).toMatch(
    /host-x cannot be reached: ssh: no such host; `ssh host-x` must work without a question/,
  );
});

test("a run on two hosts; a worker that is killed is started again; Ctrl-C ends all; no secret on a command line", async () => {
  const out = join(temporary(), "run");
  const hosts = ["host-a", "host-b"].map((ssh) => ({ ssh, weft: program, threads: 1 }));
  const tiny = ["--data", text, "--block-size", "8", "--n-layer", "1", "--n-head", "1", "--n-embd", "8"];
  const more = ["--batch-size", "8", "--shards", "4", "--eval-windows", "4", "--steps", "1000000", "--port", "0"];
  const environment = { PATH, WEFT_TOKEN: "a-token-of-this-test" };
  const run = weft(["launch", file({ hosts }), ...tiny, ...more, "--out", out], environment);
  const joined = await run.until(({ msg }) => / joined: /.test(msg));
  await run.until(atStep(5));
  process.kill(Number(/-(\d+) joined/.exec(joined.msg)![1]), "SIGKILL");
  await run.until(({ msg }) => /^the worker on host-[ab] ended with 137.*; starting it again in 1 s/.test(msg));
  run.child.kill("SIGINT");
  expect(await run.ended, run.stderr()).toBe(0);
  expect(run.stdout()).toMatch(/^checkpoint: .*\/step-0.*\nsample: .*\nto go on: /);
  expect(ledgerOf(out).length).toBeGreaterThan(4);
  const calls = readFileSync(join(folder, "calls"), "utf8");
  expect(calls).not.toContain(environment.WEFT_TOKEN);
  expect(calls).toMatch(/ControlMaster=auto .* -- host-b sh\n/);
});
