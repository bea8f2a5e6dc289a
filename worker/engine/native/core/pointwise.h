// Everything that passes over an array once: norms, cross-entropy, dropout, sums, and products with single vectors.
// Included by kernels.cpp after vec.h, in the namespace of each instruction set.

static void gelu(float* x, int n, bool tanh_form) {
  for (int i = 0; i < n; i += W) {
    Vec slope;
    const Vec v = load_first(x + i, n - i);
    store_first(x + i, tanh_form ? gelu_tanh(v, slope) : gelu_exact(v, slope), n - i);
  }
}

static void norm_forward(float* out, float* mean, float* rstd, const float* x, const float* weight, const float* bias,
                         float eps, int C, int row0, int row1) {
  for (int64_t r = row0; r < row1; r++) {
    const float* in = x + r * C;
    float* o = out + r * C;
    Vec total = {};
    for (int i = 0; i < C; i += W) total += load_first(in + i, C - i);
    const float mu = sum(total) / (float)C;
    Vec squares = {};
    for (int i = 0; i < C; i += W) {
      const Vec d = select(lanes() < C - i, load_first(in + i, C - i) - mu, Vec{});
      squares = fma(d, d, squares);
    }
    const float scale = 1.0f / __builtin_sqrtf(sum(squares) / (float)C + eps);
    for (int i = 0; i < C; i += W) {
      Vec y = (load_first(in + i, C - i) - mu) * scale * load_first(weight + i, C - i);
      if (bias) y += load_first(bias + i, C - i);
      store_first(o + i, y, C - i);
    }
    mean[r] = mu;
    rstd[r] = scale;
  }
}

// With n = (x - mean) rstd and g = dout weight: dx = rstd (g - mean(g) - n mean(g n)).
static void norm_backward(float* dx, bool add, float* dweight, float* dbias, const float* dout, const float* x,
                          const float* mean, const float* rstd, const float* weight, int C, int row0, int row1) {
  for (int i = 0; i < C; i++) dweight[i] = 0;
  for (int i = 0; dbias && i < C; i++) dbias[i] = 0;
  for (int64_t r = row0; r < row1; r++) {
    const float *in = x + r * C, *d = dout + r * C;
    float* o = dx + r * C;
    const float mu = mean[r], scale = rstd[r];
    Vec sum_g = {}, sum_gn = {};
    for (int i = 0; i < C; i += W) {
      const int left = C - i;
      const Vec di = load_first(d + i, left), g = di * load_first(weight + i, left);
      const Vec n = (load_first(in + i, left) - mu) * scale;  // d and g are 0 beyond C, n is not
      store_first(dweight + i, fma(di, n, load_first(dweight + i, left)), left);
      if (dbias) store_first(dbias + i, load_first(dbias + i, left) + di, left);
      sum_g += g;
      sum_gn = fma(g, n, sum_gn);
    }
    const float mean_g = sum(sum_g) / (float)C, mean_gn = sum(sum_gn) / (float)C;
    for (int i = 0; i < C; i += W) {
      const int left = C - i;
      const Vec g = load_first(d + i, left) * load_first(weight + i, left);
      const Vec n = (load_first(in + i, left) - mu) * scale;
      Vec y = (g - mean_g - n * mean_gn) * scale;
      if (add) y += load_first(o + i, left);
      store_first(o + i, y, left);
    }
  }
}

static void cross_entropy(float* x, int64_t ldx, const int32_t* targets, float* losses, float scale, bool gradient,
                          int V, int row0, int row1) {
  for (int64_t r = row0; r < row1; r++) {
    float* row = x + r * ldx;
    const float target = row[targets[r]];
    Vec top = splat(row[0]);
    for (int j = 0; j < V; j += W) top = maximum(top, select(lanes() < V - j, load_first(row + j, V - j), top));
    const float highest = largest(top);
    Vec total = {};
    for (int j = 0; j < V; j += W) {
      const Vec e = select(lanes() < V - j, exponential(load_first(row + j, V - j) - highest), Vec{});
      total += e;
      if (gradient) store_first(row + j, e, V - j);
    }
    const float z = sum(total);
    losses[r] = highest + log_float(z) - target;
    if (!gradient) continue;
    const Vec factor = splat(scale / z);
    for (int j = 0; j < V; j += W) store_first(row + j, load_first(row + j, V - j) * factor, V - j);
    row[targets[r]] -= scale;
  }
}

static void dropout(float* out, const float* in, const Dropout& d, uint64_t first, uint64_t last) {
  alignas(64) float mask[4 * W];
  for (uint64_t i = first; i < last; i += 4 * W) {
    dropout_block(mask, d, i);
    const int left = last - i < 4 * W ? (int)(last - i) : 4 * W;
    for (int j = 0; j < left; j += W)
      store_first(out + i + j, load_first(in + i + j, left - j) * load(mask + j), left - j);
  }
}

static void column_sum(float* out, const float* x, int64_t ldx, int N, int column0, int column1, bool add) {
  for (int j = column0; j < column1; j += 4 * W) {
    Vec s[4] = {};
    for (int64_t r = 0; r < N; r++)
#pragma GCC unroll 4
      for (int v = 0; v < 4; v++) s[v] += load_first(x + r * ldx + j + v * W, column1 - j - v * W);
    for (int v = 0; v < 4; v++) {
      const int left = column1 - j - v * W;
      if (add) s[v] += load_first(out + j + v * W, left);
      store_first(out + j + v * W, s[v], left);
    }
  }
}

static void fold(float* out, const float* parts, int64_t stride, int count, int n) {
  for (int i = 0; i < n; i += W) {
    Vec s = load_first(parts + i, n - i);
    for (int64_t p = 1; p < count; p++) s += load_first(parts + p * stride + i, n - i);
    store_first(out + i, s, n - i);
  }
}

static void add(float* out, const float* a, const float* b, int64_t n) {
  int64_t i = 0;
  for (; i + W <= n; i += W) store(out + i, load(a + i) + load(b + i));
  if (i < n) store_first(out + i, load_first(a + i, (int)(n - i)) + load_first(b + i, (int)(n - i)), (int)(n - i));
}

// ---- products with a few vectors ----

// Nearest bfloat16 (ties to even) in the upper half, rest 0.
INLINE Words upper_bf16(Vec x) {
  const Words bits = (Words)x;
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
}

static void pack_down(uint32_t* pairs, const float* low, const float* high, int C) {
  for (int j = 0; j < C; j += W) {
    const Words l = upper_bf16(load_first(low + j, C - j)) >> 16;
    const Words h = high ? upper_bf16(load_first(high + j, C - j)) : Words{};
    store_first((float*)(pairs + j), (Vec)(l | h), C - j);
  }
}

static void pack_row(uint32_t* pairs, const float* x, int n) {
  for (int i = 0; i < n; i += 2) {
    const Words both = upper_bf16(Vec{x[i], i + 1 < n ? x[i + 1] : 0.0f});
    pairs[i / 2] = both[0] >> 16 | both[1];
  }
}

// One unit of a gemv: a float, or a pair of bf16 in the space of a float.
struct FloatUnit {
  INLINE Vec multiply_add(Vec a, Vec b, Vec c) { return fma(a, b, c); }
};
struct PairUnit {
  INLINE Vec multiply_add(Vec a, Vec b, Vec c) {
#if defined(__AVX512BF16__)
    return (Vec)_mm512_dpbf16_ps((__m512)c, (__m512bh)(__m512i)a, (__m512bh)(__m512i)b);
#else
    const Vec low = fma((Vec)((Words)a << 16), (Vec)((Words)b << 16), c);
    return fma((Vec)((Words)a & 0xffff0000u), (Vec)((Words)b & 0xffff0000u), low);
#endif
  }
};

// y (R rows, C apart) += x (R rows of 4 units, ldx apart) times 4 rows of w, columns [j, end) in whole vectors.
// Returns the first column that is left.
template <class U, int R>
static int gemv_step(float* y, const float* x, int64_t ldx, const float* w, int64_t C, int j, int end) {
  for (; j + W <= end; j += W) {
    const Vec w0 = load(w + j), w1 = load(w + C + j), w2 = load(w + 2 * C + j), w3 = load(w + 3 * C + j);
#pragma GCC unroll 4
    for (int i = 4; i < 8; i++) __builtin_prefetch(w + i * C + j, 0, 2);  // the next 4 rows
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      const float* xr = x + r * ldx;
      Vec s = load(y + r * C + j);
      s = U::multiply_add(splat(xr[0]), w0, s);
      s = U::multiply_add(splat(xr[1]), w1, s);
      s = U::multiply_add(splat(xr[2]), w2, s);
      s = U::multiply_add(splat(xr[3]), w3, s);
      store(y + r * C + j, s);
    }
  }
  return j;
}

template <class U>
static void gemv_as(float* y, const float* x, int rows, const float* w, int K, int C, const float* bias, int column0,
                    int column1) {
  for (int64_t r = 0; r < rows; r++)
    for (int j = column0; j < column1; j += W)
      store_first(y + r * C + j, bias ? load_first(bias + j, column1 - j) : Vec{}, column1 - j);
  for (int64_t k = 0; k < K; k += 4) {
    const int many = min(4, (int)(K - k));
    const float* wk = w + k * C;
    for (int64_t r = 0; r < rows;) {
      const int together = rows - r >= 4 ? 4 : 1;
      float* yr = y + r * C;
      const float* xr = x + r * K + k;
      int j = column0;
      if (many == 4)
        j = together == 4 ? gemv_step<U, 4>(yr, xr, K, wk, C, j, column1)
                          : gemv_step<U, 1>(yr, xr, K, wk, C, j, column1);
      for (; j < column1; j += W)
        for (int64_t q = 0; q < together; q++) {
          Vec s = load_first(yr + q * C + j, column1 - j);
          for (int64_t i = 0; i < many; i++)
            s = U::multiply_add(splat(xr[q * K + i]), load_first(wk + i * C + j, column1 - j), s);
          store_first(yr + q * C + j, s, column1 - j);
        }
      r += together;
    }
  }
}

static void gemv(float* y, const void* x, int rows, const void* w, int K, int C, const float* bias, bool bf16,
                 int column0, int column1) {
  if (bf16)
    gemv_as<PairUnit>(y, (const float*)x, rows, (const float*)w, (K + 1) / 2, C, bias, column0, column1);
  else gemv_as<FloatUnit>(y, (const float*)x, rows, (const float*)w, K, C, bias, column0, column1);
}

// out[r C] = x[r] . w for R rows of x, K apart; S sums a row, taken in turns.
template <class U, int R, int S>
INLINE void dots(float* out, int64_t C, const float* x, const float* w, int K) {
  Vec s[R][S] = {};
  int k = 0;
  for (; k + S * W <= K; k += S * W)
#pragma GCC unroll 4
    for (int i = 0; i < S; i++) {
      const Vec wi = load(w + k + i * W);
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) s[r][i] = U::multiply_add(load(x + (int64_t)r * K + k + i * W), wi, s[r][i]);
    }
  for (; k < K; k += W)
    for (int r = 0; r < R; r++)
      s[r][0] = U::multiply_add(load_first(x + (int64_t)r * K + k, K - k), load_first(w + k, K - k), s[r][0]);
  for (int r = 0; r < R; r++) {
    Vec total = s[r][0];
    for (int i = 1; i < S; i++) total += s[r][i];
    out[r * C] = sum(total);
  }
}

template <class U>
static void gemv_transposed_as(float* y, const float* x, int rows, const float* w, int K, int C, int column0,
                               int column1) {
  for (int64_t j = column0; j < column1; j++) {
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) dots<U, 4, 2>(y + r * C + j, C, x + r * K, w + j * K, K);
    for (; r < rows; r++) dots<U, 1, 4>(y + r * C + j, C, x + r * K, w + j * K, K);
  }
}

static void gemv_transposed(float* y, const void* x, int rows, const void* w, int K, int C, bool bf16, int column0,
                            int column1) {
  if (bf16)
    gemv_transposed_as<PairUnit>(y, (const float*)x, rows, (const float*)w, (K + 1) / 2, C, column0, column1);
  else gemv_transposed_as<FloatUnit>(y, (const float*)x, rows, (const float*)w, K, C, column0, column1);
}
