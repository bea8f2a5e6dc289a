// Readers of data: token files in all their forms, nanoGPT's meta.pkl, and the JSON that Weft itself writes.
import { createHash } from "node:crypto";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { descriptionSchema } from "../../coordinator/data/prepared.ts";
import { TokenFile } from "../../coordinator/data/tokens.ts";
import { checked } from "../../shared/check.ts";
import { stateSchema } from "../../shared/checkpoint/checkpoint.ts";
import { readManifest } from "../../shared/checkpoint/manifest.ts";
import { readMarkers } from "../../shared/checkpoint/rundir.ts";
import { ConfigError } from "../../shared/errors.ts";
import { readJson } from "../../shared/json.ts";
import { openTokenizer } from "../../shared/tokenizers/open.ts";
import { writeOwnFile } from "../../shared/tokenizers/own-file.ts";
import type { FuzzReader } from "./reader.ts";

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

// ---- token files ----

const vocabSize = 11;
const ids = Array.from({ length: 60 }, (_, i) => (i * 7 + 3) % vocabSize);
const u16 = Buffer.from(Uint16Array.from(ids).buffer);
const u32 = Buffer.from(Uint32Array.from(ids).buffer);

function npy(descr: string, shape: string, data: Buffer): Buffer {
  const text = `${`{'descr': '${descr}', 'fortran_order': False, 'shape': ${shape}, }`.padEnd(117)}\n`;
  return Buffer.concat([
    Buffer.from("\x93NUMPY\x01\x00", "latin1"),
    Buffer.from([text.length, 0]),
    Buffer.from(text),
    data,
  ]);
}

function llmc(magic: number, data: Buffer): Buffer {
  const header = Buffer.alloc(1024);
  for (const [i, word] of [magic, 1, ids.length].entries()) header.writeInt32LE(word, 4 * i);
  return Buffer.concat([header, data]);
}

const tokens: FuzzReader = {
  name: "tokens",
  seeds: [
    u16,
    u32,
    npy("<u2", "(60,)", u16),
    npy("<i4", "(6, 10)", u32),
    llmc(20_240_520, u16),
    llmc(20_240_801, u32),
  ].map((bytes) => ({ files: { "a.bin": bytes }, target: "a.bin" })),
  async read(folder, target) {
    const opened = await TokenFile.open(join(folder, target), { vocabSize });
    try {
      await opened.addTo(createHash("sha256"));
      const out = new Int32Array(opened.length);
      await opened.read(0, out);
      return { width: opened.format.width, ids: [...out] };
    } finally {
      await opened.close();
    }
  },
  // The ids stand at the end of the file, in the width that was said, whatever stands before them.
  complaint(value, files, target) {
    const { width, ids: read } = value as { width: 2 | 4; ids: number[] };
    const bytes = files[target]!;
    const start = bytes.length - width * read.length;
    const header =
      bytes.toString("latin1", 0, 6) === "\x93NUMPY" ||
      [20_240_520, 20_240_801].includes(bytes.length >= 1024 ? bytes.readInt32LE(0) : 0);
    if (start < 0 || start > 0 !== header) return `${read.length} ids of ${width} bytes in ${bytes.length}`;
    for (const [i, id] of read.entries()) {
      const expected = width === 2 ? bytes.readUInt16LE(start + 2 * i) : bytes.readUInt32LE(start + 4 * i);
      if (id !== expected || id >= vocabSize) return `token ${i} is ${id}, expected ${expected}`;
    }
    return undefined;
  },
};

// ---- meta.pkl: what is read is a vocabulary of characters; scripts/ci-fuzz-oracles.sh asks Python for the same ----

const characters = [..."\n !abcé🦊"];
const short = (text: string): Buffer =>
  Buffer.concat([Buffer.from([0x8c, Buffer.byteLength(text)]), Buffer.from(text), Buffer.from([0x94])]);
const meta = Buffer.concat([
  Buffer.from([0x80, 4, 0x95, 0, 0, 0, 0, 0, 0, 0, 0]),
  ...[
    Buffer.from("}\x94(", "latin1"),
    short("vocab_size"),
    Buffer.from([0x4b, characters.length]),
    short("itos"),
    Buffer.from("}\x94(", "latin1"),
  ],
  ...characters.flatMap((character, id) => [Buffer.from([0x4b, id]), short(character)]),
  ...[Buffer.from("u"), short("stoi"), Buffer.from("}\x94(", "latin1")],
  ...characters.flatMap((_, id) => [Buffer.from([0x68, 4 + id]), Buffer.from([0x4b, id])]),
  Buffer.from("uu."),
]);

const pickle: FuzzReader = {
  name: "meta-pkl",
  seeds: [{ files: { "meta.pkl": meta }, target: "meta.pkl" }],
  async read(folder) {
    const tokenizer = await openTokenizer(folder);
    return Array.from({ length: tokenizer.vocabSize }, (_, id) => tokenizer.decode([id]));
  },
  complaint(value) {
    const read = value as string[];
    const single = read.every((token) => [...token].length === 1);
    return single && new Set(read).size === read.length ? undefined : `read ${JSON.stringify(read)}`;
  },
};

// ---- JSON that Weft wrote: what is read is what stands there, or nothing ----

function jsonReader(
  name: string,
  target: string,
  value: unknown,
  read: (folder: string) => Promise<unknown>,
): FuzzReader {
  return {
    name,
    seeds: [{ files: { [target]: json(value) }, target }],
    read: async (folder) => read(folder),
    complaint(found, files) {
      const raw = JSON.parse(files[target]!.toString("utf8").replace(/^\uFEFF/, ""));
      return isDeepStrictEqual(found, raw) ? undefined : `read ${JSON.stringify(found)}`;
    },
  };
}

const sha256 = "ab".repeat(32);
const file = { bytes: 7, sha256 };
const whole = (folder: string, name: string, schema: Parameters<typeof checked>[0]) =>
  readJson(join(folder, name)).then((value) => checked(schema, value, name));

/** Broken markers are found anew, which is said. */
const heard = (folder: string) =>
  readMarkers(folder, (why) => {
    throw new ConfigError(why);
  });

const ours: readonly FuzzReader[] = [
  jsonReader(
    "manifest",
    "manifest.json",
    { format: "weft-checkpoint", version: 1, step: 400, files: { "config.json": file, "model.safetensors": file } },
    readManifest,
  ),
  jsonReader("markers", "markers.json", { best: { step: 3, valLossNats: 1.5 }, final: { step: 4 } }, heard),
  jsonReader(
    "state",
    "state.json",
    {
      ...{ step: 4, seed: 1337, options: { nLayer: 2, data: "x", resume: false }, arithmetic: "native avx2 float32" },
      ...{ weightsDigest: "ab", ledger: { lines: 4, head: sha256 }, dataset: { name: "t", fingerprint: sha256 } },
      ...{ tokensSeen: 100, lossNats: 2.5, valLossNats: 2.4 },
    },
    (folder) => whole(folder, "state.json", stateSchema),
  ),
  jsonReader(
    "data-json",
    "data.json",
    {
      ...{ format: "weft-tokens", version: 1, source: "t.txt", tokenizer: "char", vocabSize: 65, dtype: "uint16" },
      ...{ trainTokens: 90, valTokens: 10, sha256 },
    },
    (folder) => whole(folder, "data.json", descriptionSchema),
  ),
];

const words = ["not", "all", "héroes", "wear", "🦊"];

const vocabulary: FuzzReader = {
  name: "weft-tokenizer",
  seeds: (["char", "word"] as const).map((kind) => ({
    files: {
      "weft-tokenizer.json": Buffer.from([...writeOwnFile(kind, kind === "char" ? characters : words).values()][0]!),
    },
    target: "weft-tokenizer.json",
  })),
  async read(folder) {
    const tokenizer = await openTokenizer(folder);
    return Array.from({ length: tokenizer.vocabSize }, (_, id) => tokenizer.decode([id]));
  },
  complaint(value, files, target) {
    const raw = JSON.parse(files[target]!.toString("utf8").replace(/^\uFEFF/, "")) as { tokens: string[] };
    return isDeepStrictEqual(value, raw.tokens) ? undefined : `read ${JSON.stringify(value)}`;
  },
};

export const dataReaders: readonly FuzzReader[] = [tokens, pickle, ...ours, vocabulary];
