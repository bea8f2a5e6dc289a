import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { diagnose, doctorCommand, printed, type Report, type Speed } from "../../cli/doctor.ts";
import { type LinkReport, megabytesPerSecond, testLink } from "../../cli/doctor-link.ts";
import { examine, featuresOf, nodeFinding } from "../../cli/doctor-machine.ts";
import { Remote } from "../../cli/remote.ts";
import { linkLimit } from "../../coordinator/serve/link.ts";
import { resolveOptions } from "../../shared/resolve.ts";
import { protocolVersion } from "../../shared/wire/protocol.ts";
import { type ServedRun, serveRun } from "../coordinator/served-run.ts";

const token = "0123456789abcdef";
const bigram = { options: resolveOptions({ preset: "bigram" }).options, preset: "bigram" };
let run: ServedRun;
beforeAll(async () => {
  run = await serveRun({ token, steps: [] });
});
afterAll(() => run[Symbol.asyncDispose]());

test("every part of the machine has its line", async () => {
  const { findings } = await examine(0);
  const says = Object.fromEntries(findings.map(({ what, says }) => [what, says]));
  expect(Object.keys(says)).toEqual(
    expect.arrayContaining(["Node", "CPU", "memory", "disk", "port", "compiler", "native engine", "TensorFlow"]),
  );
  expect(says.Node).toBe(`${process.versions.node} on ${process.platform} ${process.arch}`);
  expect(says.memory).toMatch(/^\d+\.\d GiB free of \d+\.\d GiB$/);
  expect(findings.filter(({ what, state }) => state === "bad" && what !== "disk")).toEqual([]);
});

test("a port in use is said to be", async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  const { findings } = await examine(port);
  await new Promise((resolve) => server.close(resolve));
  const says = `${port} cannot be listened on (EADDRINUSE); a coordinator here needs another --port`;
  expect(findings.find(({ what }) => what === "port")).toEqual({ what: "port", state: "absent", says });
});

test("with a GPU: its line, the driver's CUDA, and TensorFlow is missed", async () => {
  const folder = mkdtempSync(join(tmpdir(), "weft-doctor-"));
  const { PATH, WEFT_CACHE_DIR } = process.env;
  const gpu = "0, GPU-aaaa1111, NVIDIA H100 80GB HBM3, 81559, 550.54.15, 00000000:3B:00.0";
  const script = `#!/bin/sh\nif [ "$1" = -q ]; then echo "CUDA Version                    : 12.4"; else echo "${gpu}"; fi\n`;
  writeFileSync(join(folder, "nvidia-smi"), script, { mode: 0o755 });
  Object.assign(process.env, { PATH: `${folder}:${PATH}`, WEFT_CACHE_DIR: folder });
  try {
    const { findings } = await examine(0);
    const lines = ["GPU 0", "CUDA", "TensorFlow"].map((name) => findings.find(({ what }) => what === name));
    expect(lines).toEqual([
      { what: "GPU 0", state: "good", says: "NVIDIA H100 80GB HBM3, 81559 MiB, driver 550.54.15" },
      { what: "CUDA", state: "good", says: "12.4 and older, by the driver" },
      { what: "TensorFlow", state: "bad", says: 'not installed; "weft install tensorflow --cuda" builds it' },
    ]);
  } finally {
    process.env.PATH = PATH;
    if (WEFT_CACHE_DIR === undefined) delete process.env.WEFT_CACHE_DIR;
    else process.env.WEFT_CACHE_DIR = WEFT_CACHE_DIR;
    rmSync(folder, { recursive: true });
  }
});

test("Node too old, and features by the kernel's names", () => {
  expect(nodeFinding("18.20.4")).toMatchObject({ state: "bad", says: expect.stringMatching(/needs 20.19 or later$/) });
  expect(nodeFinding("20.18.9").state).toBe("bad");
  expect([nodeFinding("20.19.0").state, nodeFinding("24.1.0").state]).toEqual(["good", "good"]);
  expect(featuresOf("flags\t\t: fpu avx2 avx512f fma avx512_bf16 avx512vl\n")).toBe(": avx2 fma avx512f avx512_bf16");
  expect(featuresOf("Features\t: fp asimd sve bf16\n")).toBe(": asimd sve bf16");
  expect(featuresOf("")).toBe("");
});

test("the link is measured through the coordinator's own port", async () => {
  const link = await testLink(new Remote(run.url, token));
  expect(link).toMatchObject({ run: "shakespeare-cpu", weft: "0.1.0", protocol: String(protocolVersion) });
  for (const value of [link.roundTripMs, link.downMBps, link.upMBps]) expect(value).toBeGreaterThan(0);
  await expect(testLink(new Remote(run.url, undefined))).rejects.toThrow(/set WEFT_TOKEN or --token-file/);
});

test("transfers grow until one takes long enough, and no further than is allowed", async () => {
  const sizes: number[] = [];
  const at = (speed: number) => async (bytes: number) => {
    sizes.push(bytes / 2 ** 20);
    // A fifth of a megabyte is gone at once, into buffers; a round trip comes on top.
    return 0.01 + Math.max(0, bytes - 2e5) / speed;
  };
  expect(await megabytesPerSecond(at(1e6))).toBeCloseTo(1);
  expect(sizes).toEqual([0.25, 0.25, 1]);
  sizes.length = 0;
  expect(await megabytesPerSecond(at(10e6))).toBeCloseTo(10);
  expect(sizes).toEqual([0.25, 0.25, 1, 4, 16]);
  sizes.length = 0;
  expect(await megabytesPerSecond(at(1e9))).toBeCloseTo(1000);
  expect(sizes).toEqual([0.25, 0.25, 1, 4, 16, 64]);
  expect(64 * 2 ** 20).toBeLessThanOrEqual(linkLimit);
  // A token bucket that was full, as of a shaped link: so many bytes pass at once.
  let bucket = 2 ** 18;
  const shaped = async (bytes: number) => {
    const waits = Math.max(0, bytes - bucket);
    bucket = Math.max(0, bucket - bytes);
    return waits / 1e6;
  };
  expect(await megabytesPerSecond(shaped)).toBeCloseTo(1);
});

test("a whole diagnosis with a coordinator, in one screen", async () => {
  const coordinator = run.url.replace("http", "ws");
  const report = await diagnose({ ...bigram, port: 0, coordinator, token, workers: 2 });
  const { speed, advice } = report as Report & { speed: Speed };
  expect(speed).toMatchObject({ preset: "bigram", parameters: 65 * 65, tokensPerStep: 256 });
  expect(advice!.take.tokensPerSec).toBeLessThan(2 * speed.tokensPerSec);
  expect(JSON.parse(JSON.stringify(report))).toEqual(report);
  const screen = printed(report);
  expect(screen).toMatch(/^ok {2}speed {10}[\d.,]+ tokens\/s with bigram \(4,225 parameters\)$/m);
  expect(screen).toMatch(/^ok {2}link {11}round trip [\d.,]+ ms, [\d.,]+ MB\/s from it, [\d.,]+ MB\/s to it$/m);
  expect(screen).toMatch(/^tokens\/s to expect of 2 workers like this machine, by wire/m);
  expect(screen).toMatch(/^ok {2}coordinator {4}shakespeare-cpu, weft 0.1.0, protocol \d+$/m);
  expect(printed({ ...report, link: { ...(report.link as LinkReport), protocol: "1" } })).toMatch(
    /^!! {2}coordinator .* protocol 1; /m,
  );
  const lines = screen.split("\n");
  expect(lines.length).toBeLessThan(60);
  // But for what cannot be broken, such as a path.
  for (const line of lines) if (/\S +\S+ \S/.test(line.slice(18))) expect(line.length, line).toBeLessThanOrEqual(80);
});

test("a link that fails leaves the rest of the diagnosis", async () => {
  const report = await diagnose({ ...bigram, port: 0, coordinator: "ws://127.0.0.1:9", token, workers: 1 });
  expect(report).toMatchObject({
    speed: { preset: "bigram" },
    link: expect.stringMatching(/is the coordinator running/),
  });
  expect(report.advice).toBeUndefined();
  expect(report.findings.length).toBeGreaterThan(5);
  expect(printed(report)).toMatch(
    /^ok {2}speed [\s\S]*^!! {2}link {11}[\s\S]*127\.0\.0\.1:9[\s\S]*is\s+the\s+coordinator\s+running/m,
  );
});

test.each([
  [["--preset", "shakespear-cpu"], 'unknown preset "shakespear-cpu"; did you mean "shakespeare-cpu"?'],
  [["--coordinator", "ws://a:1", "--coordinator", "ws://b:2"], "--coordinator may be given once, not also ws://b:2"],
  [["--workers", "3"], "--workers is of those on the link to a --coordinator; name one"],
])("%j is refused by name", async (words, why) => {
  await expect(doctorCommand().parseAsync(words, { from: "user" })).rejects.toThrow(why);
});
