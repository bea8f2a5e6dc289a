// The table of compute kernels: one per instruction set, all with the same meaning. model.cpp decides what to compute
// and on which task; a kernel computes one task's stretch. naive.cpp is the definition, kernels.cpp the fast twin.
//
// Ranges are half open. Every output element belongs to one task, and the order of its additions depends on the shapes
// alone, never on how the work was cut: that is what makes results independent of the number of threads.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "isa.h"

namespace weft {

// Dropout of one site, as dropoutMask in shared/arithmetic/philox.ts defines it: element i of the site's tensor is kept, times
// scale, when word i % 4 of Philox4x32-10 at counter (i / 4, site, shard, step) is at least threshold, else 0.
struct Dropout {
  bool on = false;
  uint32_t key0 = 0, key1 = 0, site = 0, shard = 0, step = 0, threshold = 0;
  float scale = 1;
};

enum class Epilogue {
  none,      // c = ab (+ bias)
  residual,  // c = residual + dropout(ab + bias)
  gelu,      // x = ab + bias; c = gelu(x), slope = gelu'(x)
  multiply,  // c = ab * slope
};

// c (M, N) = epilogue(a (M, K) times b (K, N)); c must not overlap the inputs, except that residual may be c.
struct Matmul {
  int M, N, K;
  const float* a;
  int64_t lda;
  bool a_transposed;  // element (i, k) is a[k * lda + i], else a[i * lda + k]
  const float* b;
  int64_t ldb;
  bool b_transposed;  // element (k, j) is b[j * ldb + k], else b[k * ldb + j]
  float* c;
  int64_t ldc;
  bool accumulate = false;  // add to what c holds; only with Epilogue::none and no bias
  bool bf16 = false;        // round a and b to bfloat16, accumulate in float32
  Epilogue epilogue = Epilogue::none;
  bool gelu_tanh = false;
  const float* bias = nullptr;      // (N) or null
  const float* residual = nullptr;  // as c
  float* slope = nullptr;           // as c; null: not wanted
  Dropout dropout = {};             // element index = row * N + column
};

// Causal attention of one head over one sequence: softmax(scale q k^T) v, query i seeing keys 0 .. past + i.
// q, out, dq, dout: `queries` rows; k, v, dk, dv: past + queries rows; `head_size` columns; ld*: floats between rows.
struct Attention {
  int queries, past, head_size;
  float scale;
  const float *q, *k, *v;
  int64_t ld_q, ld_kv;
  float* out;
  int64_t ld_out;
  float* log_sum;  // (queries) log of the sum of exp(scale q k^T): what the backward pass needs
  bool bf16 = false;
  Dropout dropout = {};        // on the probabilities
  uint64_t dropout_first = 0;  // element index of (query 0, key 0); a query's row is dropout_row long
  uint64_t dropout_row = 0;
  // Backward only. ld_dqkv is that of dq, dk and dv; dout has ld_out.
  const float* dout = nullptr;
  float *dq = nullptr, *dk = nullptr, *dv = nullptr;
  int64_t ld_dqkv = 0;
};

struct Kernels {
  const char* name;  // "avx512", ...: what --isa names
  int tile_rows, tile_columns;  // where a matmul is best cut

  // Floats of scratch, 64-byte aligned, that a task of this kernel needs.
  size_t (*matmul_scratch)();
  size_t (*attention_scratch)(int keys, int head_size);

  // Rows [row0, row1) and columns [column0, column1) of c.
  void (*matmul)(const Matmul& m, int row0, int row1, int column0, int column1, float* scratch);

  void (*attention_forward)(const Attention& a, float* scratch);
  // The forward pass of a single query, packing nothing; writes no log_sum. Needs no more scratch.
  void (*attention_step)(const Attention& a, float* scratch);
  // Writes dq, dk, dv. Source: Dao et al. 2022, arXiv:2205.14135, appendix B.
  void (*attention_backward)(const Attention& a, float* scratch);

  // Products with one or a few vectors, where reading w is all the work: w streams by once, in its own order.
  // Columns [column0, column1), multiples of 16 or the end, of y (rows, C) = x (rows, K) times w (K, C) (+ bias).
  // bf16: x and w are pairs of bfloat16, made by pack_row and pack_down; bias and y are float.
  void (*gemv)(float* y, const void* x, int rows, const void* w, int K, int C, const float* bias, bool bf16,
               int column0, int column1);
  // The same for w stored (C, K), without bias; bf16: w made by pack_row from each row, (K + 1) / 2 pairs apart.
  void (*gemv_transposed)(float* y, const void* x, int rows, const void* w, int K, int C, bool bf16, int column0,
                          int column1);
  // pairs[i] = bfloat16 of x[2 i] in the low half, of x[2 i + 1] in the high half; (n + 1) / 2 of them, 0 beyond n.
  void (*pack_row)(uint32_t* pairs, const float* x, int n);
  // pairs (C) of two neighbouring rows of C columns: low[i], high[i]; high may be null for zeros.
  void (*pack_down)(uint32_t* pairs, const float* low, const float* high, int C);

  // x[i] = gelu(x[i]), n elements.
  void (*gelu)(float* x, int n, bool tanh_form);

  // Layer norm of rows [row0, row1) of x (N, C): out = (x - mean) * rstd * weight + bias; bias may be null.
  // Writes mean, rstd (N). Source: Ba et al. 2016, arXiv:1607.06450.
  void (*norm_forward)(float* out, float* mean, float* rstd, const float* x, const float* weight, const float* bias,
                       float eps, int C, int row0, int row1);
  // dx (N, C) = gradient at x (added when `add`), and this stretch's part of the gradients of weight and bias:
  // dweight, dbias (C) are overwritten; dbias may be null. dout and dx may be the same array unless `add`.
  void (*norm_backward)(float* dx, bool add, float* dweight, float* dbias, const float* dout, const float* x,
                        const float* mean, const float* rstd, const float* weight, int C, int row0, int row1);

  // x (N, V) logits in, their gradient of (mean cross-entropy) out: (softmax - onehot) * scale. losses (N) in nats.
  // gradient false: x stays as it is.
  void (*cross_entropy)(float* x, int64_t ldx, const int32_t* targets, float* losses, float scale, bool gradient,
                        int V, int row0, int row1);

  // out[i] = in[i] * mask[i] for elements [first, last) of a tensor; first a multiple of 4; out may be in.
  void (*dropout)(float* out, const float* in, const Dropout& d, uint64_t first, uint64_t last);
  // out (columns column0..column1) = sum of the rows of x (N, C), in order, added to `out` when `add`.
  void (*column_sum)(float* out, const float* x, int64_t ldx, int N, int column0, int column1, bool add);
  // out[i] = sum over parts p of parts[p * stride + i], in order.
  void (*fold)(float* out, const float* parts, int64_t stride, int count, int n);
  // out[i] = a[i] + b[i], n elements; out may be a.
  void (*add)(float* out, const float* a, const float* b, int64_t n);
};

// kernels.cpp, once per set, and naive.cpp.
#define X(name)                  \
  namespace name {               \
  extern const Kernels kernels;  \
  }
WEFT_EACH_ISA(X)
#undef X
extern const Kernels naive_kernels;
const Kernels& kernels_of(Isa isa);

}  // namespace weft
