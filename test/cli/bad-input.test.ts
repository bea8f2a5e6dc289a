// Bad input gets one clear line on standard error and exit status 1; nothing is overwritten or lost.
import { mkdir, readdir, truncate, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { killAll, temporary, text, weft } from "../system/weft.ts";

const directory = temporary();
const tiny = [
  ...["--data", text, "--block-size", "8", "--n-layer", "1", "--n-head", "1", "--n-embd", "8", "--steps", "2"],
  ...["--batch-size", "4", "--shards", "4", "--eval-windows", "4", "--sample-tokens", "0", "--port", "0"],
];
const trained = join(directory, "trained");

beforeAll(async () => {
  await writeFile(join(directory, "empty.txt"), "");
  await writeFile(join(directory, "short.txt"), "too short");
  await writeFile(join(directory, "wrong.json"), '{"nLayers": 3}');
  await writeFile(join(directory, "type.yaml"), "nLayer: many\n");
  await writeFile(join(directory, "list.yaml"), "- nLayer\n- 3\n");
  await writeFile(join(directory, "proto.json"), '{"__proto__": {"steps": 5}}');
  await writeFile(join(directory, "endless.yaml"), "steps: .inf\n");
  await writeFile(join(directory, "broken.yaml"), "nLayer: [3\n");
  await mkdir(join(directory, "foreign"));
  const run = weft(["train", ...tiny, "--out", trained]);
  expect(await run.ended, run.stderr()).toBe(0);
});
afterAll(killAll);

/** The one line that a command ends with. */
async function complaint(args: readonly string[]): Promise<string> {
  const run = weft(args);
  expect(await run.ended, `${run.stderr()}${run.stdout()}`).toBe(1);
  const lines = run
    .stderr()
    .trimEnd()
    .split("\n")
    .filter((line) => !line.startsWith("{"));
  expect(lines, run.stderr()).toHaveLength(1);
  return lines[0]!;
}

const out = ["--out", join(directory, "new")];

test.each([
  [["train", "--n-layers", "3"], /unknown option '--n-layers'.*--n-layer/],
  [["train", "--preset", "shakespear-cpu"], 'unknown preset "shakespear-cpu"; did you mean "shakespeare-cpu"?'],
  [["train", "--learning-rate", "3e-4x"], '--learning-rate must be a number above 0, got "3e-4x"'],
  [["train", "--learning-rate", "-1"], "--learning-rate must be a number above 0, got -1"],
  [["train", "--family", "gpt3"], /--family.*"gpt2".*got "gpt3"/],
  [["train", "--batch-size", "10", "--shards", "4"], "--batch-size 10 does not divide into 4 shards"],
  [["train", "--shards", "3"], "--shards must be a power of two, got 3"],
  [["train", ...tiny, "--n-embd", "9", "--n-head", "2", ...out], "nEmbd 9 does not divide into nHead 2 heads"],
  [
    ["train", "--config", join(directory, "wrong.json")],
    /unknown key "nLayers" in .*wrong.json; did you mean "nLayer"\?/,
  ],
  [
    ["train", "--config", join(directory, "type.yaml")],
    /"nLayer" in .*type.yaml must be a whole number at least 0, got "many"/,
  ],
  // Before the data is looked for.
  [
    ["train", "--n-layer", "200", "--n-head", "100", "--n-embd", "20000", "--data", join(directory, "absent"), ...out],
    /this machine cannot hold gpt2: 200 layers.*GB are free; take a smaller model/,
  ],
  [["train", "--config", join(directory, "absent.json")], "cannot be read (ENOENT)"],
  [["train", ...tiny, "--data", join(directory, "empty.txt"), ...out], "there is no text in it"],
  [["train", ...tiny, "--data", join(directory, "absent.txt"), ...out], "absent.txt"],
  [["train", ...tiny, "--data", join(directory, "short.txt"), ...out], "too short"],
  [["train", ...tiny, "--out", trained], "already holds a run, up to step 2; go on with --resume"],
  [
    ["train", ...tiny, "--out", trained, "--resume", "--n-embd", "16"],
    "--n-embd is 8 and cannot become 16: the weights",
  ],
  [["train", "--out", trained, "--resume", "--steps", "1"], "--steps 1 lies behind it: 2 steps are done already"],
  [
    ["train", "--out", join(directory, "foreign"), "--resume"],
    /nothing to resume in .*foreign.*runs: .*trained \(step 2\)/,
  ],
  [
    ["train", "--out", trained, "--resume", "--seed", "7", "--precision", "bf16"],
    /--seed is 1337 .* 7.*--precision is float32/,
  ],
  [
    ["train", "--learning-rate", "1e-5"],
    "--min-learning-rate 0.0001 (from the preset) is above --learning-rate 0.00001",
  ],
  [["train", "--steps", "50", "--warmup-steps", "60"], "--warmup-steps 60 are more than --steps 50"],
  [["train", "--decay-steps", "50"], "--decay-steps 50 is not after the warm-up, --warmup-steps 100"],
  [["train", "--schedule", "constant", "--decay-steps", "500"], "--decay-steps belongs to a schedule that decays"],
  [["train", "--family", "bigram", "--n-layer", "2"], "a bigram is a table of token pairs"],
  [["sample", "--checkpoint", trained, "--step", "2"], "--step belongs to --from"],
  [["train", ...tiny, "--init-from", trained, "--n-embd", "16", ...out], "its model has nEmbd 8, this run 16"],
  [["train", ...tiny, "--init-from", join(directory, "foreign"), ...out], "foreign"],
  [["worker", "--coordinator", "ws://127.0.0.1:9", "--patience", "0"], /cannot be reached.*ECONNREFUSED/],
  [["worker", "--coordinator", "host-a:7070"], /--coordinator must be an address such as ws:.*got \["host-a:7070"\]/],
  [["sample", "--checkpoint", trained, "--engine", "native", "--backend", "wasm"], /--backend belongs to the tfjs/],
  [["sample", "--checkpoint", join(directory, "foreign")], "foreign"],
  [["sample", "--checkpoint", trained, "--prompt", "\u2603"], /\u2603/],
  [["sample", "--checkpoint", join(directory, "short.txt")], /short.txt: a file; name the folder of a checkpoint/],
  [["help", "smaple"], 'unknown command "smaple"; did you mean "sample"?'],
  [["data", "help", "nothing-like-it"], 'unknown command "nothing-like-it"; there are prepare, info'],
  [["worker", "--processes", "x"], '--processes must be a whole number at least 1 and at most 1024, got "x"'],
  [["train", "--config", join(directory, "list.yaml")], /list.yaml must hold options by name.*it holds a list$/],
  [["train", "--config", join(directory, "short.txt")], /short.txt must hold options by name.*holds a single string$/],
  [["train", "--config", join(directory, "broken.yaml")], /broken.yaml is neither JSON nor YAML: \S/],
  [["train", "--config", join(directory, "proto.json")], /unknown key "__proto__" in .*proto.json/],
  [
    ["train", "--config", join(directory, "endless.yaml")],
    /"steps" in .*endless.yaml must be a whole number.*, got Infinity$/,
  ],
  [["eval", "--checkpoint", trained, "--data", join(directory, "empty.txt")], "there is no text in it"],
])("weft %j", async (args, message) => {
  const line = await complaint(args);
  if (message instanceof RegExp) expect(line).toMatch(message);
  else expect(line).toContain(message);
});

test("a port in use is named, with the cure", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as { port: number };
  expect(await complaint(["train", ...tiny, ...out, "--port", String(port)])).toContain(
    `port ${port} on 127.0.0.1 is in use; choose another with --port`,
  );
  server.close();
});

test("a truncated checkpoint is named, and the run resumes from the one before it", async () => {
  const two = join(directory, "two");
  const args = ["train", ...tiny, "--out", two, "--checkpoint-interval", "1"];
  expect(await weft(args).ended).toBe(0);
  expect((await readdir(two)).filter((name) => name.startsWith("step-"))).toEqual(["step-000001", "step-000002"]);
  await truncate(join(two, "step-000002", "model.safetensors"), 100);
  const line = await complaint(["sample", "--checkpoint", join(two, "step-000002")]);
  expect(line).toMatch(/model.safetensors is [\d,]+ bytes short of its manifest/);
  const resumed = weft([...args, "--resume"]);
  expect(await resumed.ended, resumed.stderr()).toBe(0);
  expect(resumed.stderr()).toMatch(/model.safetensors is [\d,]+ bytes short/);
  expect(resumed.log.find(({ msg }) => msg.startsWith("resuming"))?.step).toBe(1);
});
