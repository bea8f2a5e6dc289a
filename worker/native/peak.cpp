// The bench's yardstick: how fast this machine multiplies matrices with these kernels.
//   peak ISA float32|bf16 THREADS SIZE     prints the best GFLOP/s of products of SIZE x SIZE matrices
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "isa.h"
#include "kernels.h"
#include "pool.h"

using namespace weft;

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const bool bf16 = !strcmp(argv[2], "bf16");
  const Kernels& kernels = kernels_of(isa_choose(argv[1], bf16));
  const int threads = atoi(argv[3]), n = atoi(argv[4]);
  Pool pool(threads, Denormals::flush);
  const std::vector<float> a(static_cast<size_t>(n) * n, 0.5f), b = a;
  std::vector<float> c(a.size());
  struct Free {
    void operator()(float* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  std::vector<std::unique_ptr<float, Free>> scratch;
  for (int i = 0; i < threads; i++)
    scratch.emplace_back(static_cast<float*>(::operator new(kernels.matmul_scratch() * 4, std::align_val_t{64})));

  Matmul m{};
  m.M = m.N = m.K = n;
  m.a = a.data(), m.b = b.data(), m.c = c.data();
  m.lda = m.ldb = m.ldc = n;
  m.bf16 = bf16;
  const int tiles = (n + kernels.tile_rows - 1) / kernels.tile_rows;
  double best = 1e30;
  for (int repeat = 0; repeat < 12; repeat++) {
    const auto started = std::chrono::steady_clock::now();
    pool.run(threads, [&](int i, int slot) {
      const int from = tiles * i / threads * kernels.tile_rows, to = tiles * (i + 1) / threads * kernels.tile_rows;
      kernels.matmul(m, from, to < n ? to : n, 0, n, scratch[slot].get());
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
    if (seconds.count() < best) best = seconds.count();
  }
  std::printf("%.2f\n", 2.0 * n * n * n / best / 1e9);
}
