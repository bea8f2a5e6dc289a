// Initial weights, a pure function of (model, seed), as GPT-2 and nanoGPT draw them: normal with deviation 0.02, the
// projections back into the residual stream scaled by 1 / sqrt(2 L) (Radford et al. 2019, section 2.3), biases 0,
// norms 1. The bigram table is a standard normal, as torch.nn.Embedding draws it.

import { PhiloxStream, stream } from "../arithmetic/philox.ts";
import type { ModelConfig } from "../model.ts";
import type { Layout } from "./layout.ts";

/** @returns (P) weights in the layout's order */
export function initialWeights(model: ModelConfig, layout: Layout, seed: number): Float32Array {
  const weights = new Float32Array(layout.size);
  layout.parameters.forEach((parameter, index) => {
    const target = weights.subarray(parameter.offset, parameter.offset + parameter.size);
    if (parameter.shape.length === 1) {
      if (parameter.name.endsWith(".weight")) target.fill(1);
      return;
    }
    const random = new PhiloxStream(seed, stream.init, index);
    const deviation =
      model.family === "bigram"
        ? 1
        : model.family === "gpt2" && parameter.name.endsWith(".c_proj.weight")
          ? 0.02 / Math.sqrt(2 * model.nLayer)
          : 0.02;
    for (let i = 0; i < target.length; i++) target[i] = deviation * random.normal();
  });
  return weights;
}
