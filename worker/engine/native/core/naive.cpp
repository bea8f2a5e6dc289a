// Every kernel of kernels.h as the plainest loops that say what it means, sums in float64. They are the oracle of the
// fast kernels (test/worker/native/kernels_test.cpp) and a model can run on them whole; no --isa names them.
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels.h"

namespace weft {
namespace {

uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// Nearest bfloat16, ties to even.
float round_bf16(float x) {
  const uint32_t bits = bits_of(x);
  return float_of((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000);
}

// One Philox4x32-10 word: see shared/arithmetic/philox.ts.
uint32_t philox_word(const Dropout& d, uint64_t element) {
  uint32_t x[4] = {static_cast<uint32_t>(element / 4), d.site + (static_cast<uint32_t>(element >> 34) << 16), d.shard, d.step};
  uint32_t key0 = d.key0, key1 = d.key1;
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t{0xd2511f53} * x[0], b = uint64_t{0xcd9e8d57} * x[2];
    const uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ x[1] ^ key0, static_cast<uint32_t>(b),
                              static_cast<uint32_t>(a >> 32) ^ x[3] ^ key1, static_cast<uint32_t>(a)};
    memcpy(x, next, sizeof x);
    key0 += 0x9e3779b9;
    key1 += 0xbb67ae85;
  }
  return x[element % 4];
}

float mask_of(const Dropout& d, uint64_t element) {
  return !d.on ? 1 : philox_word(d, element) >= d.threshold ? d.scale : 0;
}

double gelu(double x, bool tanh_form, double& slope) {
  if (tanh_form) {
    const double root = std::sqrt(2 / M_PI), t = std::tanh(root * (x + 0.044715 * x * x * x));
    slope = (1 + t) / 2 + x / 2 * (1 - t * t) * root * (1 + 3 * 0.044715 * x * x);
    return x / 2 * (1 + t);
  }
  const double phi = std::erfc(-x / std::sqrt(2)) / 2;
  slope = phi + x * std::exp(-x * x / 2) / std::sqrt(2 * M_PI);
  return x * phi;
}

size_t matmul_scratch() { return 0; }
size_t attention_scratch(int keys, int) { return static_cast<size_t>(keys); }

void matmul(const Matmul& f, int row0, int row1, int column0, int column1, float*) {
  auto input = [&](float x) { return f.bf16 ? round_bf16(x) : x; };
  for (int64_t i = row0; i < row1; i++)
    for (int64_t j = column0; j < column1; j++) {
      double sum = 0;
      for (int64_t k = 0; k < f.K; k++)
        sum += static_cast<double>(input(f.a_transposed ? f.a[k * f.lda + i] : f.a[i * f.lda + k])) *
               input(f.b_transposed ? f.b[j * f.ldb + k] : f.b[k * f.ldb + j]);
      const int64_t at = i * f.ldc + j;
      if (f.accumulate) sum += f.c[at];
      if (f.bias) sum += f.bias[j];
      switch (f.epilogue) {
        case Epilogue::none: break;
        case Epilogue::residual: sum = f.residual[at] + sum * mask_of(f.dropout, i * f.N + j); break;
        case Epilogue::gelu: {
          double slope;
          sum = gelu(sum, f.gelu_tanh, slope);
          if (f.slope) f.slope[at] = static_cast<float>(slope);
          break;
        }
        case Epilogue::multiply: sum *= f.slope[at]; break;
      }
      f.c[at] = static_cast<float>(sum);
    }
}

// The probabilities of one query, before dropout. Returns the log of their sum.
double probabilities(const Attention& f, int query, std::vector<double>& p) {
  const int seen = f.past + query + 1;
  p.assign(seen, 0);
  double highest = -INFINITY, total = 0;
  for (int64_t j = 0; j < seen; j++) {
    for (int64_t d = 0; d < f.head_size; d++)
      p[j] += static_cast<double>(f.q[query * f.ld_q + d]) * f.k[j * f.ld_kv + d];
    p[j] *= f.scale;
    highest = std::fmax(highest, p[j]);
  }
  for (double& x : p) total += x = std::exp(x - highest);
  for (double& x : p) x /= total;
  return highest + std::log(total);
}

void attention_forward(const Attention& f, float*) {
  std::vector<double> p;
  for (int64_t i = 0; i < f.queries; i++) {
    const double log_sum = probabilities(f, i, p);
    if (f.log_sum) f.log_sum[i] = static_cast<float>(log_sum);
    for (int64_t d = 0; d < f.head_size; d++) {
      double sum = 0;
      for (size_t j = 0; j < p.size(); j++)
        sum += p[j] * mask_of(f.dropout, f.dropout_first + i * f.dropout_row + j) * f.v[j * f.ld_kv + d];
      f.out[i * f.ld_out + d] = static_cast<float>(sum);
    }
  }
}

void attention_backward(const Attention& f, float*) {
  const int64_t T = f.queries, hs = f.head_size;
  std::vector<double> p, dp(T), dq(T * hs), dk(T * hs), dv(T * hs);
  for (int64_t i = 0; i < T; i++) {
    probabilities(f, i, p);
    double mean = 0;
    for (int64_t j = 0; j <= i; j++) {
      const double mask = mask_of(f.dropout, f.dropout_first + i * f.dropout_row + j);
      dp[j] = 0;
      for (int64_t d = 0; d < hs; d++) {
        const double dout = f.dout[i * f.ld_out + d];
        dp[j] += dout * f.v[j * f.ld_kv + d] * mask;
        dv[j * hs + d] += p[j] * mask * dout;
      }
      mean += p[j] * dp[j];
    }
    for (int64_t j = 0; j <= i; j++) {
      const double dscore = p[j] * (dp[j] - mean) * f.scale;
      for (int64_t d = 0; d < hs; d++) {
        dq[i * hs + d] += dscore * f.k[j * f.ld_kv + d];
        dk[j * hs + d] += dscore * f.q[i * f.ld_q + d];
      }
    }
  }
  for (int64_t i = 0; i < T; i++)
    for (int64_t d = 0; d < hs; d++) {
      f.dq[i * f.ld_dqkv + d] = static_cast<float>(dq[i * hs + d]);
      f.dk[i * f.ld_dqkv + d] = static_cast<float>(dk[i * hs + d]);
      f.dv[i * f.ld_dqkv + d] = static_cast<float>(dv[i * hs + d]);
    }
}

// Element n of a row of floats or of pairs of bfloat16 whose pairs stand `apart` elements from each other.
float element(const void* row, int64_t n, bool bf16, int64_t apart) {
  if (!bf16) return static_cast<const float*>(row)[n * apart];
  const uint32_t pair = static_cast<const uint32_t*>(row)[n / 2 * apart];
  return float_of(n % 2 ? pair & 0xffff0000 : pair << 16);
}

void gemv(float* y, const void* x, int rows, const void* w, int K, int C, const float* bias, bool bf16, int column0,
          int column1) {
  const int64_t row = bf16 ? (K + 1) / 2 : K;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t j = column0; j < column1; j++) {
      double sum = bias ? bias[j] : 0;
      for (int64_t k = 0; k < K; k++)
        sum += static_cast<double>(element(static_cast<const float*>(x) + r * row, k, bf16, 1)) *
               element(static_cast<const float*>(w) + j, k, bf16, C);
      y[r * C + j] = static_cast<float>(sum);
    }
}

void gemv_transposed(float* y, const void* x, int rows, const void* w, int K, int C, bool bf16, int column0,
                     int column1) {
  const int64_t row = bf16 ? (K + 1) / 2 : K;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t j = column0; j < column1; j++) {
      double sum = 0;
      for (int64_t k = 0; k < K; k++)
        sum += static_cast<double>(element(static_cast<const float*>(x) + r * row, k, bf16, 1)) *
               element(static_cast<const float*>(w) + j * row, k, bf16, 1);
      y[r * C + j] = static_cast<float>(sum);
    }
}

void pack_row(uint32_t* pairs, const float* x, int n) {
  for (int i = 0; i < n; i += 2)
    pairs[i / 2] = bits_of(round_bf16(x[i])) >> 16 | (i + 1 < n ? bits_of(round_bf16(x[i + 1])) : 0);
}

void pack_down(uint32_t* pairs, const float* low, const float* high, int C) {
  for (int j = 0; j < C; j++)
    pairs[j] = bits_of(round_bf16(low[j])) >> 16 | (high ? bits_of(round_bf16(high[j])) : 0);
}

void gelu(float* x, int n, bool tanh_form) {
  double slope;
  for (int i = 0; i < n; i++) x[i] = static_cast<float>(gelu(x[i], tanh_form, slope));
}

void norm_forward(float* out, float* mean, float* rstd, const float* x, const float* weight, const float* bias,
                  float eps, int C, int row0, int row1) {
  for (int64_t r = row0; r < row1; r++) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < C; i++) sum += x[r * C + i];
    const double mu = sum / C;
    for (int64_t i = 0; i < C; i++) squares += (x[r * C + i] - mu) * (x[r * C + i] - mu);
    const double scale = 1 / std::sqrt(squares / C + eps);
    for (int64_t i = 0; i < C; i++)
      out[r * C + i] = static_cast<float>((x[r * C + i] - mu) * scale * weight[i] + (bias ? bias[i] : 0));
    mean[r] = static_cast<float>(mu);
    rstd[r] = static_cast<float>(scale);
  }
}

void norm_backward(float* dx, bool add, float* dweight, float* dbias, const float* dout, const float* x,
                   const float* mean, const float* rstd, const float* weight, int C, int row0, int row1) {
  std::vector<double> dw(C), db(C), n(C), g(C);
  for (int64_t r = row0; r < row1; r++) {
    double mean_g = 0, mean_gn = 0;
    for (int64_t i = 0; i < C; i++) {
      const double d = dout[r * C + i];
      n[i] = (static_cast<double>(x[r * C + i]) - mean[r]) * rstd[r];
      g[i] = d * weight[i];
      dw[i] += d * n[i];
      db[i] += d;
      mean_g += g[i] / C;
      mean_gn += g[i] * n[i] / C;
    }
    for (int64_t i = 0; i < C; i++)
      dx[r * C + i] = static_cast<float>(rstd[r] * (g[i] - mean_g - n[i] * mean_gn) + (add ? dx[r * C + i] : 0));
  }
  for (int64_t i = 0; i < C; i++) {
    dweight[i] = static_cast<float>(dw[i]);
    if (dbias) dbias[i] = static_cast<float>(db[i]);
  }
}

void cross_entropy(float* x, int64_t ldx, const int32_t* targets, float* losses, float scale, bool gradient, int V,
                   int row0, int row1) {
  for (int64_t r = row0; r < row1; r++) {
    float* row = x + r * ldx;
    double highest = -INFINITY, total = 0;
    for (int64_t j = 0; j < V; j++) highest = std::fmax(highest, row[j]);
    for (int64_t j = 0; j < V; j++) total += std::exp(row[j] - highest);
    const double log_sum = highest + std::log(total);
    losses[r] = static_cast<float>(log_sum - row[targets[r]]);
    for (int64_t j = 0; gradient && j < V; j++)
      row[j] = static_cast<float>((std::exp(row[j] - log_sum) - (j == targets[r] ? 1 : 0)) * scale);
  }
}

void dropout(float* out, const float* in, const Dropout& d, uint64_t first, uint64_t last) {
  for (uint64_t i = first; i < last; i++) out[i] = in[i] * mask_of(d, i);
}

void column_sum(float* out, const float* x, int64_t ldx, int N, int column0, int column1, bool add) {
  for (int64_t j = column0; j < column1; j++) {
    double sum = add ? out[j] : 0;
    for (int64_t r = 0; r < N; r++) sum += x[r * ldx + j];
    out[j] = static_cast<float>(sum);
  }
}

void fold(float* out, const float* parts, int64_t stride, int count, int n) {
  for (int64_t i = 0; i < n; i++) {
    double sum = 0;
    for (int64_t p = 0; p < count; p++) sum += parts[p * stride + i];
    out[i] = static_cast<float>(sum);
  }
}

void add(float* out, const float* a, const float* b, int64_t n) {
  for (int64_t i = 0; i < n; i++) out[i] = a[i] + b[i];
}

}  // namespace

extern const Kernels naive_kernels = {
    .name = "naive",
    .tile_rows = 1,
    .tile_columns = 1,
    .matmul_scratch = matmul_scratch,
    .attention_scratch = attention_scratch,
    .matmul = matmul,
    .attention_forward = attention_forward,
    .attention_step = attention_forward,
    .attention_backward = attention_backward,
    .gemv = gemv,
    .gemv_transposed = gemv_transposed,
    .pack_row = pack_row,
    .pack_down = pack_down,
    .gelu = gelu,
    .norm_forward = norm_forward,
    .norm_backward = norm_backward,
    .cross_entropy = cross_entropy,
    .dropout = dropout,
    .column_sum = column_sum,
    .fold = fold,
    .add = add,
};

const Kernels& kernels_of(Isa isa) {
  switch (isa) {
#define X(name) \
  case Isa::name: return name::kernels;
    WEFT_EACH_ISA(X)
#undef X
  }
  return naive_kernels;
}

}  // namespace weft
