// Matrix products: packed, blocked, with the epilogue applied while a tile is still in cache. After Goto & van de
// Geijn, "Anatomy of high-performance matrix multiplication" (ACM TOMS 2008): a MR x NR tile of c lives in registers
// while panels of a (MR wide) and b (NR wide) stream by. Included by kernels.cpp in the namespace of each instruction
// set.
//
// A panel holds units in the order [k][i]. A unit is what one multiply-add takes from one row: a float, or with
// hardware bf16 a pair of bf16 of neighbouring k in the space of a float. Without that hardware, bf16 is float rounded
// in packing. Panels are written in order in whole vectors: where MR is no multiple of W, each row's excess lanes are
// overwritten by the next row, and W floats of slack follow the last panel.

#if defined(__AVX512F__)
constexpr int MR = 14, NV = 2;
#elif defined(__AVX2__)
constexpr int MR = 6, NV = 2;
#elif defined(__ARM_NEON)
constexpr int MR = 8, NV = 3;
#else
constexpr int MR = 4, NV = 2;
#endif
constexpr int NR = NV * W;

// Blocks: units of k per panel, rows of a per block (in L2), columns of b per block (in L3).
constexpr int K_BLOCK = 512;
constexpr int M_BLOCK = 280 / MR * MR;
constexpr int N_BLOCK = 2048 / NR * NR;

struct Float32 {
  static constexpr int depth = 1;       // k per unit
  static constexpr bool exact = true;  // a unit is the float itself
  // Units of W neighbouring k from s, of which n elements exist.
  INLINE Vec along(const float* s, int n) { return load_first(s, n); }
  // Units of W neighbouring columns from s, of which n exist; the next k is ld further (if there is one).
  INLINE Vec across(const float* s, int64_t, bool, int n) { return load_first(s, n); }
  INLINE Vec multiply_add(Vec a, Vec b, Vec c) { return fma(a, b, c); }
};

#if defined(__AVX512BF16__)
INLINE __m512i bf16_pairs(Vec low, Vec high) {  // (low_0, high_0), (low_1, high_1), ...
  alignas(64) static const uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
  return _mm512_permutexvar_epi16(_mm512_load_si512(order), halves);
}

struct Bf16 {
  static constexpr int depth = 2;
  static constexpr bool exact = false;
  INLINE Vec along(const float* s, int n) {
    const __m512 low = (__m512)load_first(s, n);
    return (Vec)(__m512i)_mm512_cvtne2ps_pbh((__m512)load_first(s + W, n - W), low);
  }
  INLINE Vec across(const float* s, int64_t ld, bool next, int n) {
    return (Vec)bf16_pairs(load_first(s, n), next ? load_first(s + ld, n) : Vec{});
  }
  INLINE Vec multiply_add(Vec a, Vec b, Vec c) {
    return (Vec)_mm512_dpbf16_ps((__m512)c, (__m512bh)(__m512i)a, (__m512bh)(__m512i)b);
  }
};
#else
// Nearest bfloat16, ties to even.
INLINE Vec round_bf16(Vec x) {
  const Words bits = (Words)x;
  return (Vec)((bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
}

struct Bf16 {
  static constexpr int depth = 1;
  static constexpr bool exact = false;
  INLINE Vec along(const float* s, int n) { return round_bf16(load_first(s, n)); }
  INLINE Vec across(const float* s, int64_t, bool, int n) { return round_bf16(load_first(s, n)); }
  INLINE Vec multiply_add(Vec a, Vec b, Vec c) { return fma(a, b, c); }
};
#endif

template <class P>
INLINE int units(int K) { return (K + P::depth - 1) / P::depth; }

// panel[k][i], i < PW: `wide` columns that stand side by side in memory, s[k * ld + i]. Missing columns are 0.
template <class P, int PW>
static void pack_rows(float* panel, const float* s, int64_t ld, int K, int wide) {
  const auto pack = [&](int n) {
    for (int k = 0; k < K; k += P::depth, s += P::depth * ld, panel += PW)
#pragma GCC unroll 4
      for (int i = 0; i < PW; i += W) store(panel + i, P::across(s + i, ld, k + 1 < K, n - i));
  };
  if (wide == PW) pack(PW);  // known to the compiler: no masks, and more loads under way
  else pack(wide);
}

// The same for columns that stand ld apart, s[i * ld + k].
template <class P, int PW>
static void pack_columns(float* panel, const float* s, int64_t ld, int K, int wide) {
  const int count = units<P>(K);
  for (int i0 = 0; i0 < PW; i0 += W) {
    for (int k = 0; k < count; k += W) {
      Vec r[W];
      const int left = K - k * P::depth;
#pragma GCC unroll 16
      for (int i = 0; i < W; i++)
        r[i] = i0 + i < wide ? P::along(s + (i0 + i) * ld + k * P::depth, left) : Vec{};
      transpose(r);
      float* out = panel + (int64_t)k * PW + i0;
      if (count - k >= W) {
#pragma GCC unroll 16
        for (int i = 0; i < W; i++) store(out + i * PW, r[i]);
      } else {
        alignas(64) float rest[W * W];
#pragma GCC unroll 16
        for (int i = 0; i < W; i++) store(rest + i * W, r[i]);
        for (int i = 0; i < count - k; i++) store(out + i * PW, load(rest + i * W));
      }
    }
  }
}

// Memory that will be read soon: one line for each k of a tile, from `from` in steps of `step` floats. A tile leaves the
// memory idle, so that what it brings into the cache costs next to nothing.
struct Ahead {
  const float* from;
  int64_t step;
};

// c (M, n) (+)= a b over K units. b: a panel, row stride b_step. a: a panel when ROWS is false (units of one k side by
// side, a_step between k), else rows (a_step between rows, k side by side). n <= VECTORS * W columns are stored.
template <class P, bool ROWS, int M, int VECTORS>
static void tile(int K, const float* __restrict a, int64_t a_step, const float* __restrict b, int64_t b_step,
                 float* __restrict c, int64_t ldc, int n, bool accumulate, Ahead ahead) {
  Vec sums[M][VECTORS];
  const float* pairs[(M + 1) / 2];  // every second row's address: the others are reached by an index
  if (ROWS)
#pragma GCC unroll 16
    for (int i = 0; i < (M + 1) / 2; i++) pairs[i] = a + 2 * i * a_step;
#pragma GCC unroll 16
  for (int i = 0; i < M; i++)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) {
      sums[i][v] = Vec{};
      if (!ROWS) __builtin_prefetch(c + i * ldc + v * W, 1);
    }
#pragma GCC unroll 2
  for (int k = 0; k < K; k++) {
    if (!ROWS) {
      __builtin_prefetch(ahead.from, 0, 2);
      ahead.from += ahead.step;
    }
    Vec column[VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) column[v] = load(b + v * W);
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) {
      const Vec x = splat(ROWS ? pairs[i / 2][(i & 1) * a_step + k] : a[i]);
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) sums[i][v] = P::multiply_add(x, column[v], sums[i][v]);
    }
    if (!ROWS) a += a_step;
    b += b_step;
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; i++)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) {
      float* out = c + i * ldc + v * W;
      const int left = n - v * W;
      if (accumulate) sums[i][v] += load_first(out, left);
      store_first(out, sums[i][v], left);
    }
}

using Tile = void (*)(int, const float*, int64_t, const float*, int64_t, float*, int64_t, int, bool, Ahead);

// tiles<P, ROWS>.of[m - 1][v - 1]: the kernel for m rows and v vectors.
template <class P, bool ROWS>
struct Tiles {
  Tile of[MR][NV];
  template <int M, int V>
  constexpr void fill() {
    of[M - 1][V - 1] = tile<P, ROWS, M, V>;
    if constexpr (V > 1) fill<M, V - 1>();
    else if constexpr (M > 1) fill<M - 1, NV>();
  }
  constexpr Tiles() : of() { fill<MR, NV>(); }
};
template <class P, bool ROWS>
static constexpr Tiles<P, ROWS> tiles{};

template <class P, bool ROWS>
INLINE void run_tile(int m, int n, int K, const float* a, int64_t a_step, const float* b, int64_t b_step, float* c,
                     int64_t ldc, bool accumulate, Ahead ahead) {
  tiles<P, ROWS>.of[m - 1][(n - 1) / W](K, a, a_step, b, b_step, c, ldc, n, accumulate, ahead);
}
template <class P, bool ROWS>
INLINE void run_tile(int m, int n, int K, const float* a, int64_t a_step, const float* b, int64_t b_step, float* c,
                     int64_t ldc, bool accumulate) {
  run_tile<P, ROWS>(m, n, K, a, a_step, b, b_step, c, ldc, accumulate, {b, 0});
}

// The epilogue of one tile of c at (row, column), which holds the finished products.
template <Epilogue E, bool TANH>
static void finish_as(const Matmul& f, const float* bias, int row, int column, int m, int n) {
  for (int j = 0; j < n; j += W) {
    const int left = n - j;
    const int64_t first = row * f.ldc + column + j;
    const Vec add = bias ? load_first(bias + column + j, left) : Vec{};
    for (int64_t i = 0, at = first; i < m; i++, at += f.ldc) {
      Vec x = load_first(f.c + at, left) + add;
      if constexpr (E == Epilogue::residual) x += load_first(f.residual + at, left);
      if constexpr (E == Epilogue::multiply) x *= load_first(f.slope + at, left);
      if constexpr (E == Epilogue::gelu) {
        Vec slope;
        x = TANH ? gelu_tanh(x, slope) : gelu_exact(x, slope);
        if (f.slope) store_first(f.slope + at, slope, left);
      }
      store_first(f.c + at, x, left);
    }
  }
}

// c = dropout(c + bias)
static void drop_tile(const Matmul& f, int row, int column, int m, int n) {
  alignas(64) float room[NR + 8 * W];
  for (int64_t i = row; i < row + m; i++) {
    const float* mask = dropout_mask(room, f.dropout, (uint64_t)i * (uint64_t)f.N + (uint64_t)column, n);
    float* c = f.c + i * f.ldc + column;
    for (int j = 0; j < n; j += W) {
      Vec x = load_first(c + j, n - j);
      if (f.bias) x += load_first(f.bias + column + j, n - j);
      store_first(c + j, x * load(mask + j), n - j);
    }
  }
}

// What the epilogue reads and writes beside c comes in while the tile is computed.
INLINE void prefetch_finish(const Matmul& f, int row, int column, int m) {
  const float* beside = f.epilogue == Epilogue::residual ? f.residual : f.slope;
  if (f.epilogue == Epilogue::none || !beside) return;
  for (int64_t i = 0, at = row * f.ldc + column; i < m; i++, at += f.ldc)
    for (int v = 0; v < NV; v++) __builtin_prefetch(beside + at + v * W, 1);
}

static void finish_tile(const Matmul& f, int row, int column, int m, int n) {
  if (f.dropout.on) drop_tile(f, row, column, m, n);
  const float* bias = f.dropout.on ? nullptr : f.bias;
  switch (f.epilogue) {
    case Epilogue::none: return finish_as<Epilogue::none, false>(f, bias, row, column, m, n);
    case Epilogue::residual: return finish_as<Epilogue::residual, false>(f, bias, row, column, m, n);
    case Epilogue::multiply: return finish_as<Epilogue::multiply, false>(f, bias, row, column, m, n);
    case Epilogue::gelu:
      if (f.gelu_tanh) finish_as<Epilogue::gelu, true>(f, bias, row, column, m, n);
      else finish_as<Epilogue::gelu, false>(f, bias, row, column, m, n);
  }
}

// What tile `i` of `tiles` brings of the panel of b at (k0, column): of rows, which lie far apart, the first tiles bring a
// line of each (of each of a unit's); of columns every tile brings a stretch of some.
template <class P>
INLINE Ahead source_of_b(const Matmul& f, int k0, int column, int K, int i, int tiles) {
  constexpr int line = 64 / sizeof(float), lines = (NR + line - 2) / line + 1;  // rows begin anywhere in a line
  if (!f.b_transposed) {
    const float* row = f.b + (k0 + i / lines % P::depth) * f.ldb + column;
    return {row + min(i % lines * line, NR - 1), P::depth * f.ldb};
  }
  const int64_t stretch = (NR + tiles - 1) / tiles * f.ldb;
  return {f.b + min(column + i * NR / tiles, f.N - 1) * f.ldb + k0, stretch / units<P>(K)};
}

template <class P>
static void matmul_as(const Matmul& f, int row0, int row1, int column0, int column1, float* scratch) {
  float* const pack_a = scratch;
  float* const pack_b = scratch + (int64_t)M_BLOCK * K_BLOCK;
  const bool finish = f.bias || f.epilogue != Epilogue::none;
  // Blocks of equal size, as few as fit. That of k must not depend on the task: it decides the order of additions.
  const int k_blocks = (f.K + K_BLOCK * P::depth - 1) / (K_BLOCK * P::depth);
  const int k_block = round_up((f.K + k_blocks - 1) / k_blocks, W * P::depth);
  const int m_blocks = (row1 - row0 + M_BLOCK - 1) / M_BLOCK;
  const int m_block = round_up((row1 - row0 + m_blocks - 1) / m_blocks, MR);

  for (int jc = column0; jc < column1; jc += N_BLOCK) {
    const int nc = min(N_BLOCK, column1 - jc);
    for (int kc = 0; kc < f.K; kc += k_block) {
      const int K = min(k_block, f.K - kc), depth = units<P>(K);
      const bool add = f.accumulate || kc > 0, last = kc + K == f.K;
      for (int ic = row0; ic < row1; ic += m_block) {
        const int mc = min(m_block, row1 - ic);
        for (int i = 0; i < mc; i += MR) {
          float* panel = pack_a + (int64_t)i * depth;
          const int m = min(MR, mc - i);
          if (f.a_transposed) pack_rows<P, MR>(panel, f.a + kc * f.lda + ic + i, f.lda, K, m);
          else pack_columns<P, MR>(panel, f.a + (ic + i) * f.lda + kc, f.lda, K, m);
        }
        for (int j = 0; j < nc; j += NR) {
          const int n = min(NR, nc - j);
          float* panel = pack_b + (m_blocks > 1 ? (int64_t)j * depth : 0);
          if (ic == row0) {  // packed when first needed, kept for the next blocks of rows if there are any
            if (f.b_transposed) pack_columns<P, NR>(panel, f.b + (jc + j) * f.ldb + kc, f.ldb, K, n);
            else pack_rows<P, NR>(panel, f.b + kc * f.ldb + jc + j, f.ldb, K, n);
          }
          const bool packs_next = ic == row0 && j + NR < nc;
          for (int i = 0; i < mc; i += MR) {
            const int m = min(MR, mc - i);
            if (last && finish) prefetch_finish(f, ic + i, jc + j, m);
            const Ahead ahead =
                packs_next ? source_of_b<P>(f, kc, jc + j + NR, K, i / MR, m_block / MR) : Ahead{panel, 0};
            run_tile<P, false>(m, n, depth, pack_a + (int64_t)i * depth, MR, panel, NR,
                               f.c + (ic + i) * f.ldc + jc + j, f.ldc, add, ahead);
            if (last && finish) finish_tile(f, ic + i, jc + j, m, n);
          }
        }
      }
    }
  }
}
