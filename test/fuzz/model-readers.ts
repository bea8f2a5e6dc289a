// Readers of models: safetensors, their index, config.json, OpenAI's release.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { crc32c } from "../../shared/checkpoint/crc32c.ts";
import { configOf, modelOf, tensorsOf } from "../../shared/checkpoint/huggingface.ts";
import { readRelease } from "../../shared/checkpoint/openai-release.ts";
import { readPretrained } from "../../shared/checkpoint/pretrained.ts";
import { encode, readBytes, readFloats, readHeader } from "../../shared/checkpoint/safetensors.ts";
import { masked } from "../../shared/checkpoint/tensorflow-bundle.ts";
import { ConfigError } from "../../shared/errors.ts";
import { layoutOf } from "../../shared/family/layout.ts";
import { readJson } from "../../shared/json.ts";
import type { ModelConfig } from "../../shared/model.ts";
import type { Files, FuzzReader } from "./reader.ts";

const hex = (bytes: Uint8Array | Float32Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex");
const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

const model: ModelConfig = {
  ...{ family: "gpt2", vocabSize: 5, blockSize: 4, nLayer: 1, nHead: 2, nEmbd: 4, bias: true, dropout: 0.1 },
  ...{ activation: "gelu_tanh", tiedHead: true, layerNormEps: 1e-5 },
};
const weights = Float32Array.from({ length: layoutOf(model).size }, (_, i) => (i % 97) / 64 - 0.7);
const tensors = tensorsOf(model, weights);
const file = (some: typeof tensors, metadata = { format: "pt" }): Buffer => Buffer.concat(encode(some, metadata));

// ---- safetensors, against a reading of our own test: Metadata::validate of the reference library, word for word ----

interface ReferenceTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: string;
}

const referenceBits: Record<string, number> = {
  ...{ BOOL: 8, F4: 4, F6_E2M3: 6, F6_E3M2: 6, U8: 8, I8: 8, F8_E5M2: 8, F8_E4M3: 8, F8_E8M0: 8, F8_E4M3FNUZ: 8 },
  ...{
    F8_E5M2FNUZ: 8,
    I16: 16,
    U16: 16,
    F16: 16,
    BF16: 16,
    I32: 32,
    U32: 32,
    F32: 32,
    C64: 64,
    F64: 64,
    I64: 64,
    U64: 64,
  },
};

function referenceSafetensors(bytes: Buffer): Map<string, ReferenceTensor> | undefined {
  if (bytes.length < 8) return undefined;
  const length = bytes.readBigUInt64LE();
  if (length > 100_000_000n || 8n + length > BigInt(bytes.length)) return undefined;
  const data = bytes.subarray(8 + Number(length));
  let header: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
  try {
    header = JSON.parse(
      new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.subarray(8, 8 + Number(length))),
    );
    if (typeof header !== "object" || header === null || Array.isArray(header)) return undefined;
    const entries = Object.entries(header).filter(([name]) => name !== "__metadata__");
    entries.sort(([, x], [, y]) => x.data_offsets[0] - y.data_offsets[0] || x.data_offsets[1] - y.data_offsets[1]);
    let start = 0n;
    const found = new Map<string, ReferenceTensor>();
    for (const [name, { dtype, shape, data_offsets }] of entries) {
      if (data_offsets.length !== 2) return undefined;
      const [begin, end] = data_offsets.map(BigInt) as [bigint, bigint];
      if (begin !== start || end < begin) return undefined;
      const bits = shape.map(BigInt).reduce((x, y) => x * y, BigInt(referenceBits[dtype]!));
      if (shape.some((size) => size < 0) || bits % 8n !== 0n || end - begin !== bits / 8n) return undefined;
      found.set(name, { dtype, shape, bytes: hex(data.subarray(Number(begin), Number(end))) });
      start = end;
    }
    return start === BigInt(data.length) ? found : undefined;
  } catch {
    return undefined;
  }
}

const safetensors: FuzzReader = {
  name: "safetensors",
  seeds: [
    { files: { "m.safetensors": file(tensors) }, target: "m.safetensors" },
    {
      files: {
        "m.safetensors": file([
          { name: "a", shape: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, 6) },
          { name: "empty", shape: [0, 7], data: new Float32Array(0) },
          { name: "b", shape: [], data: Int32Array.of(7) },
          { name: "c", shape: [3], data: Uint8Array.of(1, 0, 1) },
        ]),
      },
      target: "m.safetensors",
    },
  ],
  // The header's length, where a mutation changed the header.
  mend(bytes) {
    const end = bytes.indexOf("}}");
    if (bytes.length < 10 || end < 0) return bytes;
    const mended = Buffer.from(bytes);
    let length = end + 2 - 8;
    while (mended[8 + length] === 0x20) length++;
    if (length > 0) mended.writeBigUInt64LE(BigInt(length));
    return mended;
  },
  async read(folder, target) {
    const path = join(folder, target);
    const value: [string, ReferenceTensor][] = [];
    for (const entry of (await readHeader(path)).tensors.values()) {
      const bytes = new Uint8Array(entry.length);
      await readBytes(path, entry, bytes);
      if (entry.dtype === "F32") await compareFloats(path, entry, bytes);
      value.push([entry.name, { dtype: entry.dtype, shape: entry.shape, bytes: hex(bytes) }]);
    }
    return value.sort(([x], [y]) => (x < y ? -1 : 1));
  },
  complaint(value, files, target) {
    const reference = referenceSafetensors(files[target]!);
    if (!reference) return "read what the reference refuses";
    const expected = [...reference].sort(([x], [y]) => (x < y ? -1 : 1));
    return JSON.stringify(value) === JSON.stringify(expected)
      ? undefined
      : `read ${JSON.stringify(value).slice(0, 500)}`;
  },
  accepts: (files, target) => referenceSafetensors(files[target]!) !== undefined,
  stricter:
    /twice; which one counts|written in digits|half a character|is (NaN|-?Infinity);|__metadata__ is not a map|more values than can be|its shape is |data_offsets are |is not an object/,
};

/** Float32 come as they stand, or are refused where one is not finite. */
async function compareFloats(path: string, entry: Parameters<typeof readFloats>[1], bytes: Uint8Array): Promise<void> {
  const expected = new Float32Array(bytes.buffer);
  const out = new Float32Array(expected.length);
  const finite = expected.every(Number.isFinite);
  try {
    await readFloats(path, entry, out);
  } catch (error) {
    if (finite || !(error instanceof ConfigError)) throw new Error("finite values refused", { cause: error });
    return;
  }
  if (!finite || hex(out) !== hex(expected)) throw new Error("other values than the file's");
}

// ---- a folder of shards, whose index or config.json is mutated: the weights are the model's or it is refused ----

const half = Math.ceil(tensors.length / 2);
const parts = [tensors.slice(0, half), tensors.slice(half)];
const shardName = (i: number): string => `model-0000${i + 1}-of-00002.safetensors`;
const indexName = "model.safetensors.index.json";
const weightMap = Object.fromEntries(parts.flatMap((part, i) => part.map(({ name }) => [name, shardName(i)])));
const shards: Files = {
  "config.json": json(configOf(model)),
  [shardName(0)]: file(parts[0]!),
  [shardName(1)]: file(parts[1]!),
  [indexName]: json({ metadata: { total_size: 4 * weights.length }, weight_map: weightMap }),
};

const folder: FuzzReader = {
  name: "model-folder",
  seeds: [
    { files: shards, target: indexName },
    { files: shards, target: "config.json" },
  ],
  async read(path) {
    const read = await readPretrained(path);
    return { model: read.model, weights: hex(read.weights) };
  },
  complaint(value) {
    const { model: read, weights: bits } = value as { model: ModelConfig; weights: string };
    // The family's biases may be said not to be there; then they are zero, and here they are not.
    if (bits !== hex(weights)) return "other weights than the shards'";
    const { vocabSize, blockSize, nLayer, nEmbd, bias, tiedHead } = read;
    const same = vocabSize === 5 && blockSize === 4 && nLayer === 1 && nEmbd === 4 && bias && tiedHead;
    return same ? undefined : `another model: ${JSON.stringify(read)}`;
  },
};

// ---- config.json alone ----

const aliases: Record<string, string> = {
  ...{ n_embd: "hidden_size", n_positions: "max_position_embeddings", n_head: "num_attention_heads" },
  n_layer: "num_hidden_layers",
};
const released: Record<string, Record<string, number>> = {
  gpt2: { vocab_size: 50_257, n_positions: 1024, n_embd: 768, n_layer: 12, n_head: 12 },
  "openai-gpt": { vocab_size: 40_478, n_positions: 512, n_embd: 768, n_layer: 12, n_head: 12 },
};

const config: FuzzReader = {
  name: "config",
  seeds: [
    { files: { "config.json": json(configOf(model)) }, target: "config.json" },
    {
      files: { "config.json": json(configOf({ ...model, family: "gpt1", activation: "gelu", bias: false })) },
      target: "config.json",
    },
    {
      files: {
        "config.json": json({
          model_type: "gpt2",
          hidden_size: 8,
          num_hidden_layers: 2,
          n_head: 4,
          n_inner: 32,
          vocab_size: 9,
        }),
      },
      target: "config.json",
    },
  ],
  read: async (path, target) => modelOf(await readJson(join(path, target)), target),
  complaint(value, files, target) {
    const read = value as ModelConfig;
    const raw = JSON.parse(files[target]!.toString("utf8").replace(/^\uFEFF/, "")) as Record<string, unknown>;
    const type = raw.model_type as string;
    if (type === "weft-bigram") return undefined;
    const size = (name: string) => raw[name] ?? raw[aliases[name] ?? "vocab_size"] ?? released[type]![name];
    const expected = [size("vocab_size"), size("n_positions"), size("n_embd"), size("n_layer"), size("n_head")];
    const got = [read.vocabSize, read.blockSize, read.nEmbd, read.nLayer, read.nHead];
    if (JSON.stringify(got) !== JSON.stringify(expected)) return `sizes ${got}, expected ${expected}`;
    if (raw.n_inner != null && type === "gpt2" && raw.n_inner !== 4 * read.nEmbd) return "n_inner is another";
    const tied = raw.tie_word_embeddings ?? true;
    return read.tiedHead === tied && read.nEmbd % read.nHead === 0 ? undefined : "a model that cannot be";
  },
};

// ---- OpenAI's release: a bundle whose blocks are mutated under checksums that fit ----

const release = join(import.meta.dirname, fixtureUp(), "test/fixtures/openai-release");
function fixtureUp(): string {
  // The same from the sources (test/fuzz) and from what they are compiled to (.fuzz/test/fuzz).
  return import.meta.dirname.includes(".fuzz") ? "../../.." : "../..";
}
const releaseFiles: Files = Object.fromEntries(
  readdirSync(release).map((name) => [name, readFileSync(join(release, name))]),
);
const indexFile = Object.keys(releaseFiles).find((name) => name.endsWith(".index"))!;

/** Give every block that the footer and index lead to a checksum that fits, as far as it can be followed. */
function mendBundle(bytes: Buffer): Buffer {
  const mended = Buffer.from(bytes);
  const varint = (at: number): [number, number] => {
    let [value, i] = [0, at];
    for (let scale = 1; i < mended.length && i < at + 8; scale *= 128) {
      value += (mended[i]! & 127) * scale;
      if (mended[i++]! < 128) return [value, i];
    }
    return [-1, i];
  };
  const seal = (offset: number, size: number): void => {
    if (offset < 0 || size < 0 || offset + size + 5 > mended.length) return;
    mended.writeUInt32LE(masked(crc32c(mended.subarray(offset, offset + size + 1))), offset + size + 1);
  };
  if (mended.length < 48) return mended;
  let at = mended.length - 48;
  const handle: number[] = [];
  for (let i = 0; i < 4; i++) [handle[i], at] = varint(at) as [number, number];
  // Data blocks lie from the beginning to the metaindex: seal the first, then the index, which names it.
  seal(0, Math.max(0, handle[0]! - 5));
  seal(handle[0]!, handle[1]!);
  seal(handle[2]!, handle[3]!);
  return mended;
}

let releaseWeights: string | undefined;
const openai: FuzzReader = {
  name: "openai-release",
  seeds: [
    indexFile,
    indexFile,
    "hparams.json",
    "checkpoint",
    Object.keys(releaseFiles).find((name) => name.includes(".data-"))!,
  ].map((target) => ({ files: releaseFiles, target })),
  mend: (bytes, target) => (target === indexFile ? mendBundle(bytes) : bytes),
  async read(path) {
    releaseWeights ??= hex((await readRelease(release)).weights);
    return hex((await readRelease(path)).weights);
  },
  complaint: (value) => (value === releaseWeights ? undefined : "other weights than the release's"),
};

export const modelReaders: readonly FuzzReader[] = [safetensors, folder, config, openai];
