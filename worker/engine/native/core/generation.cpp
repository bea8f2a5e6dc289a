// Generation: sequences that grow token by token, with the keys and values of every block cached. Many new tokens go
// through the packed matrix products in stretches; a few stream the weights once, at the speed of memory.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "model.h"

using namespace weft;

namespace {

constexpr int stretch = 256;   // most new tokens computed together
constexpr int few_tokens = 8;  // up to here weights are streamed, not packed

// Neighbouring new tokens of one row.
struct Segment {
  int row, first, count;  // tokens [first, first + count) of the stretch
  bool last;              // no more of this row follow: logits are due
};

struct GenerationBuffers {
  Activations a;
  float *embedded, *ends, *normed_ends, *end_mean, *end_rstd;  // ends: what enters the head, one row a sequence
  float* end_logits;                                           // (rows, V) of the sequences just fed
  float* logits;                                               // (rows, V), by slot
  uint32_t* pairs;                                             // inputs of gemv as bf16
  std::vector<float*> caches;                                  // by block: (slots, T, 2 C), keys then values
  std::vector<uint32_t*> packed;  // bf16: of each block qkv, projection, expand, contract; then the head
  int64_t floats;
};

int64_t pairs_of(int64_t n) { return (n + 1) / 2; }

GenerationBuffers lay_out(const weft_config& c, int rows, float* base) {
  GenerationBuffers b{};
  Arena arena(base);
  const int64_t V = c.vocab_size, C = c.n_embd, N = std::max(rows, stretch);
  b.logits = arena.take(rows * V);
  b.end_logits = arena.take(rows * V);
  if (c.architecture != WEFT_TABLE) {
    for (float** p : {&b.a.normed1, &b.a.normed2, &b.a.attended, &b.a.middle, &b.a.last, &b.embedded})
      *p = arena.take(N * C);
    for (float** p : {&b.a.mean1, &b.a.rstd1, &b.a.mean2, &b.a.rstd2}) *p = arena.take(N);
    b.a.qkv = arena.take(3 * N * C);
    b.a.hidden = arena.take(4 * N * C);
    b.a.log_sum = arena.take(N * c.n_head);
    for (float** p : {&b.ends, &b.normed_ends}) *p = arena.take(rows * C);
    for (float** p : {&b.end_mean, &b.end_rstd}) *p = arena.take(rows);
    auto take_pairs = [&](int64_t n) { return reinterpret_cast<uint32_t*>(arena.take(n)); };
    b.pairs = take_pairs(few_tokens * 2 * C);
    for (int l = 0; l < c.n_layer; l++) b.caches.push_back(arena.take(rows * c.block_size * 2 * C));
    if (c.precision == WEFT_BF16) {
      for (int l = 0; l < c.n_layer; l++)
        for (const int64_t pairs : {pairs_of(C) * 3 * C, pairs_of(C) * C, pairs_of(C) * 4 * C, 2 * C * C})
          b.packed.push_back(take_pairs(pairs));
      b.packed.push_back(take_pairs(V * pairs_of(C)));
    }
  }
  b.floats = arena.used();
  return b;
}

}  // namespace

struct weft_generation {
  weft_generation(weft_model& model, const float* weights, int rows);

  void feed(const int32_t* tokens, const int32_t* counts, float* logits);
  void reorder(const int32_t* from);
  void clear(int row);

  std::string error;

 private:
  void pack_weights();
  void run(const int32_t* tokens, const std::vector<Segment>& segments, int count);
  void attend(int block, const std::vector<Segment>& segments);
  void stream(float* y, const float* x, int n, const uint32_t* packed, const float* weight, const float* bias,
              int inputs, int outputs, const Matmul& finish);
  void head(float* logits, const float* hidden, int n);
  const uint32_t* packed_of(ParameterAt weight) const;
  float* cache(int block, int row) const {
    return buffers.caches[block] + static_cast<int64_t>(slots[row]) * model.config.block_size * 2 * model.config.n_embd;
  }
  float* logits_of(int row) const {
    return buffers.logits + static_cast<int64_t>(slots[row]) * model.config.vocab_size;
  }
  // The model computes with this generation's weights and without dropout.
  void enter() {
    model.weights = weights;
    model.position = nullptr;
  }

  weft_model& model;
  const float* weights;
  const int rows;
  std::vector<int> lengths, slots;  // by row; a slot holds one row's caches and logits
  Memory memory;
  GenerationBuffers buffers;
};

weft_generation::weft_generation(weft_model& model, const float* weights, int rows)
    : model(model), weights(weights), rows(rows), lengths(rows), slots(rows) {
  if (rows < 1) throw std::runtime_error("generation of " + std::to_string(rows) + " rows, expected at least 1");
  memory = allocate(lay_out(model.config, rows, nullptr).floats);
  buffers = lay_out(model.config, rows, memory.get());
  for (int r = 0; r < rows; r++) slots[r] = r;
  memset(buffers.logits, 0, static_cast<size_t>(rows) * model.config.vocab_size * sizeof(float));
  if (!buffers.packed.empty()) pack_weights();
}

void weft_generation::pack_weights() {
  enter();
  const int C = model.config.n_embd;
  auto down = [&](uint32_t* out, ParameterAt at, int inputs, int outputs) {
    const float* w = model.weight(at.weight);
    model.pool->run_ranges(pairs_of(inputs), 1, 4, [&](size_t from, size_t to, int) {
      for (size_t k = from; k < to; k++)
        model.kernels->pack_down(out + k * outputs, w + 2 * k * outputs,
                                 2 * k + 1 < static_cast<size_t>(inputs) ? w + (2 * k + 1) * outputs : nullptr,
                                 outputs);
    });
  };
  for (size_t l = 0; l < model.at.blocks.size(); l++) {
    const BlockParameters& p = model.at.blocks[l];
    uint32_t* const* out = &buffers.packed[4 * l];
    down(out[0], p.qkv, C, 3 * C);
    down(out[1], p.projection, C, C);
    down(out[2], p.expand, C, 4 * C);
    down(out[3], p.contract, 4 * C, C);
  }
  model.pool->run_ranges(model.config.vocab_size, 1, 4, [&](size_t from, size_t to, int) {
    for (size_t v = from; v < to; v++)
      model.kernels->pack_row(buffers.packed.back() + v * pairs_of(C), model.weight(model.at.head) + v * C, C);
  });
}

const uint32_t* weft_generation::packed_of(ParameterAt weight) const {
  if (buffers.packed.empty()) return nullptr;
  for (size_t l = 0; l < model.at.blocks.size(); l++) {
    const BlockParameters& p = model.at.blocks[l];
    const ParameterAt* all[] = {&p.qkv, &p.projection, &p.expand, &p.contract};
    for (int i = 0; i < 4; i++)
      if (all[i]->weight == weight.weight) return buffers.packed[4 * l + i];
  }
  return nullptr;
}

// A linear layer for a few tokens.
void weft_generation::stream(float* y, const float* x, int n, const uint32_t* packed, const float* weight,
                             const float* bias, int inputs, int outputs, const Matmul& finish) {
  const void* in = x;
  if (packed) {
    for (int64_t r = 0; r < n; r++)
      model.kernels->pack_row(buffers.pairs + r * pairs_of(inputs), x + r * inputs, inputs);
    in = buffers.pairs;
  }
  const void* w = packed ? static_cast<const void*>(packed) : weight;
  model.pool->run_ranges(outputs, 64, 1, [&](size_t from, size_t to, int) {
    model.kernels->gemv(y, in, n, w, inputs, outputs, bias, packed != nullptr, static_cast<int>(from),
                        static_cast<int>(to));
    for (int64_t r = 0; r < n; r++) {
      float* out = y + r * outputs + from;
      const int64_t width = static_cast<int64_t>(to - from);
      if (finish.epilogue == Epilogue::gelu)
        model.kernels->gelu(out, static_cast<int>(width), model.config.activation == WEFT_GELU_TANH);
      if (finish.epilogue == Epilogue::residual)
        model.kernels->add(out, out, finish.residual + r * outputs + from, width);
    }
  });
}

// logits (n, V) of n rows of hidden.
void weft_generation::head(float* logits, const float* hidden, int n) {
  const int C = model.config.n_embd, V = model.config.vocab_size;
  if (n > few_tokens) return model.logits_of(logits, hidden, nullptr, 0, n);
  const uint32_t* packed = buffers.packed.empty() ? nullptr : buffers.packed.back();
  const void* in = hidden;
  if (packed) {
    for (int64_t r = 0; r < n; r++) model.kernels->pack_row(buffers.pairs + r * pairs_of(C), hidden + r * C, C);
    in = buffers.pairs;
  }
  const void* w = packed ? static_cast<const void*>(packed) : model.weight(model.at.head);
  model.pool->run_ranges(V, 64, 2, [&](size_t from, size_t to, int) {
    model.kernels->gemv_transposed(logits, in, n, w, C, V, packed != nullptr, static_cast<int>(from),
                                   static_cast<int>(to));
  });
}

// New keys and values into the caches, then each new token over what its row holds.
void weft_generation::attend(int block, const std::vector<Segment>& segments) {
  const int64_t C = model.config.n_embd, H = model.config.n_head, hs = model.head_size();
  const Activations& a = buffers.a;
  for (const Segment& s : segments)
    for (int64_t i = 0; i < s.count; i++)
      memcpy(cache(block, s.row) + (lengths[s.row] + i) * 2 * C, a.qkv + (s.first + i) * 3 * C + C,
             2 * C * sizeof(float));
  model.pool->run(static_cast<int>(segments.size() * H), [&](int task, int slot) {
    const Segment& s = segments[task / H];
    const int64_t h = task % H;
    Attention f{};
    f.queries = s.count;
    f.past = lengths[s.row];
    f.head_size = static_cast<int>(hs);
    f.scale = 1 / std::sqrt(static_cast<float>(hs));
    f.q = a.qkv + s.first * 3 * C + h * hs;
    f.ld_q = 3 * C;
    f.k = cache(block, s.row) + h * hs;
    f.v = f.k + C;
    f.ld_kv = 2 * C;
    f.out = a.attended + s.first * C + h * hs;
    f.ld_out = C;
    f.log_sum = a.log_sum + s.first * H + h * s.count;
    f.bf16 = model.config.precision == WEFT_BF16;
    (s.count == 1 ? model.kernels->attention_step : model.kernels->attention_forward)(f, model.buffers.scratch[slot]);
  });
}

// One stretch: `count` new tokens, cut into segments, through all blocks; the logits of rows that end here.
void weft_generation::run(const int32_t* tokens, const std::vector<Segment>& segments, int count) {
  const int64_t V = model.config.vocab_size, C = model.config.n_embd;
  std::vector<int> ending;
  if (model.config.architecture == WEFT_TABLE) {
    for (const Segment& s : segments)
      if (s.last) memcpy(logits_of(s.row), model.weight(model.at.tokens) + tokens[s.first + s.count - 1] * V, V * 4);
  } else {
    for (const Segment& s : segments)
      for (int64_t i = 0; i < s.count; i++)
        model.kernels->add(buffers.embedded + (s.first + i) * C,
                           model.weight(model.at.tokens) + tokens[s.first + i] * C,
                           model.weight(model.at.positions) + (lengths[s.row] + i) * C, C);
    const Pass pass{count, false,
                    [&](float* out, const float* x, ParameterAt weight, int inputs, int outputs, const Matmul& finish) {
                      if (count > few_tokens) model.linear(out, x, weight, inputs, outputs, count, finish);
                      else
                        stream(out, x, count, packed_of(weight), model.weight(weight.weight), model.weight(weight.bias),
                               inputs, outputs, finish);
                    },
                    [&](int block) { attend(block, segments); }};
    const float* out = model.pre_norm() ? buffers.a.last : buffers.a.normed2;
    for (int l = 0; l < model.config.n_layer; l++)
      model.block_forward(l, l == 0 ? buffers.embedded : out, buffers.a, pass);

    for (const Segment& s : segments) {
      if (!s.last) continue;
      memcpy(buffers.ends + ending.size() * C, out + (s.first + s.count - 1) * C, C * sizeof(float));
      ending.push_back(s.row);
    }
    const int n = static_cast<int>(ending.size());
    if (n > 0) {
      float* hidden = buffers.ends;
      if (model.pre_norm()) {
        model.norm(buffers.normed_ends, buffers.end_mean, buffers.end_rstd, hidden, model.at.final_norm, n);
        hidden = buffers.normed_ends;
      }
      head(buffers.end_logits, hidden, n);
      for (int64_t i = 0; i < n; i++) memcpy(logits_of(ending[i]), buffers.end_logits + i * V, V * sizeof(float));
    }
  }
  for (const Segment& s : segments) lengths[s.row] += s.count;
}

void weft_generation::feed(const int32_t* tokens, const int32_t* counts, float* logits) {
  const int V = model.config.vocab_size, T = model.config.block_size;
  int64_t total = 0;
  for (int r = 0; r < rows; r++) {
    if (counts[r] < 0 || counts[r] > T - lengths[r])
      throw std::runtime_error("row " + std::to_string(r) + " holds " + std::to_string(lengths[r]) +
                               " tokens and gets " + std::to_string(counts[r]) + " more; the block size is " +
                               std::to_string(T));
    total += counts[r];
  }
  for (int64_t i = 0; i < total; i++)
    if (tokens[i] < 0 || tokens[i] >= V)
      throw std::runtime_error("token " + std::to_string(i) + " is " + std::to_string(tokens[i]) +
                               "; the vocabulary has " + std::to_string(V));
  enter();
  const int most = std::max(rows, stretch);
  std::vector<Segment> segments;
  const int32_t* first = tokens;
  int count = 0;
  auto flush = [&] {
    if (count > 0) run(first, segments, count);
    first += count;
    count = 0;
    segments.clear();
  };
  for (int r = 0; r < rows; r++)
    for (int left = counts[r]; left > 0;) {
      const int now = std::min(left, most - count);
      left -= now;
      segments.push_back({r, count, now, left == 0});
      count += now;
      if (count == most) flush();
    }
  flush();
  for (int64_t r = 0; r < rows; r++) memcpy(logits + r * V, logits_of(static_cast<int>(r)), V * sizeof(float));
}

// Rows take over slots; what two rows go on from is copied into a slot that nobody goes on from.
void weft_generation::reorder(const int32_t* from) {
  for (int r = 0; r < rows; r++)
    if (from[r] < 0 || from[r] >= rows)
      throw std::runtime_error("row " + std::to_string(r) + " would go on from row " + std::to_string(from[r]) +
                               " of " + std::to_string(rows));
  const std::vector<int> old_slots = slots, old_lengths = lengths;
  std::vector<char> claimed(rows);
  std::vector<int> copies;
  for (int r = 0; r < rows; r++) {
    const int slot = old_slots[from[r]];
    lengths[r] = old_lengths[from[r]];
    slots[r] = slot;
    if (claimed[slot]) copies.push_back(r);
    claimed[slot] = 1;
  }
  const size_t V = model.config.vocab_size, C = model.config.n_embd;
  int free = 0;
  for (const int r : copies) {
    while (claimed[free]) free++;
    std::vector<const float*> sources;
    for (size_t l = 0; l < buffers.caches.size(); l++) sources.push_back(cache(static_cast<int>(l), r));
    const float* old_logits = logits_of(r);
    slots[r] = free;
    claimed[free] = 1;
    for (size_t l = 0; l < sources.size(); l++)
      memcpy(cache(static_cast<int>(l), r), sources[l], lengths[r] * 2 * C * sizeof(float));
    memcpy(logits_of(r), old_logits, V * sizeof(float));
  }
}

void weft_generation::clear(int row) {
  if (row < 0 || row >= rows)
    throw std::runtime_error("row " + std::to_string(row) + " of " + std::to_string(rows) + " cannot be cleared");
  lengths[row] = 0;
  memset(logits_of(row), 0, static_cast<size_t>(model.config.vocab_size) * sizeof(float));
}

// ---- the public calls ----

int64_t weft_generation_bytes(const weft_model* model, int rows) {
  return lay_out(model->config, rows, nullptr).floats * 4;
}

weft_generation* weft_generation_create(weft_model* model, const float* weights, int rows, char* error,
                                        size_t error_size) {
  try {
    DenormalScope scope(Denormals::flush);
    return new weft_generation(*model, weights, rows);
  } catch (const std::exception& problem) {
    if (error && error_size) snprintf(error, error_size, "%s", problem.what());
    return nullptr;
  }
}

void weft_generation_destroy(weft_generation* generation) { delete generation; }

template <class Body>
static const char* call(weft_generation* generation, Body&& body) {
  try {
    DenormalScope scope(Denormals::flush);
    body();
    return nullptr;
  } catch (const std::exception& problem) {
    generation->error = problem.what();
    return generation->error.c_str();
  }
}

const char* weft_generation_feed(weft_generation* generation, const int32_t* tokens, const int32_t* counts,
                                 float* logits) {
  return call(generation, [&] { generation->feed(tokens, counts, logits); });
}

const char* weft_generation_reorder(weft_generation* generation, const int32_t* from) {
  return call(generation, [&] { generation->reorder(from); });
}

const char* weft_generation_clear(weft_generation* generation, int row) {
  return call(generation, [&] { generation->clear(row); });
}
