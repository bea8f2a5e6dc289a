#include "vector.h"

#include <algorithm>
#include <cmath>
#include <memory>

namespace weft {

#define WEFT_TABLE_OF(isa, table)        \
  [&]() -> const auto& {                 \
    switch (isa) {                       \
      WEFT_EACH_ISA(WEFT_CASE_##table)   \
    }                                    \
    return plain::table;                 \
  }()
#define WEFT_CASE_vector_kernels(name) \
  case Isa::name: return name::vector_kernels;
#define WEFT_CASE_codec_kernels(name) \
  case Isa::name: return name::codec_kernels;
#define WEFT_CASE_random_kernels(name) \
  case Isa::name: return name::random_kernels;

VectorOps::VectorOps(Pool& pool, Isa isa)
    : isa_(isa),
      kernels_(WEFT_TABLE_OF(isa, vector_kernels)),
      codec_(WEFT_TABLE_OF(isa, codec_kernels)),
      random_(WEFT_TABLE_OF(isa, random_kernels)),
      pool_(pool) {}

static constexpr size_t chunk = 65536;   // of sumOfSquares: part of its definition
static constexpr size_t grain = 16384;   // elements: below this a second thread costs more than it brings
static constexpr int pieces_per_thread = 16;

// The pool may be a model's, whose threads flush denormals.
template <class Task>
void VectorOps::ranges(size_t n, Task&& task) {
  pool_.run_ranges(n, grain, pieces_per_thread, [&](size_t a, size_t b, int) {
    DenormalScope scope(Denormals::keep);
    task(a, b);
  });
}

void VectorOps::add(float* left, const float* right, size_t n) {
  ranges(n, [&](size_t a, size_t b) { kernels_.add(left + a, right + a, b - a); });
}

double VectorOps::sum_of_squares(const float* x, size_t n) {
  const size_t chunks = (n + chunk - 1) / chunk;
  const std::unique_ptr<double[]> sums(new double[chunks]);
  pool_.run(static_cast<int>(chunks), [&](int i, int) {
    DenormalScope scope(Denormals::keep);
    const size_t start = i * chunk;
    sums[i] = kernels_.sum_of_squares(x + start, std::min(chunk, n - start));
  });
  double total = 0;
  for (size_t i = 0; i < chunks; i++) total += sums[i];
  return total;
}

void VectorOps::adamw(float* w, const float* g, float* m, float* v, size_t n, const float* scalars) {
  ranges(n, [&](size_t a, size_t b) {
    kernels_.adamw(w + a, g + a, m + a, v + a, b - a, scalars);
  });
}

void VectorOps::subtract(float* left, const float* right, size_t n) {
  ranges(n, [&](size_t a, size_t b) { kernels_.subtract(left + a, right + a, b - a); });
}

void VectorOps::nesterov(float* w, const float* g, float* momentum, size_t n, const float* scalars) {
  ranges(n, [&](size_t a, size_t b) {
    kernels_.nesterov(w + a, g + a, momentum + a, b - a, scalars);
  });
}

double VectorOps::adamw_update(float* w, float* m, float* v, const float* sum, size_t n, const Stretch* stretches,
                               size_t count, const AdamW& update) {
  const double norm = std::sqrt(sum_of_squares(sum, n)) / update.units;
  const double factor = update.clip > 0 ? update.clip / (norm + 1e-6) : 1;
  const float scale = static_cast<float>((factor > 1 ? 1 : factor) / update.units);  // a NaN stays one
  for (size_t i = 0; i < count; i++) {
    float scalars[9];
    std::copy_n(stretches[i].decay ? update.decayed : update.plain, 9, scalars);
    scalars[0] = scale;
    const int64_t at = stretches[i].offset;
    adamw(w + at, sum + at, m + at, v + at, static_cast<size_t>(stretches[i].size), scalars);
  }
  return norm;
}

void VectorOps::digest(uint32_t* lanes, const uint32_t* words, size_t n) { kernels_.digest(lanes, words, n); }

void VectorOps::to_bf16(uint16_t* out, const float* x, size_t n) {
  ranges(n, [&](size_t a, size_t b) { kernels_.to_bf16(out + a, x + a, b - a); });
}

void VectorOps::from_bf16(float* out, const uint16_t* x, size_t n) {
  ranges(n, [&](size_t a, size_t b) { kernels_.from_bf16(out + a, x + a, b - a); });
}

void VectorOps::normal(float* out, size_t n, const NormalStream& from) {
  ranges(n, [&](size_t a, size_t b) { random_.normal(out + a, b - a, a, from); });
}

static CodecPosition moved(CodecPosition at, size_t elements) {
  const uint64_t counter = (static_cast<uint64_t>(at.counter_high) << 32 | at.counter_low) + elements / 8;
  at.counter_low = static_cast<uint32_t>(counter);
  at.counter_high = static_cast<uint32_t>(counter >> 32);
  return at;
}

// Stretches are cut at multiples of `grain`, which is one of whole blocks.
void VectorOps::round_bf16(float* x, size_t n, const CodecPosition& at) {
  ranges(n, [&](size_t a, size_t b) { codec_.round_bf16(x + a, b - a, moved(at, a)); });
}

void VectorOps::encode_bf16(uint8_t* out, const float* x, size_t n, const CodecPosition& at) {
  ranges(n, [&](size_t a, size_t b) { codec_.encode_bf16(out + 2 * a, x + a, b - a, moved(at, a)); });
}

void VectorOps::decode_bf16(float* out, const uint8_t* bytes, size_t n) {
  ranges(n, [&](size_t a, size_t b) { codec_.decode_bf16(out + a, bytes + 2 * a, b - a); });
}

void VectorOps::round_blocks(float* x, size_t n, int bits) {
  ranges(n, [&](size_t a, size_t b) { codec_.round_blocks(x + a, b - a, bits); });
}

void VectorOps::encode_blocks(uint8_t* out, const float* x, size_t n, int bits) {
  ranges(n, [&](size_t a, size_t b) {
    codec_.encode_blocks(out + codec_bytes(a, bits), x + a, b - a, bits);
  });
}

void VectorOps::decode_blocks(float* out, const uint8_t* bytes, size_t n, int bits) {
  ranges(n, [&](size_t a, size_t b) {
    codec_.decode_blocks(out + a, bytes + codec_bytes(a, bits), b - a, bits);
  });
}

}  // namespace weft
