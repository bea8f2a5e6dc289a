// One vector of floats for each instruction set, with the few operations the kernels need. Arithmetic is the
// compiler's vector extension (+ - * / and comparisons work as written); what it cannot say is spelled per set below.
// Included by one translation unit per set, inside its namespace: everything is static.

#if defined(__AVX512F__)
#define WEFT_LANES 16
#elif defined(__AVX2__)
#define WEFT_LANES 8
#else
#define WEFT_LANES 4
#endif
#define INLINE static inline __attribute__((always_inline))

constexpr int W = WEFT_LANES;  // lanes
using Vec = float __attribute__((vector_size(4 * WEFT_LANES)));
using Ints = int32_t __attribute__((vector_size(4 * WEFT_LANES)));
using Words = uint32_t __attribute__((vector_size(4 * WEFT_LANES)));

static constexpr inline int min(int a, int b) { return a < b ? a : b; }
static constexpr inline int max(int a, int b) { return a > b ? a : b; }
static constexpr inline int round_up(int n, int step) { return (n + step - 1) / step * step; }

INLINE Vec load(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
INLINE void store(float* p, Vec v) { __builtin_memcpy(p, &v, sizeof v); }
INLINE Ints lanes() {
#if WEFT_LANES == 16
  return Ints{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif WEFT_LANES == 8
  return Ints{0, 1, 2, 3, 4, 5, 6, 7};
#else
  return Ints{0, 1, 2, 3};
#endif
}
INLINE Vec select(Ints mask, Vec yes, Vec no) { return (Vec)(((Ints)yes & mask) | ((Ints)no & ~mask)); }

// ---- per set: splat, fma(a, b, c) = a * b + c, maximum, minimum, and the first n lanes of memory (n >= W: all lanes;
// n <= 0: none; lanes that are not loaded are 0) ----

#if defined(__AVX512F__)

INLINE Vec splat(float x) { return (Vec)_mm512_set1_ps(x); }
INLINE Vec fma(Vec a, Vec b, Vec c) { return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
INLINE Vec maximum(Vec a, Vec b) { return (Vec)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE Vec minimum(Vec a, Vec b) { return (Vec)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE __mmask16 first(int n) { return n >= W ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1); }
INLINE Vec load_first(const float* p, int n) { return (Vec)_mm512_maskz_loadu_ps(first(n), p); }
INLINE void store_first(float* p, Vec v, int n) { _mm512_mask_storeu_ps(p, first(n), (__m512)v); }
// The order is ours, not the compiler's reduction: lane i with i + 8, then + 4, + 2, + 1; as AVX2 and the others have it.
INLINE __m128 halves_sum(__m256 x) { return _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)); }
INLINE float sum(Vec v) {
  const __m512 x = (__m512)v;
  const __m128 s = halves_sum(_mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)));
  const __m128 t = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(t, _mm_movehdup_ps(t)));
}
INLINE float largest(Vec v) {
  const __m512 x = (__m512)v;
  const __m256 y = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

#elif defined(__AVX2__)

INLINE Vec splat(float x) { return (Vec)_mm256_set1_ps(x); }
INLINE Vec fma(Vec a, Vec b, Vec c) { return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
INLINE Vec maximum(Vec a, Vec b) { return (Vec)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE Vec minimum(Vec a, Vec b) { return (Vec)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE __m256i first(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE Vec load_first(const float* p, int n) {
  return n >= W ? load(p) : (Vec)_mm256_maskload_ps(p, first(n));
}
INLINE void store_first(float* p, Vec v, int n) {
  if (n >= W) store(p, v);
  else _mm256_maskstore_ps(p, first(n), (__m256)v);
}
INLINE float sum(Vec v) {
  const __m256 x = (__m256)v;
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
INLINE float largest(Vec v) {
  const __m256 x = (__m256)v;
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

#else  // four lanes: NEON, and plain C++

INLINE Vec splat(float x) { return Vec{x, x, x, x}; }
#if defined(__ARM_NEON)
INLINE Vec fma(Vec a, Vec b, Vec c) { return (Vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#else
INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
#endif
INLINE Vec maximum(Vec a, Vec b) { return a > b ? a : b; }
INLINE Vec minimum(Vec a, Vec b) { return a < b ? a : b; }
INLINE Vec load_first(const float* p, int n) {
  if (n >= W) return load(p);
  Vec v = {};
  for (int i = 0; i < n; i++) v[i] = p[i];
  return v;
}
INLINE void store_first(float* p, Vec v, int n) {
  if (n >= W) store(p, v);
  else
    for (int i = 0; i < n; i++) p[i] = v[i];
}
INLINE float sum(Vec v) { return (v[0] + v[2]) + (v[1] + v[3]); }
INLINE float largest(Vec v) {
  const float a = v[0] > v[2] ? v[0] : v[2], b = v[1] > v[3] ? v[1] : v[3];
  return a > b ? a : b;
}

#endif

// ---- shuffles ----

#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
#define WEFT_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define WEFT_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Ints{__VA_ARGS__})
#endif

// a0 b0 a1 b1 ... of the lower and of the upper halves.
INLINE Vec interleave_low(Vec a, Vec b) {
#if WEFT_LANES == 16
  return WEFT_SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif WEFT_LANES == 8
  return WEFT_SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
  return WEFT_SHUFFLE(a, b, 0, 4, 1, 5);
#endif
}
INLINE Vec interleave_high(Vec a, Vec b) {
#if WEFT_LANES == 16
  return WEFT_SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif WEFT_LANES == 8
  return WEFT_SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
  return WEFT_SHUFFLE(a, b, 2, 6, 3, 7);
#endif
}

// Rows become columns: log2(W) perfect shuffles of row pairs that are W / 2 apart.
INLINE void transpose(Vec (&r)[W]) {
#pragma GCC unroll 4
  for (int stage = 1; stage < W; stage *= 2) {
    Vec t[W];
#pragma GCC unroll 16
    for (int i = 0; i < W / 2; i++) {
      t[2 * i] = interleave_low(r[i], r[i + W / 2]);
      t[2 * i + 1] = interleave_high(r[i], r[i + W / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < W; i++) r[i] = t[i];
  }
}

#include "functions.h"

// ---- functions ----

// e^x to 1.5 units in the last place, without overflow: x is held within [-87.3, 88.3]. Cephes' polynomial.
// A NaN stays one: minimum and maximum give their second argument where either is NaN.
INLINE Vec exponential(Vec x) {
  x = minimum(splat(88.3f), maximum(splat(-87.3f), x));
  const Vec magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const Vec shifted = fma(x, splat(1.44269504088896341f), magic);
  const Vec n = shifted - magic;
  Vec r = fma(n, splat(-0.693359375f), x);
  r = fma(n, splat(2.12194440e-4f), r);
  Vec p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(r * r, p, r + 1.0f);
  const Ints power = ((Ints)shifted - (Ints)magic + 127) << 23;
  return p * (Vec)power;
}

// gelu(x) = x Phi(x) and its slope Phi(x) + x phi(x), Phi and phi the standard normal's distribution and density.
// Phi(-|x|) = e^(-x^2 / 2) t q(t), t = 1 / (1 + 0.26 |x|): the form of Abramowitz & Stegun 7.1.26, q a Chebyshev fit of
// ours with a relative error of 5e-8, so that the tail is as exact as the middle.
INLINE Vec gelu_exact(Vec x, Vec& slope) {
  const Vec positive = maximum(x, -x);
  const Vec t = 1.0f / fma(positive, splat(0.26f), splat(1.0f));
  Vec q = splat(0.032440904581f);
  q = fma(q, t, splat(-0.162160532838f));
  q = fma(q, t, splat(0.270606015837f));
  q = fma(q, t, splat(-0.17262969585f));
  q = fma(q, t, splat(0.175805466479f));
  q = fma(q, t, splat(0.0447428519672f));
  q = fma(q, t, splat(0.104629572041f));
  q = fma(q, t, splat(0.102793235491f));
  q = fma(q, t, splat(0.103772184817f));
  const Vec bell = exponential(x * x * -0.5f);
  const Vec tail = bell * (t * q);
  const Vec phi = select(x > 0.0f, 1.0f - tail, tail);
  slope = fma(x * bell, splat(0.3989422804014327f), phi);
  return x * phi;
}

// x (1 + tanh(u)) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3); (1 + tanh u) / 2 = 1 / (1 + e^(-2u)).
// Source: Hendrycks & Gimpel 2016, arXiv:1606.08415.
INLINE Vec gelu_tanh(Vec x, Vec& slope) {
  const float root = 0.7978845608028654f;
  const Vec square = x * x;
  const Vec u = (x * root) * fma(square, splat(0.044715f), splat(1.0f));
  const Vec e = exponential(u * -2.0f), half = 1.0f / (1.0f + e);
  const Vec du = fma(square, splat(3 * 0.044715f), splat(1.0f)) * root;
  slope = fma((x + x) * half * (e * half), du, half);  // e half is 1 - half, without cancellation
  return x * half;
}

// ---- random numbers (Philox4x32-10, Salmon et al. 2011; see shared/arithmetic/philox.ts) ----

// High 32 bits of a * b, lane by lane.
INLINE Words multiply_high(Words a, uint32_t b) {
#if defined(__AVX512F__)
  const __m512i x = (__m512i)a, y = _mm512_set1_epi64(b);
  const __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(x, y), 32);
  return (Words)_mm512_mask_mov_epi32(even, 0xaaaa, _mm512_mul_epu32(_mm512_srli_epi64(x, 32), y));
#elif defined(__AVX2__)
  const __m256i x = (__m256i)a, y = _mm256_set1_epi64x(b);
  const __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(x, y), 32);
  return (Words)_mm256_blend_epi32(even, _mm256_mul_epu32(_mm256_srli_epi64(x, 32), y), 0xaa);
#else
  Words out;
  for (int i = 0; i < W; i++) out[i] = (uint32_t)((uint64_t)a[i] * b >> 32);
  return out;
#endif
}

// W counters become W times four random words.
INLINE void philox_rounds(Words& x0, Words& x1, Words& x2, Words& x3, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; round++) {
    const Words high0 = multiply_high(x0, 0xd2511f53u), high1 = multiply_high(x2, 0xcd9e8d57u);
    const Words low0 = x0 * 0xd2511f53u, low1 = x2 * 0xcd9e8d57u;
    x0 = high1 ^ x1 ^ key0;
    x1 = low1;
    x2 = high0 ^ x3 ^ key1;
    x3 = low0;
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
}

// The mask (0 or scale) of the 4 W elements from element `first`, a multiple of 4.
INLINE void dropout_block(float* mask, const Dropout& d, uint64_t first) {
  Words x0 = (Words)lanes() + (uint32_t)(first / 4);
  // Beyond 2^32 counters the line goes on in the site's upper half.
  const Words high = Words{} + (uint32_t)(first >> 34) - (Words)(x0 < (uint32_t)(first / 4));
  Words x1 = (high << 16) + d.site, x2 = Words{} + d.shard, x3 = Words{} + d.step;
  philox_rounds(x0, x1, x2, x3, d.key0, d.key1);
  const Words threshold = Words{} + d.threshold;
  const Words scale = (Words)splat(d.scale);
  const Vec m0 = (Vec)((Words)(x0 >= threshold) & scale), m1 = (Vec)((Words)(x1 >= threshold) & scale);
  const Vec m2 = (Vec)((Words)(x2 >= threshold) & scale), m3 = (Vec)((Words)(x3 >= threshold) & scale);
  const Vec low02 = interleave_low(m0, m2), low13 = interleave_low(m1, m3);
  const Vec high02 = interleave_high(m0, m2), high13 = interleave_high(m1, m3);
  store(mask, interleave_low(low02, low13));
  store(mask + W, interleave_high(low02, low13));
  store(mask + 2 * W, interleave_low(high02, high13));
  store(mask + 3 * W, interleave_high(high02, high13));
}

// The mask of elements [first, first + n), up to the next whole vector. `mask` has room for n + 8 W.
// Returns where element `first` stands in it.
static const float* dropout_mask(float* mask, const Dropout& d, uint64_t first, int n) {
  const int skip = (int)(first % 4);
  for (int i = 0; i < round_up(n, W) + skip; i += 4 * W) dropout_block(mask + i, d, first - skip + i);
  return mask + skip;
}
