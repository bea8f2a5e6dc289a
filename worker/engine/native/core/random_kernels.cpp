// Normal numbers from Philox, a stretch at a time; see PhiloxStream in shared/arithmetic/philox.ts, whose bits these are.
#include "kernels.h"
#include "vector.h"

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

// One normal number a counter (Box & Muller 1958): u from the first two words, v from the others, 53 bits each.
static void normal(float* out, size_t n, uint64_t first, const NormalStream& from) {
  constexpr int block = 16 * W;
  alignas(64) uint32_t words[4][block];
  for (size_t i = 0; i < n; i += block) {
    for (int j = 0; j < block; j += W) {
      const uint64_t counter = first + i + j;
      Words x0 = (Words)lanes() + (uint32_t)counter;
      // Where the low word wraps the high one is one more.
      Words x3 = Words{} + (uint32_t)(counter >> 32) - (Words)(x0 < (uint32_t)counter);
      Words x1 = Words{} + from.a, x2 = Words{} + from.b;
      philox_rounds(x0, x1, x2, x3, from.key0, from.key1);
      __builtin_memcpy(&words[0][j], &x0, sizeof x0);
      __builtin_memcpy(&words[1][j], &x1, sizeof x1);
      __builtin_memcpy(&words[2][j], &x2, sizeof x2);
      __builtin_memcpy(&words[3][j], &x3, sizeof x3);
    }
    const int end = n - i < (size_t)block ? (int)(n - i) : block;
    double u[block], v[block];
    for (int j = 0; j < block; j++) {
      u[j] = 1 - ((double)(int32_t)(words[0][j] >> 5) * 67108864.0 + (double)(int32_t)(words[1][j] >> 6)) *
                     (1 / 9007199254740992.0);
      v[j] = ((double)(int32_t)(words[2][j] >> 5) * 67108864.0 + (double)(int32_t)(words[3][j] >> 6)) *
             (1 / 9007199254740992.0);
    }
    for (int j = 0; j < block; j++) u[j] = __builtin_sqrt(-2 * log_of(u[j]));
    for (int j = 0; j < block; j++) v[j] = cos_turns(v[j]);
    for (int j = 0; j < end; j++) out[i + j] = (float)(from.deviation * (u[j] * v[j]));
  }
}

extern const RandomKernels random_kernels = {normal};

}  // namespace WEFT_ISA
}  // namespace weft
