// Vectorised, threaded twins of shared/arithmetic/codec.ts, bit for bit: vectors in bf16 with rounding by chance, or in
// blocks of 256 signed integers of 8 or 4 bits with one scale. The format is described there.
#pragma once
#include <cstddef>
#include <cstdint>

#include "isa.h"

namespace weft {

constexpr size_t codec_block = 256;

// What decides the rounding beside the values: key, node, step and the counter of the first element.
struct CodecPosition {
  uint32_t key0, key1, node, step, counter_low, counter_high;
};

// One instruction set's loops; codec_kernels.cpp. Stretches begin at whole blocks.
struct CodecKernels {
  void (*round_bf16)(float* x, size_t n, const CodecPosition& at);
  void (*encode_bf16)(uint8_t* out, const float* x, size_t n, const CodecPosition& at);
  void (*decode_bf16)(float* out, const uint8_t* bytes, size_t n);
  void (*round_blocks)(float* x, size_t n, int bits);
  void (*encode_blocks)(uint8_t* out, const float* x, size_t n, int bits);
  void (*decode_blocks)(float* out, const uint8_t* bytes, size_t n, int bits);
};

#define X(name)                            \
  namespace name {                         \
  extern const CodecKernels codec_kernels; \
  }
WEFT_EACH_ISA(X)
#undef X

// Bytes of n values in blocks of `bits` bits.
constexpr size_t codec_bytes(size_t n, int bits) {
  return 4 * ((n + codec_block - 1) / codec_block) + (n * static_cast<size_t>(bits) + 7) / 8;
}

}  // namespace weft
