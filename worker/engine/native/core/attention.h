// Causal attention of one head, in blocks of queries: the scores of a block never leave the cache, the half above the
// diagonal is never computed, and the backward pass recomputes them from the log-sum-exp of each row.
// Source: Dao et al. 2022, arXiv:2205.14135. Included by kernels.cpp after matmul.h, whose tiles it uses.

constexpr int Q_BLOCK = 56 / MR * MR;  // queries of a block of the backward pass; the forward pass takes MR
static_assert(Q_BLOCK % Bf16::depth == 0, "blocks begin with a whole unit");

INLINE int64_t panel_floats(int wide, int step, int depth) { return (int64_t)round_up(wide, step) * depth; }

// Floats between the rows of scores of `keys` keys: off the multiples of 4096 bytes.
INLINE int score_row(int keys) { return round_up(keys, NR) + 16; }

// Hands out 64-byte aligned stretches of the scratch memory. `take` rounds up and leaves slack for whole vectors.
struct Scratch {
  float* base;  // null: only count
  int64_t used = 0;
  float* take(int64_t floats) {
    float* p = base ? base + used : nullptr;
    used += (floats + 15 + 2 * NR) / 16 * 16;
    return p;
  }
};

struct AttentionScratch {
  float *k_across, *v_across, *k_rows, *q_rows, *dout_rows, *q_block, *dout_block;
  float *scores, *dscores, *dscores_down;
  float *mask, *delta;

  size_t floats;

  AttentionScratch(float* base, int keys, int head_size) {
    Scratch s{base};
    k_across = s.take(panel_floats(keys, NR, head_size));
    v_across = s.take(panel_floats(keys, NR, head_size));
    k_rows = s.take(panel_floats(head_size, NR, keys));
    q_rows = s.take(panel_floats(head_size, NR, keys));
    dout_rows = s.take(panel_floats(head_size, NR, keys));
    q_block = s.take(panel_floats(Q_BLOCK, MR, head_size));
    dout_block = s.take(panel_floats(Q_BLOCK, MR, head_size));
    scores = s.take((int64_t)Q_BLOCK * score_row(keys));
    dscores = s.take((int64_t)Q_BLOCK * score_row(keys));
    dscores_down = s.take((int64_t)Q_BLOCK * score_row(keys));
    mask = s.take(score_row(keys) + 8 * W);
    delta = s.take(keys);
    floats = (size_t)s.used;
  }
};

static size_t attention_scratch(int keys, int head_size) {
  return AttentionScratch(nullptr, keys, head_size).floats;
}

// Panels of NR columns of x (rows, wide): panel p holds columns p NR ...
template <class P>
static void pack_all_rows(float* panels, const float* x, int64_t ld, int rows, int wide) {
  for (int j = 0; j < wide; j += NR, panels += (int64_t)NR * units<P>(rows))
    pack_rows<P, NR>(panels, x + j, ld, rows, min(NR, wide - j));
}
// Panels of PW rows of x (rows, depth), transposed.
template <class P, int PW>
static void pack_all_columns(float* panels, const float* x, int64_t ld, int rows, int depth) {
  for (int i = 0; i < rows; i += PW, panels += (int64_t)PW * units<P>(depth))
    pack_columns<P, PW>(panels, x + i * ld, ld, depth, min(PW, rows - i));
}

// out (m, keys rounded up to NR) = rows of one MR-wide panel times all panels of b that reach below `keys`.
template <class P>
static void score_rows(float* out, int64_t ld, const float* a, const float* b, int m, int keys, int depth) {
  for (int j = 0; j < keys; j += NR, b += (int64_t)NR * depth)
    run_tile<P, false>(m, NR, depth, a, MR, b, NR, out + j, ld, false);
}

// out (m, head_size) = weights (m, keys), rows of units, times the rows packed in `panels` (all_keys of them).
template <class P>
static void weighted_rows(float* out, int64_t ld_out, const float* weights, int64_t ld, const float* panels, int m,
                          int keys, int all_keys, int head_size) {
  constexpr int step = min(MR, 8);  // the addresses of more rows do not fit the registers
  for (int d = 0; d < head_size; d += NR, panels += (int64_t)NR * units<P>(all_keys))
    for (int i = 0; i < m; i += step)
      run_tile<P, true>(min(step, m - i), min(NR, head_size - d), units<P>(keys), weights + i * ld, ld, panels, NR,
                        out + i * ld_out + d, ld_out, false);
}

// A row of n floats becomes units of neighbouring elements, in place.
template <class P>
INLINE void row_to_units(float* row, int n) {
  if constexpr (P::exact) return;
  for (int i = 0; i < n; i += W * P::depth) store(row + i / P::depth, P::along(row + i, n - i));
}

// out (units of m, n) = rows (m, n) with neighbouring rows joined to units; out may be rows.
template <class P>
static void rows_to_units(float* out, const float* rows, int64_t ld, int m, int n) {
  for (int i = 0; i < m; i += P::depth)
    for (int j = 0; j < n; j += W)
      store(out + i / P::depth * ld + j, P::across(rows + i * ld + j, ld, i + 1 < m, n - j));
}

template <class P>
static void attention_forward_as(const Attention& f, float* base) {
  const int keys = f.past + f.queries, hs = f.head_size;
  const AttentionScratch s(base, keys, hs);
  const int64_t ld = score_row(keys);
  pack_all_columns<P, NR>(s.k_across, f.k, f.ld_kv, keys, hs);
  pack_all_rows<P>(s.k_rows, f.v, f.ld_kv, keys, hs);
  for (int i0 = 0; i0 < f.queries; i0 += MR) {
    const int m = min(MR, f.queries - i0), reach = f.past + i0 + m;  // keys that the block's last query sees
    pack_columns<P, MR>(s.q_block, f.q + i0 * f.ld_q, f.ld_q, hs, m);
    score_rows<P>(s.scores, ld, s.q_block, s.k_across, m, reach, units<P>(hs));
    float scale_out[MR];
    for (int i = 0; i < m; i++) {
      float* row = s.scores + i * ld;
      const int seen = f.past + i0 + i + 1;
      const int whole = seen / W * W;
      // Lanes beyond `seen` hold scores of later keys, or of none: they become the row's first score, then 0.
      const Ints lane = lanes();
      Vec top = splat(row[0]);
      for (int j = 0; j < whole; j += W) top = maximum(top, load(row + j));
      if (whole < seen) top = maximum(top, select(lane < seen - whole, load(row + whole), splat(row[0])));
      const float highest = largest(top);
      Vec total = {};
      for (int j = 0; j < whole; j += W) {
        const Vec e = exponential((load(row + j) - highest) * f.scale);
        total += e;
        store(row + j, e);
      }
      for (int j = whole; j < round_up(reach, W); j += W) {
        const Vec e = exponential((load(row + j) - highest) * f.scale);
        const Vec kept = select(lane < seen - j, e, Vec{});
        total += kept;
        store(row + j, kept);
      }
      const float z = sum(total);
      f.log_sum[i0 + i] = highest * f.scale + log_float(z);
      scale_out[i] = 1.0f / z;
      if (f.dropout.on) {
        const float* mask = dropout_mask(s.mask, f.dropout, f.dropout_first + (i0 + i) * f.dropout_row, seen);
        for (int j = 0; j < seen; j += W) store(row + j, load(row + j) * load(mask + j));
      }
      row_to_units<P>(row, reach);
    }
    weighted_rows<P>(f.out + i0 * f.ld_out, f.ld_out, s.scores, ld, s.k_rows, m, reach, keys, hs);
    for (int i = 0; i < m; i++) {
      float* out = f.out + (i0 + i) * f.ld_out;
      for (int d = 0; d < hs; d += W) store_first(out + d, load_first(out + d, hs - d) * scale_out[i], hs - d);
    }
  }
}

template <class P>
static void attention_backward_as(const Attention& f, float* base) {
  const int T = f.queries, hs = f.head_size;  // no past in training
  const AttentionScratch s(base, T, hs);
  const int64_t ld = score_row(T);
  pack_all_columns<P, NR>(s.k_across, f.k, f.ld_kv, T, hs);
  pack_all_columns<P, NR>(s.v_across, f.v, f.ld_kv, T, hs);
  pack_all_rows<P>(s.k_rows, f.k, f.ld_kv, T, hs);
  pack_all_rows<P>(s.q_rows, f.q, f.ld_q, T, hs);
  pack_all_rows<P>(s.dout_rows, f.dout, f.ld_out, T, hs);
  for (int i = 0; i < T; i++) {
    Vec dot = {};
    for (int d = 0; d < hs; d += W)
      dot = fma(load_first(f.out + i * f.ld_out + d, hs - d), load_first(f.dout + i * f.ld_out + d, hs - d), dot);
    s.delta[i] = sum(dot);
  }
  for (int i0 = 0; i0 < T; i0 += Q_BLOCK) {
    const int m = min(Q_BLOCK, T - i0), reach = i0 + m;
    pack_all_columns<P, MR>(s.q_block, f.q + i0 * f.ld_q, f.ld_q, m, hs);
    pack_all_columns<P, MR>(s.dout_block, f.dout + i0 * f.ld_out, f.ld_out, m, hs);
    for (int i = 0; i < m; i += MR) {
      const int rows = min(MR, m - i);
      const int keys = i0 + i + rows, depth = units<P>(hs);
      score_rows<P>(s.scores + i * ld, ld, s.q_block + i * depth, s.k_across, rows, keys, depth);
      score_rows<P>(s.dscores + i * ld, ld, s.dout_block + i * depth, s.v_across, rows, keys, depth);
    }
    // scores become the probabilities times their dropout, dscores the gradient at the scores; 0 above the diagonal.
    for (int i = 0; i < m; i++) {
      float *p_row = s.scores + i * ld, *d_row = s.dscores + i * ld;
      const int seen = i0 + i + 1;
      const float log_sum = f.log_sum[i0 + i], delta = s.delta[i0 + i];
      const float* mask = nullptr;
      if (f.dropout.on)
        mask = dropout_mask(s.mask, f.dropout, f.dropout_first + (i0 + i) * f.dropout_row, seen);
      for (int j = 0; j < seen; j += W) {
        const Ints inside = lanes() < seen - j;
        const Vec p = select(inside, exponential(fma(load(p_row + j), splat(f.scale), splat(-log_sum))), Vec{});
        Vec dp = load(d_row + j), kept = p;
        if (mask) {
          const Vec factor = load(mask + j);
          dp *= factor;
          kept *= factor;
        }
        store(p_row + j, select(inside, kept, Vec{}));
        store(d_row + j, select(inside, p * (dp - delta) * f.scale, Vec{}));
      }
      for (int j = round_up(seen, W); j < round_up(reach, W); j += W) {
        store(p_row + j, Vec{});
        store(d_row + j, Vec{});
      }
    }
    const float* dscores_down = s.dscores;
    if constexpr (!P::exact) {
      rows_to_units<P>(s.scores, s.scores, ld, m, reach);
      rows_to_units<P>(s.dscores_down, s.dscores, ld, m, reach);
      dscores_down = s.dscores_down;
    }
    for (int d = 0; d < hs; d += NR) {
      const int n = min(NR, hs - d);
      const float *q = s.q_rows + (int64_t)d * units<P>(T), *dout = s.dout_rows + (int64_t)d * units<P>(T);
      for (int j = 0; j < reach; j += MR) {
        // Queries before key j do not see it: skipped in whole units, what is left of them is 0.
        const int rows = min(MR, reach - j), skip = max(0, j - i0) / P::depth, count = units<P>(m) - skip;
        const int64_t first = i0 / P::depth + skip;
        const bool add = j < i0;  // a block before this one has been here
        run_tile<P, false>(rows, n, count, s.scores + skip * ld + j, ld, dout + first * NR, NR,
                           f.dv + j * f.ld_dqkv + d, f.ld_dqkv, add);
        run_tile<P, false>(rows, n, count, dscores_down + skip * ld + j, ld, q + first * NR, NR,
                           f.dk + j * f.ld_dqkv + d, f.ld_dqkv, add);
      }
    }
    for (int i = 0; i < m; i++) row_to_units<P>(s.dscores + i * ld, reach);
    for (int i = 0; i < m; i += MR) {
      const int rows = min(MR, m - i);
      weighted_rows<P>(f.dq + (i0 + i) * f.ld_dqkv, f.ld_dqkv, s.dscores + i * ld, ld, s.k_rows, rows, i0 + i + rows, T,
                       hs);
    }
  }
}

static void attention_forward(const Attention& f, float* scratch) {
  if (f.bf16) attention_forward_as<Bf16>(f, scratch);
  else attention_forward_as<Float32>(f, scratch);
}

static void attention_backward(const Attention& f, float* scratch) {
  if (f.bf16) attention_backward_as<Bf16>(f, scratch);
  else attention_backward_as<Float32>(f, scratch);
}

// One query over the cached keys: a dot product a key, then the values weighted, all at the speed of memory.
static void attention_step(const Attention& f, float* scores) {
  const int keys = f.past + 1, hs = f.head_size;
  float highest = 0;
  for (int j = 0; j < keys; j++) {
    const float* k = f.k + j * f.ld_kv;
    Vec dot = {};
    for (int d = 0; d < hs; d += W) dot = fma(load_first(f.q + d, hs - d), load_first(k + d, hs - d), dot);
    scores[j] = sum(dot) * f.scale;
    if (j == 0 || scores[j] > highest) highest = scores[j];
  }
  Vec total = {};
  for (int j = 0; j < keys; j += W) {
    const Vec e = select(lanes() < keys - j, exponential(load_first(scores + j, keys - j) - highest), Vec{});
    total += e;
    store_first(scores + j, e, keys - j);
  }
  const float factor = 1.0f / sum(total);
  for (int d = 0; d < hs; d += 4 * W) {
    Vec out[4] = {};
    for (int j = 0; j < keys; j++) {
      const Vec weight = splat(scores[j]);
      const float* v = f.v + j * f.ld_kv + d;
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) out[i] = fma(weight, load_first(v + i * W, hs - d - i * W), out[i]);
    }
    for (int i = 0; i < 4; i++) store_first(f.out + d + i * W, out[i] * factor, hs - d - i * W);
  }
}
