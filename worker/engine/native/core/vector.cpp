#include "vector.h"

#include <algorithm>
#include <memory>

namespace weft {

static const VectorKernels& kernels_of(Isa isa) {
  switch (isa) {
#define X(name) \
  case Isa::name: return name::vector_kernels;
    WEFT_EACH_ISA(X)
#undef X
  }
  return plain::vector_kernels;
}

VectorOps::VectorOps(int threads, Isa isa) : isa_(isa), kernels_(kernels_of(isa)), pool_(threads, Denormals::keep) {}

static constexpr size_t chunk = 65536;   // of sumOfSquares: part of its definition
static constexpr size_t grain = 16384;   // elements: below this a second thread costs more than it brings
static constexpr int pieces_per_thread = 16;

void VectorOps::add(float* left, const float* right, size_t n) {
  pool_.run_ranges(n, grain, pieces_per_thread,
                   [&](size_t a, size_t b, int) { kernels_.add(left + a, right + a, b - a); });
}

double VectorOps::sum_of_squares(const float* x, size_t n) {
  const size_t chunks = (n + chunk - 1) / chunk;
  const std::unique_ptr<double[]> sums(new double[chunks]);
  pool_.run(static_cast<int>(chunks), [&](int i, int) {
    const size_t start = i * chunk;
    sums[i] = kernels_.sum_of_squares(x + start, std::min(chunk, n - start));
  });
  double total = 0;
  for (size_t i = 0; i < chunks; i++) total += sums[i];
  return total;
}

void VectorOps::adamw(float* w, const float* g, float* m, float* v, size_t n, const float* scalars) {
  pool_.run_ranges(n, grain, pieces_per_thread, [&](size_t a, size_t b, int) {
    kernels_.adamw(w + a, g + a, m + a, v + a, b - a, scalars);
  });
}

void VectorOps::digest(uint32_t* lanes, const uint32_t* words, size_t n) { kernels_.digest(lanes, words, n); }

void VectorOps::to_bf16(uint16_t* out, const float* x, size_t n) {
  pool_.run_ranges(n, grain, pieces_per_thread,
                   [&](size_t a, size_t b, int) { kernels_.to_bf16(out + a, x + a, b - a); });
}

void VectorOps::from_bf16(float* out, const uint16_t* x, size_t n) {
  pool_.run_ranges(n, grain, pieces_per_thread,
                   [&](size_t a, size_t b, int) { kernels_.from_bf16(out + a, x + a, b - a); });
}

}  // namespace weft
