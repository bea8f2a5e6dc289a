// Vectorised, threaded twins of the arithmetic in shared/arithmetic/vector.ts, bit for bit: one IEEE operation per operation there,
// denormals kept, any number of threads. (Which NaN comes out where one goes in is not part of the promise.)
// Pointers need no alignment; arrays must not overlap unless they are the same.
#pragma once
#include <cstddef>
#include <cstdint>

#include "codec.h"
#include "isa.h"
#include "pool.h"

namespace weft {

// One instruction set's loops over a stretch; vector_kernels.cpp.
struct VectorKernels {
  void (*add)(float* left, const float* right, size_t n);
  double (*sum_of_squares)(const float* x, size_t n);  // one chunk, n <= 65,536
  void (*adamw)(float* w, const float* g, float* m, float* v, size_t n, const float* scalars);
  void (*subtract)(float* left, const float* right, size_t n);
  void (*nesterov)(float* w, const float* g, float* b, size_t n, const float* scalars);
  void (*digest)(uint32_t* lanes, const uint32_t* words, size_t n);
  void (*to_bf16)(uint16_t* out, const float* x, size_t n);
  void (*from_bf16)(float* out, const uint16_t* x, size_t n);
};

// A PhiloxStream of shared/arithmetic/philox.ts: its key, its line (counter, a, b, high half), and what its normal numbers
// are multiplied by.
struct NormalStream {
  uint32_t key0, key1, a, b;
  double deviation;
};

struct RandomKernels {
  // n normal numbers, from number `first` of the stream on.
  void (*normal)(float* out, size_t n, uint64_t first, const NormalStream& from);
};

#define X(name)                              \
  namespace name {                           \
  extern const VectorKernels vector_kernels; \
  extern const RandomKernels random_kernels; \
  }
WEFT_EACH_ISA(X)
#undef X

// Neighbouring elements of one kind of decay.
struct Stretch {
  int64_t offset, size;
  bool decay;
};

// What one update is, but for the vectors: adamwUpdate in shared/arithmetic/adamw.ts.
struct AdamW {
  float decayed[9], plain[9];  // adamwScalars with weight decay and without; the first is worked out here
  double clip;                 // largest norm of the gradient; 0: any
  int units;                   // a power of two
};

class VectorOps {
 public:
  // The pool must outlive this. Calls must not overlap with others on it.
  VectorOps(Pool& pool, Isa isa);

  // left[i] += right[i]
  void add(float* left, const float* right, size_t n);
  // Chunks of 65,536 in order, eight float64 lanes each: see sumOfSquares in shared/arithmetic/vector.ts.
  double sum_of_squares(const float* x, size_t n);
  // scalars: the nine of adamwScalars in shared/arithmetic/vector.ts. w, m, v in place.
  void adamw(float* w, const float* g, float* m, float* v, size_t n, const float* scalars);
  // Clip and update in place, sum (n) being that over the units. Returns the norm of the mean gradient before the clip.
  double adamw_update(float* w, float* m, float* v, const float* sum, size_t n, const Stretch* stretches, size_t count,
                      const AdamW& update);
  // left[i] -= right[i]
  void subtract(float* left, const float* right, size_t n);
  // scalars: the three of nesterovScalars there. w, b in place.
  void nesterov(float* w, const float* g, float* b, size_t n, const float* scalars);
  // lanes (16): the xxHash32 rounds of digestOf in shared/arithmetic/vector.ts; lanes are set, not continued.
  void digest(uint32_t* lanes, const uint32_t* words, size_t n);
  // Round to nearest, ties to even; a NaN stays one (quiet, its sign and upper bits kept).
  void to_bf16(uint16_t* out, const float* x, size_t n);
  void from_bf16(float* out, const uint16_t* x, size_t n);

  // The first n normal numbers of a stream.
  void normal(float* out, size_t n, const NormalStream& from);
  // shared/arithmetic/codec.ts; bits: 8 or 4.
  void round_bf16(float* x, size_t n, const CodecPosition& at);
  void encode_bf16(uint8_t* out, const float* x, size_t n, const CodecPosition& at);
  void decode_bf16(float* out, const uint8_t* bytes, size_t n);
  void round_blocks(float* x, size_t n, int bits);
  void encode_blocks(uint8_t* out, const float* x, size_t n, int bits);
  void decode_blocks(float* out, const uint8_t* bytes, size_t n, int bits);

  Isa isa() const { return isa_; }

 private:
  Isa isa_;
  const VectorKernels& kernels_;
  const CodecKernels& codec_;
  const RandomKernels& random_;
  Pool& pool_;

  template <class Task>
  void ranges(size_t n, Task&& task);
};

}  // namespace weft
