import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { configOf, modelOf, tensorsOf } from "../../../shared/checkpoint/huggingface.ts";
import { readPretrained } from "../../../shared/checkpoint/pretrained.ts";
import { encode, type TensorToWrite } from "../../../shared/checkpoint/safetensors.ts";
import { initialWeights } from "../../../shared/family/init.ts";
import { layoutOf } from "../../../shared/family/layout.ts";
import { type ModelConfig, modelSchema } from "../../../shared/model.ts";
import { safetensors } from "./safetensors-file.ts";

const tinyModel: ModelConfig = {
  family: "gpt2",
  vocabSize: 11,
  blockSize: 6,
  nLayer: 2,
  nHead: 2,
  nEmbd: 8,
  bias: true,
  dropout: 0.1,
  activation: "gelu_tanh",
  tiedHead: true,
  layerNormEps: 1e-5,
};

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "weft-hf-"));
});
afterEach(() => rm(directory, { recursive: true }));

const weightsOf = (model: ModelConfig): Float32Array => initialWeights(layoutOf(model), 7);

async function writeModel(model: ModelConfig, tensors: readonly TensorToWrite[]): Promise<void> {
  await writeFile(join(directory, "config.json"), JSON.stringify(configOf(model)));
  await writeFile(join(directory, "model.safetensors"), Buffer.concat(encode(tensors, { format: "pt" })));
}

const variants: Record<string, ModelConfig> = {
  "gpt2, tanh": tinyModel,
  "gpt2, exact GELU, own head": { ...tinyModel, activation: "gelu", tiedHead: false },
  "gpt2 without biases": { ...tinyModel, bias: false },
  "gpt1, exact GELU": { ...tinyModel, family: "gpt1", activation: "gelu" },
  "gpt1, tanh, own head": { ...tinyModel, family: "gpt1", tiedHead: false },
  bigram: {
    ...tinyModel,
    ...{
      family: "bigram",
      nLayer: 0,
      nHead: 0,
      nEmbd: 0,
      bias: false,
      dropout: 0,
      activation: "gelu",
      tiedHead: false,
    },
  },
};

describe("a model comes back bit for bit", () => {
  for (const [name, model] of Object.entries(variants))
    test(name, async () => {
      modelSchema.parse(model);
      const weights = weightsOf(model).map((w, i) => w + i * 1e-3);
      await writeModel(model, tensorsOf(model, weights));
      const back = await readPretrained(directory);
      expect(back.model).toEqual(model);
      expect(Buffer.from(back.weights.buffer).equals(Buffer.from(weights.buffer))).toBe(true);
    });
});

describe("what transformers and its ancestors leave in a file", () => {
  const weights = weightsOf(tinyModel);
  const tensors = tensorsOf(tinyModel, weights);
  const wte = tensors[0]!;

  test("names without the prefix, as GPT2Model and the first release wrote them", async () => {
    await writeModel(
      tinyModel,
      tensors.map((tensor) => ({ ...tensor, name: tensor.name.replace("transformer.", "") })),
    );
    expect((await readPretrained(directory)).weights).toEqual(weights);
  });

  test("causal masks and the tied head's copy", async () => {
    const mask = { name: "transformer.h.0.attn.bias", shape: [1, 1, 6, 6], data: new Uint8Array(36) };
    const fill = { name: "h.1.attn.masked_bias", shape: [], data: Float32Array.of(-1e4) };
    await writeModel(tinyModel, [...tensors, mask, fill, { ...wte, name: "lm_head.weight" }]);
    expect((await readPretrained(directory)).weights).toEqual(weights);
  });

  test("buffers and heads for other tasks, of whatever type", async () => {
    await writeModel(tinyModel, [
      ...tensors,
      { name: "multiple_choice_head.summary.bias", shape: [1], data: Float32Array.of(1) },
    ]);
    const path = join(directory, "model.safetensors");
    const file = await readFile(path);
    const end = 8 + Number(file.readBigUInt64LE());
    const header = JSON.parse(file.subarray(8, end).toString());
    let begin = file.length - end;
    const buffers = {
      "h.0.attn.bias": ["U64", 64],
      "h.1.attn.bias": ["F8_E4M3", 8],
      "h.0.attn.masked_bias": ["F4", 4],
    };
    for (const [name, [dtype, bits]] of Object.entries(buffers) as [string, [string, number]][]) {
      const length = (36 * bits) / 8;
      header[name] = { dtype, shape: [1, 1, 6, 6], data_offsets: [begin, begin + length] };
      begin += length;
    }
    const data = Buffer.alloc(begin);
    file.copy(data, 0, end);
    await writeFile(path, safetensors(header, data));
    expect((await readPretrained(directory)).weights).toEqual(weights);
  });

  test("one name of a tied pair, either of them", async () => {
    await writeModel(tinyModel, [...tensors.slice(1), { ...wte, name: "lm_head.weight" }]);
    expect((await readPretrained(directory)).weights).toEqual(weights);
  });

  test("names that a compiled or distributed model puts before its own", async () => {
    await writeModel(
      tinyModel,
      tensors.map((tensor) => ({ ...tensor, name: `module._orig_mod.${tensor.name}` })),
    );
    expect((await readPretrained(directory)).weights).toEqual(weights);
  });

  test("sizes under their other names, and what only training asks for", () => {
    const { n_embd, n_layer, n_head, n_positions, ...rest } = configOf(tinyModel);
    const other = { hidden_size: n_embd, num_hidden_layers: n_layer, num_attention_heads: n_head };
    const config = { ...rest, ...other, max_position_embeddings: n_positions, attn_pdrop: 0.3, embd_pdrop: 0 };
    expect(modelOf(config, "c.json")).toEqual(tinyModel);
    expect(modelOf({ model_type: "openai-gpt" }, "c.json")).toMatchObject({ vocabSize: 40_478, blockSize: 512 });
    expect(modelOf({ ...configOf(tinyModel), activation_function: "gelu_python" }, "c").activation).toBe("gelu");
  });

  test("a byte order mark before config.json", async () => {
    await writeModel(tinyModel, tensors);
    await writeFile(join(directory, "config.json"), `\uFEFF${JSON.stringify(configOf(tinyModel))}`);
    expect((await readPretrained(directory)).weights).toEqual(weights);
  });

  test("an index of an earlier model beside a whole one, which counts", async () => {
    await writeModel(tinyModel, tensors);
    const map = JSON.stringify({ weight_map: { "transformer.wte.weight": "model-00001-of-00001.safetensors" } });
    await writeFile(join(directory, "model.safetensors.index.json"), map);
    expect((await readPretrained(directory)).weights).toEqual(weights);
    const other = tensors.map(({ data, ...rest }) => ({ ...rest, data: (data as Float32Array).map((x) => x + 1) }));
    await writeFile(join(directory, "model-00001-of-00001.safetensors"), Buffer.concat(encode(other, {})));
    expect((await readPretrained(directory)).weights).toEqual(weights);
  });

  test("shards and their index", async () => {
    await writeModel(tinyModel, []);
    await rm(join(directory, "model.safetensors"));
    const weightMap: Record<string, string> = {};
    for (const half of [0, 1]) {
      const file = `model-0000${half + 1}-of-00002.safetensors`;
      const part = tensors.filter((_, i) => i % 2 === half);
      for (const { name } of part) weightMap[name] = file;
      await writeFile(join(directory, file), Buffer.concat(encode(part, {})));
    }
    await writeFile(join(directory, "model.safetensors.index.json"), JSON.stringify({ weight_map: weightMap }));
    expect((await readPretrained(directory)).weights).toEqual(weights);
    // What has a whole model's name and is no file is none.
    await mkdir(join(directory, "model.safetensors"));
    expect((await readPretrained(directory)).weights).toEqual(weights);
    const swapped = Object.fromEntries(
      Object.entries(weightMap).map(([name, file]) => [name, file.replace("1-of", "2-of")]),
    );
    await writeFile(join(directory, "model.safetensors.index.json"), JSON.stringify({ weight_map: swapped }));
    await expect(readPretrained(directory)).rejects.toThrow(
      /00002-of-00002.safetensors: .*announces tensor .*wte.* there, absent/,
    );
    await writeFile(join(directory, "model.safetensors.index.json"), JSON.stringify({ weight_map: weightMap }));
    await rm(join(directory, "model-00002-of-00002.safetensors"));
    await expect(readPretrained(directory)).rejects.toThrow(/model-00002-of-00002.safetensors: cannot be opened/);
  });
});

describe("refused by name", () => {
  const tensors = tensorsOf(tinyModel, weightsOf(tinyModel));
  const refused = async (changed: readonly TensorToWrite[], message: RegExp, model = tinyModel): Promise<void> => {
    await writeModel(model, changed);
    await expect(readPretrained(directory)).rejects.toThrow(message);
  };

  test("a wrong shape, with both shapes", () =>
    refused(
      tensors.map((t) => (t.name.endsWith("h.1.mlp.c_fc.weight") ? { ...t, shape: [32, 8] } : t)),
      /tensor transformer\.h\.1\.mlp\.c_fc\.weight is \[32,8\], config\.json asks for \[8,32\]/,
    ));
  test("sizes beyond any memory, before it is taken", () =>
    refused(tensors, /tensor transformer\.wte\.weight is \[11,8\], config\.json asks for \[1000000,65536\]/, {
      ...tinyModel,
      vocabSize: 1_000_000,
      nEmbd: 65_536,
    }));
  test("metadata that is no text", async () => {
    await writeModel(tinyModel, []);
    const header = Buffer.from('{"__metadata__":{"format":1}}');
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    await writeFile(join(directory, "model.safetensors"), Buffer.concat([length, header]));
    await expect(readPretrained(directory)).rejects.toThrow(/its __metadata__ is not a map of texts/);
  });
  test("a missing tensor", () =>
    refused(
      tensors.filter(({ name }) => !name.endsWith("ln_f.bias")),
      /tensor ln_f\.bias is missing; config\.json asks for \[8\]/,
    ));
  test("a surplus tensor", () =>
    refused(
      [...tensors, { name: "h.2.ln_1.bias", shape: [1], data: new Float32Array(1) }],
      /surplus tensor h\.2\.ln_1\.bias \[1\]/,
    ));
  test("heads for other tasks are left out by name, as GPT2LMHeadModel ignores them", async () => {
    const names = [
      "score.weight",
      "v_head.summary.weight",
      "classifier.bias",
      "lm_head.bias",
      "multiple_choice_head.c",
    ];
    const heads = names.map((name) => ({ name, shape: [1], data: new Float32Array(1) }));
    await writeModel(tinyModel, [...tensors, ...heads]);
    const { others, weights } = await readPretrained(directory);
    expect([...others].sort()).toEqual([...names].sort());
    await writeModel(tinyModel, tensors);
    expect(await readPretrained(directory)).toMatchObject({ others: [], weights });
  });
  test("a tied head may hold -0 where the embedding has 0", async () => {
    const [tokens, ...rest] = tensors as [TensorToWrite, ...TensorToWrite[]];
    const zero = (value: number) => (tokens.data.slice() as Float32Array).fill(value, 5, 6);
    const both = [
      { ...tokens, data: zero(0) },
      { ...tokens, name: "lm_head.weight", data: zero(-0) },
    ];
    await writeModel(tinyModel, [...both, ...rest]);
    expect((await readPretrained(directory)).weights[5]).toBe(0);
  });
  test("dropout of 1 is no matter of the weights", () =>
    expect(modelOf({ ...configOf(tinyModel), resid_pdrop: 1 }, "c.json").dropout).toBe(0));
  test.each([
    [Number.NaN, "NaN"],
    [Number.POSITIVE_INFINITY, "Infinity"],
    [Number.NEGATIVE_INFINITY, "-Infinity"],
  ])("a weight that is %f, with its place", (value, shown) => {
    const data = new Float32Array(tensors.find(({ name }) => name.endsWith("h.1.mlp.c_fc.weight"))!.data);
    data[3 * 32 + 5] = value;
    return refused(
      tensors.map((t) => (t.name.endsWith("h.1.mlp.c_fc.weight") ? { ...t, data } : t)),
      new RegExp(`model.safetensors: tensor transformer\\.h\\.1\\.mlp\\.c_fc\\.weight\\[3, 5\\] is ${shown};`),
    );
  });
  test("weights of a type that is no float", async () => {
    await writeModel(
      tinyModel,
      tensors.map((t) => (t.name.endsWith("ln_f.bias") ? { ...t, data: new Int32Array(8) } : t)),
    );
    await expect(readPretrained(directory)).rejects.toThrow(/ln_f\.bias is of I32, weights are read from F32, F64/);
  });
  test("the same tensor twice", () =>
    refused(
      [...tensors, { ...tensors[0]!, name: "wte.weight" }],
      /wte\.weight is also in .* as transformer\.wte\.weight/,
    ));
  test("a head that is said to be tied and is not", () => {
    const data = tensors[0]!.data.slice() as Float32Array;
    data[5]! += 1;
    return refused([...tensors, { ...tensors[0]!, name: "lm_head.weight", data }], /lm_head\.weight\[5\] is .* tied/);
  });
  test("a bias that is not zero in a model without biases", () =>
    refused(
      tensors.map((t) => (t.name.endsWith("h.0.ln_2.bias") ? { ...t, data: new Float32Array(8).fill(0.5, 3) } : t)),
      /h\.0\.ln_2\.bias\[3\] is 0\.5, but config\.json says that the model has no biases/,
      { ...tinyModel, bias: false },
    ));
  test("models that Weft does not have", () => {
    const config = configOf(tinyModel);
    const at = "c.json";
    expect(() => modelOf({ ...config, model_type: "llama" }, at)).toThrow(/c\.json: not a model that Weft has/);
    expect(() => modelOf({ ...config, n_inner: 16 }, at)).toThrow(/n_inner is 16, Weft has 4 \* n_embd = 32/);
    expect(() => modelOf({ ...config, activation_function: "relu" }, at)).toThrow(/activation_function/);
    expect(() => modelOf({ ...config, scale_attn_by_inverse_layer_idx: true }, at)).toThrow(/inverse_layer_idx/);
    const quantized = { quantization_config: { quant_method: "gptq", bits: 4 } };
    expect(() => modelOf({ ...config, ...quantized }, at)).toThrow(/quantization_config: quantized weights/);
    expect(() => modelOf({ ...config, pruned_heads: { 0: [1] } }, at)).toThrow(
      /pruned_heads: attention heads were taken/,
    );
    expect(() => modelOf({ ...config, add_cross_attention: true }, at)).toThrow(/add_cross_attention: attention to an/);
    const nothing = { quantization_config: null, pruned_heads: {}, add_cross_attention: false };
    expect(modelOf({ ...config, ...nothing }, at)).toEqual(modelOf(config, at));
    expect(() => modelOf({ ...config, n_layer: "two" }, at)).toThrow('c.json: n_layer: expected number, got "two"');
    expect(() => modelOf({ ...config, hidden_size: 16 }, at)).toThrow("hidden_size is 16 and n_embd 8, two names");
    expect(() => modelOf([], at)).toThrow(/c\.json: .*model_type is absent/);
    expect(() => modelOf({ ...config, n_head: 3 }, at)).toThrow(/nEmbd 8 does not divide into nHead 3/);
  });
  test("weights in a format that can hold code", async () => {
    await writeModel(tinyModel, []);
    await rm(join(directory, "model.safetensors"));
    await writeFile(join(directory, "pytorch_model.bin"), "");
    await expect(readPretrained(directory)).rejects.toThrow(/pytorch_model\.bin can hold code and is not opened/);
  });
  test("a directory without a config", async () => {
    await expect(readPretrained(directory)).rejects.toThrow(/config\.json: cannot be read \(ENOENT\)/);
  });
});

test("the configuration of the released GPT-2 is the 124M model", () => {
  const released = {
    activation_function: "gelu_new",
    architectures: ["GPT2LMHeadModel"],
    attn_pdrop: 0.1,
    bos_token_id: 50256,
    embd_pdrop: 0.1,
    initializer_range: 0.02,
    layer_norm_epsilon: 1e-5,
    model_type: "gpt2",
    n_ctx: 1024,
    n_embd: 768,
    n_head: 12,
    n_layer: 12,
    n_positions: 1024,
    resid_pdrop: 0.1,
    vocab_size: 50257,
  };
  const model = modelOf(released, "config.json");
  expect(layoutOf(model).size).toBe(124_439_808);
  expect([model.tiedHead, model.bias, model.activation]).toEqual([true, true, "gelu_tanh"]);
});
