// A sweep of random shapes: each fast kernel against its naive twin, widths odd and even, one row, one key, a GPT-2
// vocabulary; and each kernel cut into other tasks gives the same bits. Arrays are exactly as long as the kernel may
// touch, so that AddressSanitizer sees every step beyond.
#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "check.h"

using namespace weft;
using Floats = std::vector<float>;

static std::mt19937 engine(20240607);
static const Kernels* fast;
static const Kernels& naive = naive_kernels;

static int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine); }
static bool coin() { return pick(0, 1) == 1; }
static Floats random_floats(size_t n, float deviation = 1) {
  std::normal_distribution<float> normal(0, deviation);
  Floats x(n);
  for (float& v : x) v = normal(engine);
  return x;
}
static Dropout random_dropout(bool on) {
  Dropout d;
  d.on = on;
  for (uint32_t* word : {&d.key0, &d.key1, &d.site, &d.shard, &d.step}) *word = static_cast<uint32_t>(engine());
  d.threshold = 0x40000000;
  d.scale = 4.0f / 3;
  return d;
}

// 64-byte aligned scratch, exactly as long as asked for.
struct Aligned {
  explicit Aligned(size_t floats) : room(floats + 16) {
    first = room.data();
    while (reinterpret_cast<uintptr_t>(first) % 64) first++;
  }
  Floats room;
  float* first;
};

// Every element within `tolerance` of the largest expected magnitude.
static void near(const std::string& what, const Floats& got, const Floats& expected, double tolerance) {
  CHECK(got.size() == expected.size(), "%s", what.c_str());
  double largest = 1e-30, worst = -1;
  size_t at = 0;
  for (float x : expected) largest = std::max(largest, std::fabs(static_cast<double>(x)));
  for (size_t i = 0; i < got.size(); i++) {
    const double error = std::fabs(static_cast<double>(got[i]) - expected[i]) / largest;
    if (!(error <= worst)) worst = error, at = i;
  }
  CHECK(got.empty() || worst <= tolerance, "%s: element %zu is %.9g, expected %.9g (%.2g of the largest, %.2g allowed)",
        what.c_str(), at, got[at], expected[at], worst, tolerance);
}

static void same(const std::string& what, const Floats& got, const Floats& expected) {
  for (size_t i = 0; i < got.size(); i++)
    CHECK(memcmp(&got[i], &expected[i], 4) == 0, "%s: element %zu is %.9g, expected the bits of %.9g", what.c_str(), i,
          got[i], expected[i]);
}

static void matmul_case(int M, int N, int K) {
  Matmul f{};
  f.M = M, f.N = N, f.K = K;
  f.a_transposed = coin(), f.b_transposed = coin(), f.bf16 = coin();
  f.lda = (f.a_transposed ? M : K) + pick(0, 3);
  f.ldb = (f.b_transposed ? K : N) + pick(0, 3);
  f.ldc = N + pick(0, 3);
  auto extent = [](int64_t rows, int64_t ld, int64_t columns) {
    return static_cast<size_t>((rows - 1) * ld + columns);
  };
  const Floats a = random_floats(f.a_transposed ? extent(K, f.lda, M) : extent(M, f.lda, K));
  const Floats b = random_floats(f.b_transposed ? extent(N, f.ldb, K) : extent(K, f.ldb, N));
  const Floats start = random_floats(extent(M, f.ldc, N)), residual = random_floats(start.size());
  const Floats bias = random_floats(N);
  f.a = a.data(), f.b = b.data(), f.residual = residual.data();
  f.epilogue = static_cast<Epilogue>(pick(0, 3));
  f.gelu_tanh = coin();
  if (f.epilogue == Epilogue::none && coin()) f.accumulate = true;
  else if (coin()) f.bias = bias.data();
  if (f.epilogue == Epilogue::residual) f.dropout = random_dropout(coin());
  const bool slope = f.epilogue == Epilogue::multiply || coin();

  auto run = [&](const Kernels& k, int pieces, bool by_rows) {
    Floats c = start, slopes = residual;
    Aligned scratch(k.matmul_scratch());
    f.c = c.data(), f.slope = slope ? slopes.data() : nullptr;
    const int step = by_rows ? k.tile_rows : k.tile_columns, units = ((by_rows ? M : N) + step - 1) / step;
    for (int p = 0; p < pieces; p++) {
      const int from = units * p / pieces * step, to = std::min(by_rows ? M : N, units * (p + 1) / pieces * step);
      if (from < to)
        k.matmul(f, by_rows ? from : 0, by_rows ? to : M, by_rows ? 0 : from, by_rows ? N : to, scratch.first);
    }
    if (f.epilogue == Epilogue::gelu) c.insert(c.end(), slopes.begin(), slopes.end());
    return c;
  };
  const std::string what = "matmul " + std::to_string(M) + " x " + std::to_string(N) + " x " + std::to_string(K) +
                           (f.a_transposed ? " aT" : "") + (f.b_transposed ? " bT" : "") + (f.bf16 ? " bf16" : "") +
                           " epilogue " + std::to_string(static_cast<int>(f.epilogue));
  const Floats whole = run(*fast, 1, true);
  near(what, whole, run(naive, 1, true), 1e-5);
  same(what + " cut by rows", run(*fast, 3, true), whole);
  same(what + " cut by columns", run(*fast, 2, false), whole);
}

static void attention_case(int queries, int past, int head_size, bool bf16) {
  Attention f{};
  f.queries = queries, f.past = past, f.head_size = head_size, f.bf16 = bf16;
  f.scale = 1 / std::sqrt(static_cast<float>(head_size));
  const int keys = past + queries, width = head_size + pick(0, 5);
  f.ld_q = f.ld_kv = 3 * width, f.ld_out = width, f.ld_dqkv = 3 * width;
  const size_t qkv_size = static_cast<size_t>(keys - 1) * 3 * width + 2 * width + head_size;
  const Floats qkv = random_floats(qkv_size);
  f.q = qkv.data(), f.k = f.q + width, f.v = f.k + width;
  f.dropout = random_dropout(coin());
  // Around the place where the counter outgrows a word, too.
  f.dropout_first = static_cast<uint64_t>(pick(0, 100000)), f.dropout_row = keys;
  if (f.dropout_first % 2) f.dropout_first += (uint64_t{1} << 34) - 50000;
  const size_t out_size = static_cast<size_t>(queries - 1) * width + head_size;
  const Floats dout = random_floats(out_size);
  f.dout = dout.data();
  const double tolerance = bf16 ? 2e-2 : 1e-5;
  auto forward = [&](const Kernels& k, bool step) {
    Floats out(out_size), log_sum(queries);
    Aligned scratch(k.attention_scratch(keys, head_size));
    f.out = out.data(), f.log_sum = log_sum.data();
    (step ? k.attention_step : k.attention_forward)(f, scratch.first);
    if (!step) out.insert(out.end(), log_sum.begin(), log_sum.end());
    return out;
  };
  auto backward = [&](const Kernels& k) {
    Floats out = forward(naive, false), d(qkv_size);
    Aligned scratch(k.attention_scratch(keys, head_size));
    f.out = out.data(), f.log_sum = out.data() + out_size;
    f.dq = d.data(), f.dk = f.dq + width, f.dv = f.dk + width;
    k.attention_backward(f, scratch.first);
    return d;
  };
  const std::string what = "attention of " + std::to_string(queries) + " after " + std::to_string(past) +
                           ", head size " + std::to_string(head_size) + (bf16 ? ", bf16" : "");
  near(what, forward(*fast, false), forward(naive, false), tolerance);
  if (past == 0) near(what + ", backward", backward(*fast), backward(naive), tolerance);
  if (queries == 1) {
    f.dropout = {};
    near(what + ", step", forward(*fast, true), forward(naive, true), 1e-5);
  }
}

static void norm_case(int N, int C) {
  const Floats x = random_floats(static_cast<size_t>(N) * C, 3), dout = random_floats(x.size());
  const Floats weight = random_floats(C), bias = random_floats(C), start = random_floats(x.size());
  const bool has_bias = coin(), add = coin();
  auto run = [&](const Kernels& k) {
    Floats out(x.size()), mean(N), rstd(N), dx = start, dweight(C), dbias(C);
    k.norm_forward(out.data(), mean.data(), rstd.data(), x.data(), weight.data(), has_bias ? bias.data() : nullptr,
                   1e-5f, C, 0, N);
    k.norm_backward(dx.data(), add, dweight.data(), has_bias ? dbias.data() : nullptr, dout.data(), x.data(),
                    mean.data(), rstd.data(), weight.data(), C, 0, N);
    for (const Floats* part : {&mean, &rstd, &dx, &dweight, &dbias}) out.insert(out.end(), part->begin(), part->end());
    return out;
  };
  near("norm of " + std::to_string(N) + " x " + std::to_string(C), run(*fast), run(naive), 1e-5);
}

static void cross_entropy_case(int N, int V) {
  const Floats logits = random_floats(static_cast<size_t>(N) * V, 4);
  std::vector<int32_t> targets(N);
  for (int32_t& t : targets) t = pick(0, V - 1);
  auto run = [&](const Kernels& k, bool gradient) {
    Floats x = logits, losses(N);
    k.cross_entropy(x.data(), V, targets.data(), losses.data(), 1.0f / N, gradient, V, 0, N);
    losses.insert(losses.end(), x.begin(), x.end());
    return losses;
  };
  const std::string what = "cross-entropy of " + std::to_string(N) + " x " + std::to_string(V);
  near(what, run(*fast, true), run(naive, true), 1e-6);
  near(what + ", no gradient", run(*fast, false), run(naive, false), 1e-6);
}

static void gemv_case(int rows, int K, int C) {
  const Floats x = random_floats(static_cast<size_t>(rows) * K), w = random_floats(static_cast<size_t>(K) * C);
  const Floats bias = random_floats(C);
  for (const bool bf16 : {false, true}) {
    const size_t pairs = (K + 1) / 2;
    std::vector<uint32_t> x_pairs(rows * pairs), down(pairs * C), along(C * pairs);
    auto pack = [&](const Kernels& k) {
      for (int r = 0; r < rows; r++) k.pack_row(&x_pairs[r * pairs], &x[static_cast<size_t>(r) * K], K);
      for (int j = 0; j < C; j++) k.pack_row(&along[j * pairs], &w[static_cast<size_t>(j) * K], K);
      for (int i = 0; i < K; i += 2)
        k.pack_down(&down[i / 2 * C], &w[static_cast<size_t>(i) * C],
                    i + 1 < K ? &w[static_cast<size_t>(i + 1) * C] : nullptr, C);
    };
    auto run = [&](const Kernels& k, int cut) {
      pack(k);
      Floats y(static_cast<size_t>(rows) * C), z(y.size());
      const void* in = bf16 ? static_cast<const void*>(x_pairs.data()) : x.data();
      for (const auto& [from, to] : {std::pair{0, cut}, std::pair{cut, C}}) {
        k.gemv(y.data(), in, rows, bf16 ? static_cast<const void*>(down.data()) : w.data(), K, C, bias.data(), bf16,
               from, to);
        k.gemv_transposed(z.data(), in, rows, bf16 ? static_cast<const void*>(along.data()) : w.data(), K, C, bf16,
                          from, to);
      }
      y.insert(y.end(), z.begin(), z.end());
      return y;
    };
    const std::string what = "gemv of " + std::to_string(rows) + " x " + std::to_string(K) + " x " + std::to_string(C) +
                             (bf16 ? " bf16" : "");
    const Floats whole = run(*fast, 0);
    near(what, whole, run(naive, 0), 1e-5);
    same(what + " cut", run(*fast, C / 32 * 16), whole);
  }
}

static void simple_case(int N, int C) {
  const Floats x = random_floats(static_cast<size_t>(N) * C), y = random_floats(x.size());
  const Dropout d = random_dropout(true);
  const bool add = coin();
  auto run = [&](const Kernels& k) {
    Floats dropped(x.size()), columns = y, folded(C), added(x.size());
    const uint64_t cut = x.size() / 8 * 4;
    k.dropout(dropped.data(), x.data(), d, 0, cut);
    k.dropout(dropped.data(), x.data(), d, cut, x.size());
    columns.resize(C);
    k.column_sum(columns.data(), x.data(), C, N, 0, C / 2, add);
    k.column_sum(columns.data(), x.data(), C, N, C / 2, C, add);
    k.fold(folded.data(), x.data(), C, N, C);
    k.add(added.data(), x.data(), y.data(), static_cast<int64_t>(x.size()));
    for (const Floats* part : {&columns, &folded, &added}) dropped.insert(dropped.end(), part->begin(), part->end());
    return dropped;
  };
  near("dropout and sums of " + std::to_string(N) + " x " + std::to_string(C), run(*fast), run(naive), 1e-6);
}

// gelu and its slope to 3e-7 of max(1, |x|), and the tail of Phi to 1e-5 of itself down to e^-80.
static void gelu_case() {
  const int n = 4001;
  Floats x(n), one{1}, zero(n);
  for (int i = 0; i < n; i++) x[i] = static_cast<float>(i - 2000) * 0.006f;
  for (const bool tanh_form : {false, true}) {
    Floats c(n), slope(n), c_naive(n), slope_naive(n);
    Matmul f{};
    f.M = 1, f.N = n, f.K = 1, f.a = one.data(), f.lda = 1, f.b = x.data(), f.ldb = n, f.ldc = n;
    f.epilogue = Epilogue::gelu, f.gelu_tanh = tanh_form;
    Aligned scratch(fast->matmul_scratch());
    f.c = c.data(), f.slope = slope.data();
    fast->matmul(f, 0, 1, 0, n, scratch.first);
    f.c = c_naive.data(), f.slope = slope_naive.data();
    naive.matmul(f, 0, 1, 0, n, nullptr);
    for (int i = 0; i < n; i++) {
      const double allowed = 3e-7 * std::max(1.0f, std::fabs(x[i]));
      CHECK(std::fabs(c[i] - c_naive[i]) <= allowed, "gelu(%g) is %.9g, expected %.9g", x[i], c[i], c_naive[i]);
      CHECK(std::fabs(slope[i] - slope_naive[i]) <= allowed, "gelu'(%g) is %.9g, expected %.9g", x[i], slope[i],
            slope_naive[i]);
      if (!tanh_form)
        CHECK(std::fabs(c[i] - c_naive[i]) <= 1e-5 * std::fabs(c_naive[i]), "gelu(%g) is %.9g, expected %.9g", x[i],
              c[i], c_naive[i]);
    }
  }
}

int main() {
  fast = &kernels_of(isa_under_test());
  gelu_case();
  for (int i = 0; i < 150; i++) matmul_case(pick(1, 80), pick(1, 100), pick(1, 80));
  for (int i = 0; i < 6; i++) matmul_case(pick(1, 40), pick(1, 70), pick(500, 3000));
  matmul_case(pick(560, 600), 33, 65);
  matmul_case(3, 50257, 33);
  matmul_case(50257, 5, 2);
  for (const bool bf16 : {false, true}) {
    for (int i = 0; i < 30; i++) attention_case(pick(1, 150), coin() ? 0 : pick(0, 70), pick(1, 80), bf16);
    attention_case(1, 0, 11, bf16);
    attention_case(1, 37, 64, bf16);
    attention_case(256, 0, 64, bf16);
  }
  for (int i = 0; i < 30; i++) norm_case(pick(1, 40), pick(1, 200));
  for (int i = 0; i < 20; i++) cross_entropy_case(pick(1, 20), pick(1, 200));
  cross_entropy_case(3, 50257);
  for (int i = 0; i < 30; i++) gemv_case(pick(1, 9), pick(1, 200), pick(1, 300));
  for (int i = 0; i < 20; i++) simple_case(pick(1, 40), pick(1, 150));
  std::printf("kernels of %s agree with the naive ones\n", fast->name);
}
