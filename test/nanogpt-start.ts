// The weights that nanoGPT starts from after torch.manual_seed(1337), drawn in the order of its GPT.__init__. The oracle
// nanogpt-char-cpu holds the true start values of its matrices only: its embeddings and norms were written down after
// the training. The matrices prove that the derivation is right, all 786,432 of their numbers.
import { type Layout, layoutOf } from "../shared/family/layout.ts";
import type { Oracle } from "./oracle.ts";
import { TorchRandom } from "./torch-random.ts";

/**
 * @returns (P) start weights in the layout's order
 * @throws Error when a matrix differs from the oracle's by more than a rounding of its float32 transcendentals
 */
export async function nanogptStart(oracle: Oracle): Promise<Float32Array> {
  const { vocabSize: V, blockSize: T, nEmbd: C, nLayer: L } = oracle.model;
  const layout = layoutOf(oracle.model);
  const weights = new Float32Array(layout.size);
  const random = new TorchRandom(1337);
  const linears = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"];
  const matrix = (name: string) => layout.byName.get(`transformer.${name}.weight`)!;

  // Modules are made with PyTorch's default values first: normal embeddings, uniform linear layers, the head last.
  random.randn(V * C);
  random.randn(T * C);
  for (let l = 0; l < L; l++) for (const name of linears) skip(random, matrix(`h.${l}.${name}`).size);
  skip(random, V * C);
  // Then apply(_init_weights) in the order of the modules; the head's draw is what the tied embedding keeps.
  random.randn(V * C);
  put(weights, layout, "wpe", random.randn(T * C), 0.02);
  for (let l = 0; l < L; l++)
    for (const name of linears) {
      const { size } = matrix(`h.${l}.${name}`);
      put(weights, layout, `h.${l}.${name}`, random.randn(size), 0.02);
    }
  put(weights, layout, "wte", random.randn(V * C), 0.02);
  // Last, the projections back into the residual stream.
  for (let l = 0; l < L; l++)
    for (const name of ["attn.c_proj", "mlp.c_proj"]) {
      const { size } = matrix(`h.${l}.${name}`);
      put(weights, layout, `h.${l}.${name}`, random.randn(size), 0.02 / Math.sqrt(2 * L));
    }
  for (const { name, offset, size, shape } of layout.parameters) {
    if (shape.length === 1) weights.fill(1, offset, offset + size);
    else if (name.includes(".h."))
      expectClose(name, weights.subarray(offset, offset + size), await oracle.floats(`param.${name}`));
  }
  return weights;
}

function skip(random: TorchRandom, count: number): void {
  for (let i = 0; i < count; i++) random.word();
}

/** PyTorch's linear layers are [out, in], ours [in, out]; embeddings are alike. */
function put(weights: Float32Array, layout: Layout, name: string, drawn: Float32Array, deviation: number): void {
  const { offset, shape } = layout.byName.get(`transformer.${name}.weight`)!;
  const [rows, columns] = shape as [number, number];
  const transposed = name.startsWith("h.");
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++)
      weights[offset + i * columns + j] = deviation * drawn[transposed ? j * rows + i : i * columns + j]!;
}

function expectClose(name: string, ours: Float32Array, theirs: Float32Array): void {
  const worst = ours.reduce((at, x, i) => (Math.abs(x - theirs[i]!) > Math.abs(ours[at]! - theirs[at]!) ? i : at), 0);
  if (Math.abs(ours[worst]! - theirs[worst]!) > 1e-6)
    throw new Error(`${name}[${worst}] is ${ours[worst]}, the oracle has ${theirs[worst]}`);
}
