// Attention by cuDNN's fused kernels on NVIDIA GPUs: probabilities are never stored, only the log-sum-exp of each query.
// XLA knows them as custom calls; what they must say is what JAX says (jax/_src/cudnn/fused_attention_stablehlo.py).
// Source: Dao et al. 2022, arXiv:2205.14135.
import type { Heads } from "../model/ops.ts";
import type { Program, Value } from "./program.ts";

/** Shapes that cuDNN takes; others, and a mask on the probabilities, go the plain way. */
export const isFusable = ({ T, D }: Heads): boolean => T % 64 === 0 && D % 8 === 0 && D <= 128;

/** A product's axes: contracted, and the two batch axes, of left and right. */
const axes = (left: number, right: number, leftHead: number): Record<string, string[]> => ({
  lhs_contracting_dimensions: [`${left}`],
  rhs_contracting_dimensions: [`${right}`],
  lhs_batch_dimensions: ["0", `${leftHead}`],
  rhs_batch_dimensions: ["0", "2"],
});

function config({ B, T, H, D }: Heads, products: Record<string, object | boolean>): string {
  const shape = {
    element_type: "BF16",
    dimensions: [B, H, T, T].map(String),
    tuple_shapes: [],
    layout: {
      dim_level_types: [],
      dim_unique: [],
      dim_ordered: [],
      minor_to_major: ["3", "2", "1", "0"],
      tiles: [],
      element_size_in_bits: "0",
      memory_space: "0",
      index_primitive_type: "PRIMITIVE_TYPE_INVALID",
      pointer_primitive_type: "PRIMITIVE_TYPE_INVALID",
      dynamic_shape_metadata_prefix_bytes: "0",
    },
    is_dynamic_dimension: [false, false, false, false],
  };
  const algorithm = {
    algo_id: "0",
    math_type: "TENSOR_OP_MATH",
    tuning_knobs: { "17": "1", "24": "0" },
    is_cudnn_frontend: true,
    workspace_size: "0",
  };
  const attention = {
    algorithm,
    fmha_scale: 1 / Math.sqrt(D),
    intermediate_tensor_shape: shape,
    is_flash_attention: true,
    mask_type: "CAUSAL",
    ...products,
    dropout_rate: 0,
    seed: 42,
    sliding_window_length: 0,
    max_seg_per_batch: 1,
    is_paged_attention: false,
  };
  const all = { operation_queue_id: "0", wait_on_operation_queues: [], cudnn_fmha_backend_config: attention };
  return JSON.stringify(all).replaceAll('"', "\\22");
}

/** Row-major operands; results (B, H, T, D) lie in memory as (B, T, H, D). */
function attributes(backendConfig: string, operands: readonly Value[], results: number, statistics: boolean): string {
  const layout = (order: readonly number[]) => `dense<[${order.join(", ")}]> : tensor<${order.length}xindex>`;
  const given = operands.map(({ shape }) => layout(shape.map((_, i) => shape.length - 1 - i)));
  const made = [
    ...Array.from({ length: results }, () => layout([3, 1, 2, 0])),
    ...(statistics ? [layout([2, 1, 0])] : []),
    "dense<0> : tensor<1xindex>", // the workspace
  ];
  return `api_version = 2 : i32, backend_config = "${backendConfig}", operand_layouts = [${given.join(", ")}], result_layouts = [${made.join(", ")}]`;
}

const workspace = { shape: [0], type: "ui8" } as const;

/** @param qkv (B, T, H, D) each, of type bf16 @returns y of that shape, and the statistics (B, H, T) */
export function fusedAttention(p: Program, qkv: readonly Value[], heads: Heads): { y: Value; statistics: Value } {
  const { B, T, H, D } = heads;
  const backendConfig = config(heads, {
    bmm1_dot_dimension_numbers: axes(3, 3, 2),
    bmm2_dot_dimension_numbers: axes(3, 1, 1),
  });
  const results = [{ shape: [B, H, T, D], type: "bf16" }, { shape: [B, H, T], type: "f32" }, workspace] as const;
  const text = attributes(backendConfig, qkv, 1, true);
  const [y, statistics] = p.customCall("__cudnn$fmhaSoftmax", qkv, results, text) as [Value, Value];
  return { y: p.transpose(y, [0, 2, 1, 3]), statistics };
}

/** @param dy (B, T, H, D) of type bf16 @returns gradients of q, k, v, (B, T, H, D) each */
export function fusedAttentionBackward(
  p: Program,
  dy: Value,
  saved: { readonly qkv: readonly Value[]; readonly statistics: Value; readonly y: Value },
  heads: Heads,
): Value[] {
  const { B, T, H, D } = heads;
  const backendConfig = config(heads, {
    // XLA sets it itself where its flag asks for determinism, but of equal calls in the first alone, and then does not find
    // the others' kernels (0.11.2: "raw_hash_map<>::at" at the first step).
    force_deterministic: true,
    bmm1_grad_gemm1_dot_dimension_numbers: axes(2, 1, 1),
    bmm1_grad_gemm2_dot_dimension_numbers: axes(3, 1, 1),
    bmm2_grad_gemm1_dot_dimension_numbers: axes(2, 1, 1),
    bmm2_grad_gemm2_dot_dimension_numbers: axes(3, 3, 2),
  });
  const args = [...saved.qkv, saved.statistics, dy, saved.y];
  const gradient = { shape: [B, H, T, D], type: "bf16" } as const;
  const text = attributes(backendConfig, args, 3, false);
  const made = p.customCall("__cudnn$fmhaSoftmaxBackward", args, [gradient, gradient, gradient, workspace], text);
  return made.slice(0, 3).map((x) => p.transpose(x, [0, 2, 1, 3]));
}
