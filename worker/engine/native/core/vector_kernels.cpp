// The loops of vector.h, written once in plain C++ and compiled for each instruction set: the compiler vectorises them,
// and without fused operations or reassociation every set gives the same bits.
#include "vector.h"

#include <cmath>
#include <cstring>

namespace weft {
namespace WEFT_ISA {

static void add(float* __restrict left, const float* right, size_t n) {
  for (size_t i = 0; i < n; i++) left[i] += right[i];
}

using Doubles = double __attribute__((vector_size(64)));
using Floats = float __attribute__((vector_size(32)));

static double sum_of_squares(const float* x, size_t n) {
  Doubles lanes = {};
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    Floats f;
    memcpy(&f, x + i, sizeof f);
    const Doubles d = __builtin_convertvector(f, Doubles);
    __builtin_prefetch(x + i + 1024);  // the chain of additions keeps the CPU from looking so far ahead itself
    lanes += d * d;
  }
  double t[8];
  memcpy(t, &lanes, sizeof t);
  for (size_t lane = 0; i < n; i++, lane++) t[lane] += static_cast<double>(x[i]) * x[i];
  return ((t[0] + t[4]) + (t[2] + t[6])) + ((t[1] + t[5]) + (t[3] + t[7]));
}

static void adamw(float* __restrict w, const float* __restrict g, float* __restrict m, float* __restrict v, size_t n,
                  const float* scalars) {
  const float scale = scalars[0], beta1 = scalars[1], rest1 = scalars[2], beta2 = scalars[3], rest2 = scalars[4];
  const float keep = scalars[5], step = scalars[6], correction2 = scalars[7], eps = scalars[8];
  for (size_t i = 0; i < n; i++) {
    const float gi = g[i] * scale;
    const float mi = beta1 * m[i] + rest1 * gi;
    const float vi = beta2 * v[i] + rest2 * (gi * gi);
    const float denominator = std::sqrt(vi) * correction2 + eps;
    m[i] = mi;
    v[i] = vi;
    w[i] = w[i] * keep - step * (mi / denominator);
  }
}

static void subtract(float* __restrict left, const float* right, size_t n) {
  for (size_t i = 0; i < n; i++) left[i] -= right[i];
}

static void nesterov(float* __restrict w, const float* __restrict g, float* __restrict b, size_t n,
                     const float* scalars) {
  const float scale = scalars[0], momentum = scalars[1], rate = scalars[2];
  for (size_t i = 0; i < n; i++) {
    const float gi = g[i] * scale;
    const float bi = momentum * b[i] + gi;
    b[i] = bi;
    w[i] = w[i] - rate * (gi + momentum * bi);
  }
}

static constexpr uint32_t prime1 = 0x9e3779b1u, prime2 = 0x85ebca77u;

static void digest(uint32_t* lanes, const uint32_t* words, size_t n) {
  uint32_t h[16];
  for (uint32_t lane = 0; lane < 16; lane++) h[lane] = prime1 * (lane + 1);
  size_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int lane = 0; lane < 16; lane++) {
      const uint32_t x = h[lane] + words[i + lane] * prime2;
      h[lane] = (x << 13 | x >> 19) * prime1;
    }
  for (int lane = 0; i < n; i++, lane++) {
    const uint32_t x = h[lane] + words[i] * prime2;
    h[lane] = (x << 13 | x >> 19) * prime1;
  }
  memcpy(lanes, h, sizeof h);
}

static void to_bf16(uint16_t* __restrict out, const float* __restrict x, size_t n) {
  for (size_t i = 0; i < n; i++) {
    uint32_t bits;
    memcpy(&bits, x + i, sizeof bits);
    const uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
    const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
    out[i] = static_cast<uint16_t>((is_nan ? bits | 0x400000 : rounded) >> 16);
  }
}

static void from_bf16(float* __restrict out, const uint16_t* __restrict x, size_t n) {
  for (size_t i = 0; i < n; i++) {
    const uint32_t bits = static_cast<uint32_t>(x[i]) << 16;
    memcpy(out + i, &bits, sizeof bits);
  }
}

const VectorKernels vector_kernels = {add,      sum_of_squares, adamw,   subtract,
                                      nesterov, digest,         to_bf16, from_bf16};

}  // namespace WEFT_ISA
}  // namespace weft
