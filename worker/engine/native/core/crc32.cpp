// After Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction" (Intel, 2009): 16 bytes
// that stand d bits before others may be replaced, added to those, by themselves times x^d mod P. Four such sums run
// side by side over the message; what is left of them is 16 bytes with the CRC of all.
#include "crc32.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace weft {

// Polynomials over GF(2) are reflected here: the highest bit is the factor of x^0.
static constexpr uint32_t times_x(uint32_t p) { return p >> 1 ^ (p & 1 ? 0xedb88320u : 0); }

static constexpr struct Table {
  uint32_t of[256];
  constexpr Table() : of() {
    for (uint32_t byte = 0; byte < 256; byte++) {
      of[byte] = byte;
      for (int bit = 0; bit < 8; bit++) of[byte] = times_x(of[byte]);
    }
  }
} table;

static uint32_t by_bytes(uint32_t crc, const uint8_t* bytes, size_t n) {
  for (size_t i = 0; i < n; i++) crc = crc >> 8 ^ table.of[(crc ^ bytes[i]) & 255];
  return crc;
}

// x^d mod P, one place up as a product of reflected factors needs it.
static constexpr int64_t power(int d) {
  uint32_t p = 0x80000000u;
  for (int i = 0; i < d; i++) p = times_x(p);
  return static_cast<int64_t>(p) << 1;
}

#define CLMUL __attribute__((target("pclmul,sse4.1")))

CLMUL static inline __m128i load(const uint8_t* at) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at)); }

// `x` moved on to where `next` stands: by[0] moves the first 8 bytes, by[1] the last 8.
CLMUL static inline __m128i fold(__m128i x, __m128i by, __m128i next) {
  const __m128i first = _mm_clmulepi64_si128(x, by, 0x00), last = _mm_clmulepi64_si128(x, by, 0x11);
  return _mm_xor_si128(_mm_xor_si128(first, last), next);
}

bool crc32_runs_here() { return __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1"); }

CLMUL uint32_t crc32(const uint8_t* bytes, size_t n) {
  if (n < 64) return ~by_bytes(~0u, bytes, n);
  constexpr int64_t by_64_first = power(512 + 32), by_64_last = power(512 - 32);
  constexpr int64_t by_16_first = power(128 + 32), by_16_last = power(128 - 32);
  const __m128i by_64 = _mm_set_epi64x(by_64_last, by_64_first), by_16 = _mm_set_epi64x(by_16_last, by_16_first);
  __m128i a = _mm_xor_si128(load(bytes), _mm_cvtsi32_si128(-1));
  __m128i b = load(bytes + 16), c = load(bytes + 32), d = load(bytes + 48);
  size_t i = 64;
  for (; i + 64 <= n; i += 64) {
    a = fold(a, by_64, load(bytes + i));
    b = fold(b, by_64, load(bytes + i + 16));
    c = fold(c, by_64, load(bytes + i + 32));
    d = fold(d, by_64, load(bytes + i + 48));
  }
  d = fold(fold(fold(a, by_16, b), by_16, c), by_16, d);
  for (; i + 16 <= n; i += 16) d = fold(d, by_16, load(bytes + i));
  uint8_t rest[16];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(rest), d);
  return ~by_bytes(by_bytes(0, rest, sizeof rest), bytes + i, n - i);
}

}  // namespace weft

#else

namespace weft {

bool crc32_runs_here() { return false; }
uint32_t crc32(const uint8_t*, size_t) { return 0; }

}  // namespace weft

#endif
