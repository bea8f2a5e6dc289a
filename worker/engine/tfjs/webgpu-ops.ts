// Two of tfjs's WebGPU kernels let workgroups add floats to one place by atomics, in the order in which they happen to
// come, so that the same call gives other bits every time. Here are their replacements with one order. Twins: ops.ts.
import * as tf from "@tensorflow/tfjs-core";
import { portableOps, type Tensor, type TfjsOps } from "./ops.ts";

/** A compute shader in the form that tfjs compiles and caches; it declares `result`, `uniforms` and the inputs. */
interface Program {
  /** Names it in the cache of pipelines, together with types and ranks. */
  readonly shaderKey: string;
  readonly variableNames: readonly string[];
  readonly outputShape: readonly number[];
  readonly workgroupSize: readonly [number, number, number];
  readonly dispatchLayout: { readonly x: readonly number[] };
  readonly dispatch: readonly [number, number, number];
  /** Whether uniforms.size is wanted: the elements of the output. */
  readonly size: boolean;
  getUserCode(): string;
}

/** What is used of tfjs's WebGPU backend; its types come with the optional package. */
interface WebgpuBackend extends tf.KernelBackend {
  runWebGPUProgram(program: Program, inputs: Tensor[], dtype: "float32"): tf.TensorInfo;
}

/** Products in a sum from which on tfjs may split it over workgroups, and the kernel that never does (its numbers). */
const splitFrom = 2000;
const packedProgram = 3;

/** The rows of each id in turn, ascending: those of id v are order[first[v]] to order[first[v + 1] - 1]. */
function rowsById(ids: Int32Array, V: number): { first: Int32Array; order: Int32Array } {
  const first = new Int32Array(V + 1);
  for (const id of ids) first[id + 1]!++;
  for (let v = 0; v < V; v++) first[v + 1]! += first[v]!;
  const next = first.slice();
  const order = new Int32Array(ids.length);
  ids.forEach((id, row) => {
    order[next[id]!++] = row;
  });
  return { first, order };
}

const scatterAdd = (V: number, C: number): Program => ({
  shaderKey: "weftScatterAdd",
  variableNames: ["x", "first", "order"],
  outputShape: [V, C],
  workgroupSize: [64, 1, 1],
  dispatchLayout: { x: [0, 1] },
  dispatch: [Math.ceil((V * C) / 64), 1, 1],
  size: true,
  getUserCode: () => `
    fn main(index : i32) {
      if (index < uniforms.size) {
        let C = uniforms.outShape[1];
        let v = index / C;
        let c = index % C;
        var sum = 0.0;
        for (var i = first[v]; i < first[v + 1]; i = i + 1) {
          sum = sum + x[order[i] * C + c];
        }
        result[index] = sum;
      }
    }`,
});

export function webgpuOps(): TfjsOps {
  const backend = tf.backend() as WebgpuBackend;
  return {
    ...portableOps,

    matMul(a, b, transposeA, transposeB) {
      const sum = a.shape.at(transposeA ? -2 : -1)!;
      tf.env().set("WEBGPU_MATMUL_PROGRAM_TYPE", sum < splitFrom ? -1 : packedProgram);
      return tf.matMul(a, b, transposeA, transposeB);
    },

    scatterAdd(x, ids, V) {
      const { first, order } = rowsById(ids, V);
      const inputs = [x, tf.tensor1d(first, "int32"), tf.tensor1d(order, "int32")];
      const sums = backend.runWebGPUProgram(scatterAdd(V, x.shape[1]!), inputs, "float32");
      return tf.engine().makeTensorFromTensorInfo(sums) as Tensor;
    },
  };
}
