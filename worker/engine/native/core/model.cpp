// Building a model: its configuration checked, its parameters placed, its memory planned; and the public calls, which
// check what comes in before any pass begins.
#include "model.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <new>
#include <stdexcept>

namespace weft {

Memory allocate(int64_t floats) {
  return Memory(static_cast<float*>(::operator new(static_cast<size_t>(floats) * 4, std::align_val_t{64})));
}

static void refuse(const std::string& why) { throw std::runtime_error(why); }

static void check(const weft_config& c) {
  auto at_least = [](const char* name, int32_t value, int32_t least) {
    if (value < least)
      refuse(std::string(name) + " is " + std::to_string(value) + ", expected at least " + std::to_string(least));
  };
  if (c.architecture < WEFT_TABLE || c.architecture > WEFT_PRE_NORM) refuse("unknown architecture " + std::to_string(c.architecture));
  at_least("vocab_size", c.vocab_size, 1);
  at_least("block_size", c.block_size, 1);
  at_least("max_rows", c.max_rows, 1);
  at_least("threads", c.threads, 1);
  if (!(c.dropout >= 0 && c.dropout < 1)) refuse("dropout must be at least 0 and below 1");
  if (static_cast<int64_t>(c.max_rows) * c.block_size > 1 << 24)
    refuse("max_rows times block_size is above " + std::to_string(1 << 24));
  if (c.architecture == WEFT_TABLE) return;
  at_least("n_layer", c.n_layer, 1);
  at_least("n_head", c.n_head, 1);
  at_least("n_embd", c.n_embd, 1);
  if (c.n_embd % c.n_head) refuse("n_embd does not divide into n_head heads");
}

// Finds each parameter of the architecture by its key, checking every size.
static Parameters place(const weft_config& c, const weft_parameter* parameters, size_t count) {
  Parameters at;
  std::map<std::string, const weft_parameter*> given;
  for (size_t i = 0; i < count; i++) {
    if (!parameters[i].key || !given.emplace(parameters[i].key, &parameters[i]).second)
      refuse("the layout has parameter " + std::string(parameters[i].key ? parameters[i].key : "?") + " twice");
  }
  auto take = [&](const std::string& key, int64_t size) {
    const auto found = given.find(key);
    if (found == given.end()) refuse("the layout has no parameter " + key);
    const weft_parameter p = *found->second;
    if (p.size != size || p.offset < 0)
      refuse("parameter " + key + " of the layout has " + std::to_string(p.size) + " elements at " +
             std::to_string(p.offset) + ", the model expects " + std::to_string(size));
    given.erase(found);
    at.size = std::max(at.size, p.offset + p.size);
    return p.offset;
  };
  auto pair = [&](const std::string& role, int64_t weight, int64_t bias) {
    ParameterAt p;
    p.weight = take(role + ".weight", weight);
    if (c.bias) p.bias = take(role + ".bias", bias);
    return p;
  };
  const int64_t V = c.vocab_size, T = c.block_size, C = c.n_embd;
  if (c.architecture == WEFT_TABLE) {
    at.tokens = take("table.weight", V * V);
  } else {
    at.tokens = take("tokens.weight", V * C);
    at.positions = take("positions.weight", T * C);
    for (int l = 0; l < c.n_layer; l++) {
      const std::string block = std::to_string(l) + ".";
      at.blocks.push_back({pair(block + "norm1", C, C), pair(block + "qkv", C * 3 * C, 3 * C),
                           pair(block + "projection", C * C, C), pair(block + "norm2", C, C),
                           pair(block + "expand", C * 4 * C, 4 * C), pair(block + "contract", 4 * C * C, C)});
    }
    if (c.architecture == WEFT_PRE_NORM) at.final_norm = pair("finalNorm", C, C);
    at.head = c.tied_head ? at.tokens : take("head.weight", V * C);
  }
  if (!given.empty()) refuse("the layout has a parameter " + given.begin()->first + ", the model has no use for it");
  return at;
}

static const Kernels& kernels_for(const weft_config& c) {
  return kernels_of(isa_choose(c.isa, c.precision == WEFT_BF16));
}

static int head_rows_of(const weft_config& c) {
  // Logits in stretches of at most 64 MB, but at least 256 rows: the head's weights are read once for each.
  const int64_t N = static_cast<int64_t>(c.max_rows) * c.block_size;
  return static_cast<int>(std::min(N, std::max<int64_t>(256, (1 << 24) / c.vocab_size / 16 * 16)));
}

Buffers lay_out(const weft_config& c, const Kernels& kernels, int head_rows, float* base) {
  Buffers b{};
  Arena arena(base);
  const int64_t N = static_cast<int64_t>(c.max_rows) * c.block_size, C = c.n_embd;
  const bool gpt = c.architecture != WEFT_TABLE;
  if (gpt) {
    b.embedded = arena.take(N * C);
    const int kept = c.checkpoint_activations ? 1 : c.n_layer;
    for (int l = 0; l < c.n_layer; l++) {
      Activations a{};
      if (l < kept) {
        for (float** p : {&a.normed1, &a.normed2, &a.attended, &a.middle, &a.last}) *p = arena.take(N * C);
        for (float** p : {&a.mean1, &a.rstd1, &a.mean2, &a.rstd2}) *p = arena.take(N);
        a.qkv = arena.take(3 * N * C);
        a.log_sum = arena.take(N * c.n_head);
        a.hidden = arena.take(4 * N * C);
        a.slope = arena.take(4 * N * C);
      } else {
        a = b.blocks[0];
        (c.architecture == WEFT_PRE_NORM ? a.last : a.normed2) = arena.take(N * C);
      }
      b.blocks.push_back(a);
    }
    b.final_normed = arena.take(N * C);
    b.final_mean = arena.take(N);
    b.final_rstd = arena.take(N);
    b.dstream = arena.take(N * C);
    b.dbranch = arena.take(N * C);
    b.dmasked = arena.take(c.dropout > 0 ? N * C : 0);
    b.dhidden = arena.take(4 * N * C);
    b.dqkv = arena.take(3 * N * C);
    b.norm_parts = arena.take((N + norm_chunk - 1) / norm_chunk * 2 * C);
    const size_t scratch =
        std::max(kernels.matmul_scratch(), kernels.attention_scratch(c.block_size, c.n_embd / c.n_head));
    for (int slot = 0; slot < c.threads; slot++) b.scratch.push_back(arena.take(static_cast<int64_t>(scratch)));
  }
  b.logits = arena.take(static_cast<int64_t>(head_rows) * c.vocab_size);
  b.losses = arena.take(N);
  b.floats = arena.used();
  return b;
}

}  // namespace weft

using namespace weft;

weft_model::weft_model(const weft_config& given, const weft_parameter* parameters, size_t count) : config(given) {
  check(config);
  kernels = &kernels_for(config);
  config.isa = nullptr;  // the caller's string is not kept
  at = place(config, parameters, count);
  memory = allocate(lay_out(config, *kernels, head_rows(), nullptr).floats);
  buffers = lay_out(config, *kernels, head_rows(), memory.get());
  pool = std::make_unique<Pool>(config.threads, Denormals::flush);
  vectors = std::make_unique<VectorOps>(*pool, isa_choose(given.isa, config.precision == WEFT_BF16));
  arithmetic = std::string(kernels->name) + (config.precision == WEFT_BF16 ? " bf16" : " float32");
}

int weft_model::head_rows() const { return head_rows_of(config); }

Dropout weft_model::dropout(int site) const {
  Dropout d;
  if (!position || config.dropout == 0) return d;
  d.on = true;
  d.key0 = position->key0, d.key1 = position->key1, d.step = position->step, d.shard = position->shard;
  d.site = static_cast<uint32_t>(site);
  d.threshold = static_cast<uint32_t>(std::floor(config.dropout * 4294967296.0));
  d.scale = static_cast<float>(1 / (1 - config.dropout));
  return d;
}

// The larger of rows and columns is cut, into a multiple of the thread count where the pieces stay worth a task.
void weft_model::product(const Matmul& m) {
  const bool by_rows = m.M >= m.N;
  const int extent = by_rows ? m.M : m.N, step = by_rows ? kernels->tile_rows : kernels->tile_columns;
  const int units = (extent + step - 1) / step, threads = pool->threads();
  const int pieces = threads == 1 ? 1
                                  : std::min(units, threads * std::max({1, std::min(2, extent / (256 * threads)),
                                                                        extent / (4096 * threads)}));
  pool->run(pieces, [&](int i, int slot) {
    const int from = static_cast<int>(static_cast<int64_t>(units) * i / pieces) * step;
    const int to = std::min(extent, static_cast<int>(static_cast<int64_t>(units) * (i + 1) / pieces) * step);
    float* scratch = buffers.scratch[slot];
    if (by_rows) kernels->matmul(m, from, to, 0, m.N, scratch);
    else kernels->matmul(m, 0, m.M, from, to, scratch);
  });
}

void weft_model::add_dropout(float* out, const float* in, int64_t n, const Dropout& d) {
  pool->run_ranges(static_cast<size_t>(n), 1024, 4,
                   [&](size_t from, size_t to, int) { kernels->dropout(out, in, d, from, to); });
}

// ---- the public calls ----

static void tell(char* error, size_t size, const char* what) {
  if (error && size) snprintf(error, size, "%s", what);
}

// Checks shapes and ids, then runs the body with the call's inputs in place.
template <class Body>
static const char* call(weft_model* model, const float* weights, const int32_t* tokens, const int32_t* targets,
                        int rows, int time, const weft_position* position, Body&& body) {
  try {
    const weft_config& c = model->config;
    if (rows < 1 || rows > c.max_rows)
      refuse("a call of " + std::to_string(rows) + " rows; this model planned 1 to " + std::to_string(c.max_rows));
    if (time < 1 || time > c.block_size)
      refuse("rows of " + std::to_string(time) + " tokens; the model's block size is " + std::to_string(c.block_size));
    for (const int32_t* ids : {tokens, targets})
      for (int64_t i = 0; ids && i < static_cast<int64_t>(rows) * time; i++)
        if (ids[i] < 0 || ids[i] >= c.vocab_size)
          refuse(std::string(ids == tokens ? "token " : "target ") + std::to_string(i) + " is " +
                 std::to_string(ids[i]) + "; the vocabulary has " + std::to_string(c.vocab_size));
    model->weights = weights;
    model->rows = rows;
    model->time = time;
    model->position = position;
    DenormalScope scope(Denormals::flush);
    body();
    return nullptr;
  } catch (const std::exception& error) {
    model->error = error.what();
    return model->error.c_str();
  }
}

int64_t weft_planned_bytes(const weft_config* config) {
  try {
    check(*config);
    return lay_out(*config, kernels_for(*config), head_rows_of(*config), nullptr).floats * 4;
  } catch (const std::exception&) {
    return -1;
  }
}

weft_model* weft_model_create(const weft_config* config, const weft_parameter* parameters, size_t count, char* error,
                              size_t error_size) {
  try {
    return new weft_model(*config, parameters, count);
  } catch (const std::bad_alloc&) {
    const int64_t bytes = weft_planned_bytes(config);
    tell(error, error_size, ("no memory for the " + std::to_string(bytes) + " bytes this model plans").c_str());
  } catch (const std::exception& problem) {
    tell(error, error_size, problem.what());
  }
  return nullptr;
}

void weft_model_destroy(weft_model* model) { delete model; }

const char* weft_arithmetic(const weft_model* model) { return model->arithmetic.c_str(); }

const char* weft_gradient(weft_model* model, const float* weights, const int32_t* tokens, const int32_t* targets,
                          int rows, int time, const weft_position* at, float* gradient, double* loss) {
  return call(model, weights, tokens, targets, rows, time, at,
              [&] { *loss = model->gradient(tokens, targets, gradient); });
}

const char* weft_losses(weft_model* model, const float* weights, const int32_t* tokens, const int32_t* targets,
                        int rows, int time, float* losses) {
  return call(model, weights, tokens, targets, rows, time, nullptr, [&] {
    model->losses(tokens, targets);
    for (int64_t r = 0; r < rows; r++) {
      double sum = 0;
      for (int64_t t = 0; t < time; t++) sum += model->buffers.losses[r * time + t];
      losses[r] = static_cast<float>(sum / time);
    }
  });
}

const char* weft_logits(weft_model* model, const float* weights, const int32_t* tokens, int rows, int time,
                        float* logits) {
  return call(model, weights, tokens, nullptr, rows, time, nullptr, [&] {
    const float* hidden = model->forward(tokens, false);
    model->logits_of(logits, hidden, tokens, 0, rows * time);
  });
}

const char* weft_hidden(weft_model* model, const float* weights, const int32_t* tokens, int rows, int time,
                        float* hidden) {
  return call(model, weights, tokens, nullptr, rows, time, nullptr, [&] {
    if (model->config.architecture == WEFT_TABLE) refuse("a table has no hidden state");
    const float* from = model->forward(tokens, false);
    memcpy(hidden, from, static_cast<size_t>(rows) * time * model->config.n_embd * sizeof(float));
  });
}

const char* weft_adamw_update(weft_model* model, float* weights, float* m, float* v, const float* sum,
                              const weft_stretch* stretches, size_t count, const weft_adamw* update, double* norm) {
  std::vector<Stretch> parts;
  for (size_t i = 0; i < count; i++) {
    const weft_stretch& s = stretches[i];
    if (s.offset < 0 || s.size < 0 || s.size > model->at.size || s.offset > model->at.size - s.size)
      return "a stretch of AdamW lies outside the weights";
    parts.push_back({s.offset, s.size, s.decay != 0});
  }
  AdamW adamw{{}, {}, update->clip, update->units};
  std::copy_n(update->decayed, 9, adamw.decayed);
  std::copy_n(update->plain, 9, adamw.plain);
  *norm = model->vectors->adamw_update(weights, m, v, sum, static_cast<size_t>(model->at.size), parts.data(), count,
                                       adamw);
  return nullptr;
}
