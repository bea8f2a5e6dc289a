import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { digestOf } from "../../../shared/arithmetic/vector.ts";
import { readCheckpoint, type Snapshot, writeCheckpoint } from "../../../shared/checkpoint/checkpoint.ts";
import {
  checkpointSteps,
  loadModel,
  mark,
  newestCheckpoint,
  prune,
  readMarkers,
} from "../../../shared/checkpoint/rundir.ts";
import { initialWeights } from "../../../shared/family/init.ts";
import { layoutOf } from "../../../shared/family/layout.ts";
import type { ModelConfig } from "../../../shared/model.ts";

const model: ModelConfig = {
  family: "gpt2",
  vocabSize: 65,
  blockSize: 16,
  nLayer: 2,
  nHead: 2,
  nEmbd: 32,
  bias: false,
  dropout: 0,
  activation: "gelu",
  tiedHead: true,
  layerNormEps: 1e-5,
};
const layout = layoutOf(model);

function snapshotOf(step: number): Snapshot {
  const weights = initialWeights(layout, step);
  weights.set([-0, 1e-45, 3.4e38]); // the sign of zero, a denormal, the largest
  return {
    model,
    weights,
    optimizer: { m: initialWeights(layout, step + 1000), v: initialWeights(layout, step + 2000) },
    tokenizer: new Map([["tokenizer.json", '{"kind":"char"}']]),
    state: {
      step,
      seed: 2 ** 40 + 1,
      options: { preset: "x", learningRate: 1e-3 },
      arithmetic: "tfjs wasm float32",
      weightsDigest: digestOf(weights),
      ledger: { lines: step, head: "ab" },
      dataset: { name: "shakespeare", fingerprint: "cd" },
      tokensSeen: 768 * step,
      valLossNats: 2,
    },
  };
}

let run: string;
beforeEach(async () => {
  run = await mkdtemp(join(tmpdir(), "weft-run-"));
});
afterEach(() => rm(run, { recursive: true }));

const bytesOf = (x: Float32Array | undefined): string =>
  Buffer.from(x!.buffer, x!.byteOffset, x!.byteLength).toString("hex");
const files = ["config.json", "model.safetensors", "optimizer.safetensors", "state.json", "tokenizer.json"];
const skipped: string[] = [];
const watch = { optimizer: true, onSkip: (why: string) => void skipped.push(why) };
beforeEach(() => void skipped.splice(0));

test("comes back bit for bit, optimizer and state too", async () => {
  const snapshot = snapshotOf(400);
  const path = await writeCheckpoint(run, snapshot);
  expect(path).toBe(join(run, "step-000400"));
  expect((await readdir(path)).sort()).toEqual([...files, "manifest.json"].sort());
  const back = await readCheckpoint(path, { optimizer: true });
  expect(bytesOf(back.weights)).toBe(bytesOf(snapshot.weights));
  expect(bytesOf(back.optimizer?.m)).toBe(bytesOf(snapshot.optimizer.m));
  expect(bytesOf(back.optimizer?.v)).toBe(bytesOf(snapshot.optimizer.v));
  expect(back.state).toEqual(snapshot.state);
  expect(back.model).toEqual(model);
  expect((await readCheckpoint(path, { optimizer: false })).optimizer).toBeUndefined();
});

test("an optimizer's state comes back by the names it was given, whatever they are", async () => {
  const optimizer = {
    momentum: initialWeights(layout, 1),
    m: initialWeights(layout, 2),
    second: initialWeights(layout, 3),
  };
  const path = await writeCheckpoint(run, { ...snapshotOf(3), optimizer });
  expect((await readCheckpoint(path, { optimizer: true })).optimizer).toEqual(optimizer);
  const none = await writeCheckpoint(run, { ...snapshotOf(4), optimizer: {} });
  expect((await readCheckpoint(none, { optimizer: true })).optimizer).toEqual({});
});

test("writing a step again replaces it", async () => {
  await writeCheckpoint(run, snapshotOf(5));
  const changed = { ...snapshotOf(5), weights: initialWeights(layout, 99) };
  const back = await readCheckpoint(await writeCheckpoint(run, changed), { optimizer: false });
  expect(bytesOf(back.weights)).toBe(bytesOf(changed.weights));
  expect(await readdir(run)).toEqual(["step-000005"]);
});

describe("only what the manifest proves is trusted", () => {
  for (const name of files) {
    test(`${name} cut short, changed or gone: the reason is said and the one before is taken`, async () => {
      await writeCheckpoint(run, snapshotOf(350));
      const path = await writeCheckpoint(run, snapshotOf(400));
      const file = join(path, name);
      const bytes = await readFile(file);
      await truncate(file, bytes.length - 5);
      await expect(readCheckpoint(path, watch)).rejects.toThrow(`${name} is 5 bytes short of its manifest`);
      bytes[bytes.length - 2]! ^= 1;
      await writeFile(file, bytes);
      await expect(readCheckpoint(path, watch)).rejects.toThrow(`${name} was changed: its SHA-256`);
      await rm(file);
      expect((await newestCheckpoint(run, watch))?.state.step).toBe(350);
      expect(skipped).toEqual([expect.stringContaining(`${name} is in the manifest but cannot be opened (ENOENT)`)]);
    });
  }

  test("without a manifest, or with a foreign one, it is no checkpoint", async () => {
    const path = await writeCheckpoint(run, snapshotOf(1));
    await writeFile(join(path, "manifest.json"), "{}");
    await expect(readCheckpoint(path, watch)).rejects.toThrow(/not a manifest of Weft/);
    await truncate(join(path, "manifest.json"), 1);
    await expect(readCheckpoint(path, watch)).rejects.toThrow(/manifest\.json: not JSON/);
    await rm(join(path, "manifest.json"));
    await expect(newestCheckpoint(run, watch)).rejects.toThrow(/none of its 1 checkpoints is whole/);
  });

  test("a manifest whose names leave the directory is refused", async () => {
    const path = await writeCheckpoint(run, snapshotOf(1));
    const manifest = JSON.parse(await readFile(join(path, "manifest.json"), "utf8"));
    manifest.files["../../secret"] = manifest.files["state.json"];
    await writeFile(join(path, "manifest.json"), JSON.stringify(manifest));
    await expect(readCheckpoint(path, watch)).rejects.toThrow(/not a manifest of Weft/);
  });

  test("a directory under another step's name is used as what it is", async () => {
    const path = await writeCheckpoint(run, snapshotOf(1));
    await rename(path, join(run, "mine"));
    expect((await readCheckpoint(join(run, "mine"), watch)).state.step).toBe(1);
  });
});

describe("a writer that dies", () => {
  test("at any file leaves the one before as the newest, and the next prune clears up", async () => {
    const whole = await writeCheckpoint(run, snapshotOf(10));
    const leftover = join(run, ".unfinished-step-000020");
    const written = [...files, "manifest.json"];
    for (let count = 0; count <= written.length; count++) {
      await mkdir(leftover);
      for (const name of written.slice(0, count)) await cp(join(whole, name), join(leftover, name));
      expect((await newestCheckpoint(run, watch))?.state.step).toBe(10);
      await prune(run, 5);
      expect(await readdir(run)).toEqual(["step-000010"]);
    }
    await mkdir(leftover);
    await writeFile(join(leftover, "config.json"), "half");
    await writeCheckpoint(run, snapshotOf(20));
    expect((await newestCheckpoint(run, watch))?.state.step).toBe(20);
    expect(skipped).toEqual([]);
  });

  test("because it was told to leaves nothing", async () => {
    const stop = new AbortController();
    stop.abort(new Error("second SIGINT"));
    await expect(writeCheckpoint(run, snapshotOf(3), { signal: stop.signal })).rejects.toThrow("second SIGINT");
    expect(await readdir(run)).toEqual([]);
  });
});

test("an absent or empty run has no checkpoint, which is no error", async () => {
  expect(await newestCheckpoint(join(run, "absent"), watch)).toBeUndefined();
  expect(await newestCheckpoint(run, watch)).toBeUndefined();
});

test("pruning keeps the newest and the marked", async () => {
  for (const step of [1, 2, 3, 4, 1_000_000]) await writeCheckpoint(run, snapshotOf(step));
  await mark(run, { best: { step: 2, valLossNats: 1.5 } });
  await mark(run, { final: { step: 1 } });
  expect(await readMarkers(run)).toEqual({ best: { step: 2, valLossNats: 1.5 }, final: { step: 1 } });
  await prune(run, 2);
  expect(await checkpointSteps(run)).toEqual([1_000_000, 4, 2, 1]);
});

describe("the model that a path names", () => {
  const load = (path: string) => loadModel(path, watch.onSkip);

  test("a checkpoint, a run's best, its newest, a plain model", async () => {
    const one = await writeCheckpoint(run, snapshotOf(1));
    await writeCheckpoint(run, snapshotOf(2));
    expect((await load(one)).what).toBe(`checkpoint ${one} (validation loss 2.0000)`);
    expect((await load(run)).what).toContain("step-000002 (newest whole");
    await mark(run, { best: { step: 1, valLossNats: 2 } });
    expect((await load(run)).what).toContain("step-000001 (best");
    await mark(run, { final: { step: 1 } });
    await truncate(join(one, "config.json"), 3);
    expect((await load(run)).what).toContain("step-000002 (newest whole");
    expect(skipped).toEqual([expect.stringMatching(/config\.json is \d+ bytes short of its manifest/)]);
    await writeCheckpoint(run, snapshotOf(1));
    await rm(join(one, "manifest.json"));
    expect((await load(one)).what).toBe(`Hugging Face model ${one}`);
  });

  test("nothing there", async () => {
    await expect(load(join(run, "no"))).rejects.toThrow(/no such directory/);
    await expect(load(run)).rejects.toThrow(/neither a checkpoint .*, a run .* nor a model \(config/);
  });
});
