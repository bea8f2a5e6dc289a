import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { ledgerStart } from "../../coordinator/ledger.ts";
import { setUpRun } from "../../coordinator/setup.ts";
import { writeCheckpoint } from "../../shared/checkpoint/checkpoint.ts";
import { configOf, tensorsOf } from "../../shared/checkpoint/huggingface.ts";
import { loadModel } from "../../shared/checkpoint/rundir.ts";
import { encode } from "../../shared/checkpoint/safetensors.ts";
import { modelOf } from "../../shared/config.ts";
import { initialWeights } from "../../shared/family/init.ts";
import { layoutOf } from "../../shared/family/layout.ts";
import { keptOptions, mergeOptions } from "../../shared/resolve.ts";
import { CharTokenizer } from "../../shared/tokenizers/char.ts";
import { bucket, type MemoryStore, startMemoryStore } from "./object-store.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "weft-setup-"));
  await writeFile(join(folder, "text.txt"), "caba".repeat(100));
  await writeFile(join(folder, "words.txt"), "a\nb\n");
});
afterEach(() => rm(folder, { recursive: true }));

/** A model with the tokenizer of these characters beside it. */
async function pretrained(
  characters: string,
  flags: Record<string, unknown> = {},
  vocabSize?: number,
): Promise<string> {
  const tokenizer = CharTokenizer.of(characters);
  const model = modelOf(mergeOptions(sources(flags)).options, vocabSize ?? tokenizer.vocabSize);
  const directory = join(folder, "model");
  await mkdir(directory);
  await writeFile(join(directory, "config.json"), JSON.stringify(configOf(model)));
  const weights = initialWeights(layoutOf(model), 1);
  await writeFile(join(directory, "model.safetensors"), encode(tensorsOf(model, weights), { format: "pt" }));
  for (const [name, content] of tokenizer.toFiles()) await writeFile(join(directory, name), content);
  return directory;
}

function sources(flags: Record<string, unknown> = {}) {
  const small = { nLayer: 1, nHead: 1, nEmbd: 4, blockSize: 4, batchSize: 2, shards: 2 };
  const files = { data: join(folder, "text.txt"), out: join(folder, "run") };
  return { flags: { ...small, ...files, ...flags } };
}

async function setUp(flags: Record<string, unknown>) {
  const run = await setUpRun(sources(flags), pino({ level: "silent" }), { substitute: false });
  await run.ledger.close();
  return run;
}

test("--init-from brings its tokenizer along: the text's own characters would mean other rows", async () => {
  const { dataset, model } = await setUp({ initFrom: await pretrained("abcdef") });
  expect(model.vocabSize).toBe(6);
  const ids = new Int32Array(4);
  await dataset.read("train", 0, 4, ids);
  expect([...ids]).toEqual([2, 0, 1, 0]);
});

/** Options of a run that says nothing about its model. */
async function setUpPlain(flags: Record<string, unknown>) {
  const files = { data: join(folder, "text.txt"), out: join(folder, "run"), batchSize: 2, shards: 2 };
  const run = await setUpRun({ flags: { ...files, ...flags } }, pino({ level: "silent" }), { substitute: false });
  await run.ledger.close();
  return run;
}

test("--init-from says what the model is, and the run's options say it too", async () => {
  const initFrom = await pretrained("abc");
  const { model, options: saved, weights } = await setUpPlain({ initFrom, dropout: 0.25 });
  const shape = { family: "gpt2", nLayer: 1, nHead: 1, nEmbd: 4, blockSize: 4 };
  expect(model).toMatchObject({ ...shape, vocabSize: 3, dropout: 0.25 });
  expect(saved).toMatchObject(shape);
  expect(weights).toEqual((await loadModel(initFrom, () => {})).weights);
});

test("a shorter --block-size keeps the first positions and all other weights", async () => {
  const initFrom = await pretrained("abc");
  const whole = await loadModel(initFrom, () => {});
  const { model, layout, weights } = await setUpPlain({ initFrom, blockSize: 3 });
  expect(model.blockSize).toBe(3);
  for (const { name, offset, size } of layout.parameters) {
    const from = whole.layout.byName.get(name)!;
    expect(from.size - size, name).toBe(name.endsWith("wpe.weight") ? 4 : 0);
    expect(weights.slice(offset, offset + size), name).toEqual(whole.weights.slice(from.offset, from.offset + size));
  }
});

test("a flag that contradicts --init-from is refused", async () => {
  const initFrom = await pretrained("abc");
  await expect(setUpPlain({ initFrom, nLayer: 2 })).rejects.toThrow("its model has nLayer 1, this run 2");
  await expect(setUpPlain({ initFrom, blockSize: 8 })).rejects.toThrow("its model has blockSize 4, this run 8");
});

test("a flag that contradicts --init-from is refused even where its value is the default, every one by name", async () => {
  const initFrom = await pretrained("abc");
  await expect(setUpPlain({ initFrom, nLayer: 12, nEmbd: 768, nHead: 1 })).rejects.toThrow(
    "its model has nLayer 1, this run 12; nEmbd 4, this run 768",
  );
  await expect(setUpPlain({ initFrom, blockSize: 1024 })).rejects.toThrow("its model has blockSize 4, this run 1024");
});

test("a text with a character that --init-from does not know is refused", async () => {
  const initFrom = await pretrained("abd");
  await expect(setUp({ initFrom })).rejects.toThrow(/character "c" \(U\+0063\) at position 0 is not in the vocabulary/);
});

test("another --tokenizer than the one beside the weights is refused", async () => {
  const initFrom = await pretrained("abc");
  const tokenizer = `word:${join(folder, "words.txt")}`;
  await expect(setUp({ initFrom, tokenizer })).rejects.toThrow(/is not the one that lies beside .*pass --tokenizer/);
});

test("--tokenizer gpt2 reaches the data", async () => {
  const { dataset } = await setUp({ tokenizer: "gpt2" });
  expect([dataset.tokenizer.name, dataset.tokenizer.vocabSize]).toEqual(["gpt2", 50_257]);
});

test("--unknown skip trains on what the vocabulary has, and says how much it left out", async () => {
  const initFrom = await pretrained("ab");
  await expect(setUp({ initFrom })).rejects.toThrow(
    "training can leave such out (--unknown skip) or learn them (--extend-vocabulary)",
  );
  const { dataset } = await setUp({ initFrom, unknown: "skip" });
  expect([dataset.train.length + dataset.val.length, dataset.tokenizer.skipped]).toEqual([300, 100]);
});

test.each(["gpt2", "gpt1", "bigram"] as const)(
  "--extend-vocabulary: %s gets rows for new characters, and keeps all others",
  async (family) => {
    const shape = family === "bigram" ? { family, nLayer: 0, nHead: 0, nEmbd: 0, blockSize: 4 } : { family };
    const tiedHead = family === "bigram";
    const initFrom = await pretrained("ab", { ...shape, tiedHead });
    const old = await loadModel(initFrom, () => {});
    const { dataset, model, layout, weights } = await setUp({
      initFrom,
      extendVocabulary: true,
      ...shape,
      tiedHead,
      seed: 5,
    });
    expect([model.vocabSize, dataset.tokenizer.decode([0, 1, 2])]).toEqual([3, "abc"]);
    const fresh = initialWeights(layout, 5);
    for (const {
      key,
      name,
      offset,
      shape: [rows, width = 1],
      size,
    } of layout.parameters) {
      const before = old.layout.byKey.get(key)!;
      for (let i = 0; i < size; i++) {
        const [row, column] = [Math.floor(i / width), i % width];
        const isOld = before.size === size || (row < 2 && (key !== "table.weight" || column < 2));
        const from = before.size === size ? i : row * (key === "table.weight" ? 2 : width) + column;
        const expected = isOld ? old.weights[before.offset + from] : fresh[offset + i];
        expect(weights[offset + i], `${name} of ${rows} rows [${row}, ${column}]`).toBe(expected);
      }
    }
  },
);

test("--extend-vocabulary redraws padding that becomes a character", async () => {
  const initFrom = await pretrained("ab", {}, 5);
  const { model, layout, weights } = await setUp({ initFrom, extendVocabulary: true, seed: 5 });
  expect(model.vocabSize).toBe(5);
  const { offset } = layout.byKey.get("tokens.weight")!;
  expect(weights.slice(offset + 8, offset + 20)).toEqual(initialWeights(layout, 5).slice(offset + 8, offset + 20));
  expect(weights.slice(offset, offset + 8)).toEqual(
    (await loadModel(initFrom, () => {})).weights.slice(offset, offset + 8),
  );
});

test("--extend-vocabulary reads the column of --text-column, as training does", async () => {
  const data = join(folder, "rows.jsonl");
  await writeFile(data, `${JSON.stringify({ body: "caba", text: "z" })}\n`.repeat(20));
  const { dataset } = await setUp({
    data,
    textColumn: "body",
    initFrom: await pretrained("ab"),
    extendVocabulary: true,
  });
  expect([dataset.tokenizer.vocabSize, dataset.tokenizer.decode([0, 1, 2])]).toEqual([3, "abc"]);
});

test.each<[string, Record<string, unknown>, RegExp]>([
  ["without --init-from", {}, /there is no --init-from/],
  ["of another tokenizer", { tokenizer: "gpt2" }, /there is no --init-from/],
])("--extend-vocabulary %s is refused", async (_, flags, message) => {
  await expect(setUp({ extendVocabulary: true, ...flags })).rejects.toThrow(message);
});

describe("the store of --checkpoint-to", () => {
  const address = `s3://${bucket}/run`;
  const keepTen = { checkpointTo: address, keepCheckpoints: 10 };
  let store: MemoryStore;
  beforeAll(async () => {
    store = await startMemoryStore();
  });
  afterAll(() => store[Symbol.asyncDispose]());
  beforeEach(() => store.objects.clear());

  /** Leaves a checkpoint, as a run with these flags would. */
  async function begin(flags: Record<string, unknown>): Promise<void> {
    const { model, weights, dataset, options, mirror } = await setUp(flags);
    await mirror?.settled();
    const state = {
      ...{ step: 0, seed: options.seed, options: keptOptions(options), arithmetic: "a", weightsDigest: "" },
      ...{ ledger: ledgerStart, dataset: { name: dataset.name, fingerprint: dataset.fingerprint }, tokensSeen: 0 },
    };
    const tokenizer = dataset.tokenizer.toFiles();
    await writeCheckpoint(options.out, { model, weights, optimizer: { m: weights, v: weights }, tokenizer, state });
  }

  test("--resume goes on with the run's own, and keeps there as many as the run does", async () => {
    await begin(keepTen);
    const { mirror } = await setUp({ resume: true });
    expect(mirror!.keep).toBe(10);
    mirror!.changed();
    await mirror!.settled();
    expect([...store.objects.keys()]).toContain("run/step-000000/manifest.json");
  });

  test('--checkpoint-to "" leaves it out, another address and another number are taken', async () => {
    await begin(keepTen);
    expect((await setUp({ resume: true, checkpointTo: "" })).mirror).toBeUndefined();
    expect(store.objects.size).toBe(0);
    const { mirror } = await setUp({ resume: true, checkpointTo: `s3://${bucket}/other`, keepCheckpoints: 2 });
    expect(mirror!.keep).toBe(2);
    mirror!.changed();
    await mirror!.settled();
    expect([...store.objects.keys()]).toContain("other/step-000000/manifest.json");
  });

  test("a run that is brought from there says how many it keeps", async () => {
    await begin(keepTen);
    const sent = await setUp({ resume: true });
    sent.mirror!.changed();
    await sent.mirror!.settled();
    await rm(join(folder, "run"), { recursive: true });
    const { mirror, step } = await setUp({ resume: true, checkpointTo: address });
    expect([step, mirror!.keep]).toEqual([0, 10]);
    await mirror!.settled();
  });

  test("who is put in quarantine is kept out there too, at once", async () => {
    const { quarantine, mirror } = await setUp({ checkpointTo: address });
    quarantine.add({ names: ["liar"], address: null, why: "lied", step: 0, at: "2026-01-01T00:00:00.000Z" });
    await expect.poll(() => String(store.objects.get("run/quarantine.json"))).toContain("liar");
    await mirror!.settled();
  });
});
