// The loops of codec.h, compiled for each instruction set: plain C++ that the compiler vectorises, and Philox over the
// vectors of vec.h. Every operation is one IEEE operation, so that all sets give the same bits.
#include "codec.h"

#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 says it of its own intrinsics
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#pragma GCC diagnostic ignored "-Wunused-function"  // of vec.h

namespace weft {
namespace WEFT_ISA {

#include "vec.h"

// ---- bf16 ----

constexpr int draw = 8 * W;  // elements whose random halves W counters give

// random[i]: the half of element i of the stretch that begins at counter `low`, `high`, for `draw` elements.
static void draw_halves(uint16_t* random, const CodecPosition& at, uint64_t counter) {
  Words x0 = (Words)lanes() + (uint32_t)counter;
  // Where the low word wraps the high one is one more.
  Words x1 = Words{} + (uint32_t)(counter >> 32) - (Words)(x0 < (uint32_t)counter);
  Words x2 = Words{} + at.node, x3 = Words{} + at.step;
  philox_rounds(x0, x1, x2, x3, at.key0, at.key1);
  const Vec low02 = interleave_low((Vec)x0, (Vec)x2), low13 = interleave_low((Vec)x1, (Vec)x3);
  const Vec high02 = interleave_high((Vec)x0, (Vec)x2), high13 = interleave_high((Vec)x1, (Vec)x3);
  const Vec words[4] = {interleave_low(low02, low13), interleave_high(low02, low13), interleave_low(high02, high13),
                        interleave_high(high02, high13)};
  __builtin_memcpy(random, words, sizeof words);
}

static inline uint32_t rounded_by(uint32_t bits, uint32_t half) {
  const uint32_t magnitude = bits & 0x7fffffff;
  const uint32_t moved = magnitude >= 0x7f7f0000 ? bits : bits + half;
  return magnitude > 0x7f800000 ? bits | 0x400000 : moved;
}

// Calls each(bits of element i, i) with the lower half still there.
template <class Each>
INLINE void each_rounded(const float* x, size_t n, const CodecPosition& at, Each&& each) {
  const uint64_t first = (uint64_t)at.counter_high << 32 | at.counter_low;
  alignas(64) uint16_t random[draw];
  for (size_t i = 0; i < n; i += draw) {
    draw_halves(random, at, first + i / 8);
    const size_t end = n - i < (size_t)draw ? n - i : (size_t)draw;
    for (size_t j = 0; j < end; j++) {
      uint32_t bits;
      __builtin_memcpy(&bits, x + i + j, 4);
      each(rounded_by(bits, random[j]), i + j);
    }
  }
}

static void round_bf16(float* x, size_t n, const CodecPosition& at) {
  each_rounded(x, n, at, [x](uint32_t bits, size_t i) {
    bits &= 0xffff0000;
    __builtin_memcpy(x + i, &bits, 4);
  });
}

static void encode_bf16(uint8_t* out, const float* x, size_t n, const CodecPosition& at) {
  each_rounded(x, n, at, [out](uint32_t bits, size_t i) {
    const uint16_t half = (uint16_t)(bits >> 16);
    __builtin_memcpy(out + 2 * i, &half, 2);
  });
}

static void decode_bf16(float* out, const uint8_t* bytes, size_t n) {
  for (size_t i = 0; i < n; i++) {
    uint16_t half;
    __builtin_memcpy(&half, bytes + 2 * i, 2);
    const uint32_t bits = (uint32_t)half << 16;
    __builtin_memcpy(out + i, &bits, 4);
  }
}

// ---- blocks ----

static float scale_of(const float* x, int n, float levels) {
  uint32_t largest = 0;  // magnitudes are ordered as their bits
  for (int i = 0; i < n; i++) {
    uint32_t bits;
    __builtin_memcpy(&bits, x + i, 4);
    bits &= 0x7fffffff;
    largest = bits > largest ? bits : largest;
  }
  float scale;
  if (largest >= 0x7f800000) {
    const uint32_t nan = 0x7fc00000;
    __builtin_memcpy(&scale, &nan, 4);
    return scale;
  }
  if (largest < 0x0d800000) return 0;  // 2^-100
  __builtin_memcpy(&scale, &largest, 4);
  scale /= levels;
  uint32_t bits;
  __builtin_memcpy(&bits, &scale, 4);
  bits = (bits + 127) & ~127u;
  __builtin_memcpy(&scale, &bits, 4);
  if (!(scale * levels <= 3.4028234663852886e38f)) {
    bits -= 128;  // up, but not beyond the largest float
    __builtin_memcpy(&scale, &bits, 4);
  }
  return scale;
}

// q (n): which multiple of the scale each x is nearest to.
static void quanta(int8_t* __restrict q, const float* __restrict x, int n, float scale) {
  if (!(scale > 0)) {
    for (int i = 0; i < n; i++) q[i] = 0;
    return;
  }
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  int32_t offset;
  __builtin_memcpy(&offset, &magic, 4);
  for (int i = 0; i < n; i++) {
    const float shifted = x[i] / scale + magic;
    int32_t bits;
    __builtin_memcpy(&bits, &shifted, 4);
    q[i] = (int8_t)(bits - offset);
  }
}

static void round_blocks(float* x, size_t n, int bits) {
  const float levels = bits == 8 ? 127.0f : 7.0f;
  int8_t q[codec_block];
  for (size_t from = 0; from < n; from += codec_block) {
    const int count = n - from < codec_block ? (int)(n - from) : (int)codec_block;
    float* block = x + from;
    const float scale = scale_of(block, count, levels);
    quanta(q, block, count, scale);
    for (int i = 0; i < count; i++) block[i] = (float)q[i] * scale;
  }
}

static void encode_blocks(uint8_t* out, const float* x, size_t n, int bits) {
  const float levels = bits == 8 ? 127.0f : 7.0f;
  int8_t q[codec_block];
  for (size_t from = 0; from < n; from += codec_block) {
    const int count = n - from < codec_block ? (int)(n - from) : (int)codec_block;
    const float scale = scale_of(x + from, count, levels);
    __builtin_memcpy(out, &scale, 4);
    out += 4;
    quanta(q, x + from, count, scale);
    if (bits == 8) {
      __builtin_memcpy(out, q, count);
      out += count;
      continue;
    }
    for (int i = 0; i < count / 2; i++) out[i] = (uint8_t)((q[2 * i] & 15) | q[2 * i + 1] << 4);
    if (count % 2) out[count / 2] = (uint8_t)(q[count - 1] & 15);
    out += (count + 1) / 2;
  }
}

static void decode_blocks(float* out, const uint8_t* bytes, size_t n, int bits) {
  for (size_t from = 0; from < n; from += codec_block) {
    const int count = n - from < codec_block ? (int)(n - from) : (int)codec_block;
    float scale;
    __builtin_memcpy(&scale, bytes, 4);
    bytes += 4;
    float* block = out + from;
    if (bits == 8) {
      for (int i = 0; i < count; i++) block[i] = (float)(int8_t)bytes[i] * scale;
      bytes += count;
      continue;
    }
    int8_t q[codec_block];
    for (int i = 0; i < (count + 1) / 2; i++) {
      q[2 * i] = (int8_t)((int8_t)(bytes[i] << 4) >> 4);
      q[2 * i + 1] = (int8_t)((int8_t)bytes[i] >> 4);
    }
    for (int i = 0; i < count; i++) block[i] = (float)q[i] * scale;
    bytes += (count + 1) / 2;
  }
}

extern const CodecKernels codec_kernels = {round_bf16,   encode_bf16,   decode_bf16,
                                           round_blocks, encode_blocks, decode_blocks};

}  // namespace WEFT_ISA
}  // namespace weft
