// The bench's yardsticks: how fast this machine multiplies matrices with these kernels, and reads its memory.
//   peak matmul ISA float32|bf16 THREADS SIZE     the best GFLOP/s of products of SIZE x SIZE matrices
//   peak read THREADS MEGABYTES                   the best GB/s of reading so much, a stretch in order for each thread
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

template <class Work>
static double best_seconds(Work&& work) {
  double best = 1e30;
  for (int repeat = 0; repeat < 12; repeat++) {
    const auto started = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
    if (seconds.count() < best) best = seconds.count();
  }
  return best;
}

static double matmul_rate(const char* isa, bool bf16, int threads, int n) {
  const Kernels& kernels = kernels_of(isa_choose(isa, bf16));
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
  return 2.0 * n * n * n / best_seconds([&] {
    pool.run(threads, [&](int i, int slot) {
      const int from = tiles * i / threads * kernels.tile_rows, to = tiles * (i + 1) / threads * kernels.tile_rows;
      kernels.matmul(m, from, to < n ? to : n, 0, n, scratch[slot].get());
    });
  });
}

#if defined(__x86_64__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
static uint64_t read(const uint64_t* words, size_t n) {
  uint64_t seen = 0;
  for (size_t i = 0; i < n; i++) seen |= words[i];
  return seen;
}

static double read_rate(int threads, int megabytes) {
  Pool pool(threads, Denormals::keep);
  const std::vector<uint64_t> memory(static_cast<size_t>(megabytes) * 125000, 1);
  const size_t share = memory.size() / threads;
  std::vector<uint64_t> seen(threads);
  return share * threads * sizeof(uint64_t) / best_seconds([&] {
    pool.run(threads, [&](int i, int) { seen[i] |= read(&memory[share * i], share); });
  });
}

int main(int argc, char** argv) {
  double rate;
  if (argc == 6 && !strcmp(argv[1], "matmul"))
    rate = matmul_rate(argv[2], !strcmp(argv[3], "bf16"), atoi(argv[4]), atoi(argv[5]));
  else if (argc == 4 && !strcmp(argv[1], "read")) rate = read_rate(atoi(argv[2]), atoi(argv[3]));
  else return 2;
  std::printf("%.2f\n", rate / 1e9);
}
