// The models once more, as plainly as they can be said: float64, one loop after another, nothing shared with any
// engine. Slow and right: it tells what an engine's loss must be with dropout, and, through small steps, its gradient.

import { dropoutMask } from "../../../shared/arithmetic/philox.ts";
import { layoutOf } from "../../../shared/family/layout.ts";
import type { ModelConfig } from "../../../shared/model.ts";
import type { ShardPosition } from "../../../worker/engine/shards.ts";

type Rows = Float64Array[];

/** Mean loss in nats of gpt1 or gpt2 over (B, T) tokens, with the dropout of `at`. weights: (P). */
export function referenceLoss(
  model: ModelConfig,
  weights: Float64Array,
  tokens: Int32Array,
  targets: Int32Array,
  B: number,
  at: ShardPosition,
): number {
  const { nEmbd: C, nHead: H, vocabSize: V, dropout } = model;
  const D = C / H;
  const N = tokens.length;
  const T = N / B;
  const { byName } = layoutOf(model);
  /** A parameter's values; zeros where this model has none of it, as biases. */
  const values = (name: string): Float64Array => {
    const { offset, size } = byName.get(name) ?? { offset: 0, size: 0 };
    return size > 0 ? weights.subarray(offset, offset + size) : new Float64Array(4 * C);
  };
  const [root, wte, wpe] =
    model.family === "gpt2"
      ? ["transformer.", "transformer.wte.weight", "transformer.wpe.weight"]
      : ["", "tokens_embed.weight", "positions_embed.weight"];

  const rows = (count: number, width: number, f: (n: number, c: number) => number): Rows =>
    Array.from({ length: count }, (_, n) => Float64Array.from({ length: width }, (_, c) => f(n, c)));
  const mask = (site: number, length: number): Float32Array => {
    const out = new Float32Array(length).fill(1);
    if (dropout > 0) dropoutMask(out, dropout, { ...at, site });
    return out;
  };
  const drop = (x: Rows, site: number): Rows => {
    const factors = mask(site, N * C);
    return rows(N, C, (n, c) => x[n]![c]! * factors[n * C + c]!);
  };
  const plus = (a: Rows, b: Rows): Rows => rows(N, C, (n, c) => a[n]![c]! + b[n]![c]!);
  const linear = (x: Rows, name: string, outputs: number): Rows => {
    const [weight, bias] = [values(`${name}.weight`), values(`${name}.bias`)];
    return x.map((row) => {
      const y = bias.slice(0, outputs);
      row.forEach((u, i) => {
        for (let o = 0; o < outputs; o++) y[o]! += u * weight[i * outputs + o]!;
      });
      return y;
    });
  };
  const norm = (x: Rows, name: string): Rows => {
    const [weight, bias] = [values(`${name}.weight`), values(`${name}.bias`)];
    return x.map((row) => {
      const mean = row.reduce((a, b) => a + b) / C;
      const deviation = Math.sqrt(row.reduce((a, b) => a + (b - mean) ** 2, 0) / C + model.layerNormEps);
      return row.map((v, c) => ((v - mean) / deviation) * weight[c]! + bias[c]!);
    });
  };
  const attend = (x: Rows, l: number): Rows => {
    const name = `${root}h.${l}.attn`;
    const qkv = linear(x, `${name}.c_attn`, 3 * C);
    const factors = mask(1 + 3 * l, B * H * T * T);
    const out = rows(N, C, () => 0);
    for (let b = 0; b < B; b++)
      for (let h = 0; h < H; h++)
        for (let t = 0; t < T; t++) {
          const scores = Array.from({ length: t + 1 }, (_, s) => {
            let dot = 0;
            for (let d = 0; d < D; d++) dot += qkv[b * T + t]![h * D + d]! * qkv[b * T + s]![C + h * D + d]!;
            return Math.exp(dot / Math.sqrt(D));
          });
          const sum = scores.reduce((a, e) => a + e);
          scores.forEach((e, s) => {
            const weight = (e / sum) * factors[((b * H + h) * T + t) * T + s]!;
            for (let d = 0; d < D; d++) out[b * T + t]![h * D + d]! += weight * qkv[b * T + s]![2 * C + h * D + d]!;
          });
        }
    return drop(linear(out, `${name}.c_proj`, C), 2 + 3 * l);
  };
  const feed = (x: Rows, l: number): Rows => {
    const name = `${root}h.${l}.mlp`;
    const active = linear(x, `${name}.c_fc`, 4 * C).map((row) =>
      row.map(model.activation === "gelu" ? gelu : geluTanh),
    );
    return drop(linear(active, `${name}.c_proj`, C), 3 + 3 * l);
  };

  const [tokenTable, positionTable] = [values(wte!), values(wpe!)];
  let x = drop(
    rows(N, C, (n, c) => tokenTable[tokens[n]! * C + c]! + positionTable[(n % T) * C + c]!),
    0,
  );
  for (let l = 0; l < model.nLayer; l++) {
    const [ln1, ln2] = [`${root}h.${l}.ln_1`, `${root}h.${l}.ln_2`];
    if (model.family === "gpt2") {
      x = plus(x, attend(norm(x, ln1), l));
      x = plus(x, feed(norm(x, ln2), l));
    } else {
      x = norm(plus(x, attend(x, l)), ln1);
      x = norm(plus(x, feed(x, l)), ln2);
    }
  }
  if (model.family === "gpt2") x = norm(x, "transformer.ln_f");
  const head = model.tiedHead ? tokenTable : values("lm_head.weight");
  let loss = 0;
  x.forEach((row, n) => {
    const logits = Array.from({ length: V }, (_, v) => row.reduce((a, u, c) => a + u * head[v * C + c]!, 0));
    const sum = logits.reduce((a, e) => a + Math.exp(e), 0);
    loss += (Math.log(sum) - logits[targets[n]!]!) / N;
  });
  return loss;
}

/** x Phi(x) by Marsaglia's series (2004). */
function gelu(x: number): number {
  let term = x;
  let sum = x;
  for (let k = 3; Math.abs(term) > 1e-18; k += 2) {
    term *= (x * x) / k;
    sum += term;
  }
  return x * (0.5 + (sum * Math.exp(-0.5 * x * x)) / Math.sqrt(2 * Math.PI));
}

function geluTanh(x: number): number {
  return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
}
