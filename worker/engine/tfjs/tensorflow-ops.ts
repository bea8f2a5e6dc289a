// Operations for which TensorFlow has a kernel that tfjs does not show, called by name through tfjs-node's addon.
import * as tf from "@tensorflow/tfjs-core";
import type { EngineOptions } from "../contract.ts";
import { portableOps, type Tensor, type TfjsOps } from "./ops.ts";
import type { Attribute, NodeBackend } from "./tensorflow-load.ts";

/** TensorFlow's number for bfloat16 (types.proto); tfjs has no such type. */
const TF_BFLOAT16 = 14;

export function tensorflowOps(precision: EngineOptions["precision"]): TfjsOps {
  const backend = tf.backend() as NodeBackend;
  const { TF_ATTR_BOOL, TF_ATTR_TYPE, TF_FLOAT, TF_INT32 } = backend.binding;
  const flag = (name: string, value: boolean): Attribute => ({ name, type: TF_ATTR_BOOL, value });
  const type = (name: string, value: number): Attribute => ({ name, type: TF_ATTR_TYPE, value });

  /** Softmax and its gradient in one pass over the logits, without a one-hot. */
  function crossEntropy(logits: Tensor, targets: Int32Array, scale: number) {
    const [losses, slope] = backend.executeMultipleOutputs(
      "SparseSoftmaxCrossEntropyWithLogits",
      [type("T", TF_FLOAT), type("Tlabels", TF_INT32)],
      [logits, tf.tensor1d(targets, "int32")],
      2,
    ) as [Tensor, Tensor];
    logits.dispose();
    return { losses, dLogits: tf.mul(slope, scale) };
  }

  /** Operands rounded to bf16, sums in float32 inside the kernel, the result rounded to bf16 and widened. */
  function matMulBf16(a: Tensor, b: Tensor, transposeA: boolean, transposeB: boolean): Tensor {
    const cast = (id: number, from: number, to: number) =>
      backend.binding.executeOp("Cast", [type("SrcT", from), type("DstT", to), flag("Truncate", false)], [id], 1)[0]!;
    const narrow = backend.getInputTensorIds([a, b]).map((id) => cast(id, TF_FLOAT, TF_BFLOAT16).id);
    const [name, adjoint] = a.rank === 2 ? ["MatMul", "transpose_"] : ["BatchMatMulV2", "adj_"];
    const first = flag(`${adjoint}${a.rank === 2 ? "a" : "x"}`, transposeA);
    const second = flag(`${adjoint}${a.rank === 2 ? "b" : "y"}`, transposeB);
    const product = backend.binding.executeOp(name, [first, second, type("T", TF_BFLOAT16)], narrow, 1)[0]!;
    const wide = cast(product.id, TF_BFLOAT16, TF_FLOAT);
    for (const id of [...narrow, product.id]) backend.binding.deleteTensor(id);
    return backend.createOutputTensor(wide);
  }

  return { ...portableOps, crossEntropy, ...(precision === "bf16" ? { matMul: matMulBf16 } : {}) };
}
