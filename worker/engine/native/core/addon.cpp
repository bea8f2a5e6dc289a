// The Node-API edge, and all of it: every argument's type and length is checked here before memory is touched, every
// failure becomes a JavaScript error, and whatever takes longer than a stream over memory runs off the event loop.
// No globals: any number of engines, in any number of worker_threads.
#include <cstring>
#include <functional>
#include <optional>
#include <vector>

#include "crc32.h"
#include "isa.h"
#include "napi.h"
#include "shared_memory.h"
#include "vector.h"
#include "weft.h"

namespace {

using std::string;
using namespace weft;

// ---- Vectors(threads, isa): shared/arithmetic/vector.ts, on the calling thread and its pool ----

struct Vectors {
  static constexpr const char* name = "Vectors";
  static constexpr napi_type_tag tag = {0x6b1f3a0d92e44c57, 0x9d0c5be27f1a8836};
  Vectors(int threads, Isa isa) : pool(threads, Denormals::keep), ops(pool, isa) {}
  Pool pool;
  VectorOps ops;
};

napi_value vectors_new(Call& call) {
  call.require_new(Vectors::name);
  const int threads = call.integer(call.value(0, "threads"), "threads", 1, 1024);
  const Isa isa = isa_choose(call.text(call.value(1, "isa"), "isa").c_str());
  return wrap(call, std::make_unique<Vectors>(threads, isa));
}

napi_value vectors_isa(Call& call) { return text(call.env, isa_name(unwrap<Vectors>(call.env, call.self).ops.isa())); }

napi_value vectors_add(Call& call) {
  const auto left = call.array<float>(0, "left");
  const auto right = call.array<float>(1, "right", left.size);
  unwrap<Vectors>(call.env, call.self).ops.add(left.data, right.data, left.size);
  return nullptr;
}

napi_value vectors_sum_of_squares(Call& call) {
  const auto x = call.array<float>(0, "x");
  return number(call.env, unwrap<Vectors>(call.env, call.self).ops.sum_of_squares(x.data, x.size));
}

napi_value vectors_adamw(Call& call) {
  const auto w = call.array<float>(0, "w");
  const auto g = call.array<float>(1, "g", w.size);
  const auto m = call.array<float>(2, "m", w.size);
  const auto v = call.array<float>(3, "v", w.size);
  const auto scalars = call.array<float>(4, "scalars", 9);
  unwrap<Vectors>(call.env, call.self).ops.adamw(w.data, g.data, m.data, v.data, w.size, scalars.data);
  return nullptr;
}

napi_value vectors_subtract(Call& call) {
  const auto left = call.array<float>(0, "left");
  const auto right = call.array<float>(1, "right", left.size);
  unwrap<Vectors>(call.env, call.self).ops.subtract(left.data, right.data, left.size);
  return nullptr;
}

napi_value vectors_nesterov(Call& call) {
  const auto w = call.array<float>(0, "w");
  const auto g = call.array<float>(1, "g", w.size);
  const auto b = call.array<float>(2, "b", w.size);
  const auto scalars = call.array<float>(3, "scalars", 3);
  unwrap<Vectors>(call.env, call.self).ops.nesterov(w.data, g.data, b.data, w.size, scalars.data);
  return nullptr;
}

napi_value vectors_digest(Call& call) {
  const auto lanes = call.array<uint32_t>(0, "lanes", 16);
  const auto x = call.array<float>(1, "x");
  unwrap<Vectors>(call.env, call.self).ops.digest(lanes.data, reinterpret_cast<const uint32_t*>(x.data), x.size);
  return nullptr;
}

napi_value vectors_to_bf16(Call& call) {
  const auto out = call.array<uint16_t>(0, "out");
  const auto x = call.array<float>(1, "x", out.size);
  unwrap<Vectors>(call.env, call.self).ops.to_bf16(out.data, x.data, x.size);
  return nullptr;
}

napi_value vectors_from_bf16(Call& call) {
  const auto out = call.array<float>(0, "out");
  const auto x = call.array<uint16_t>(1, "x", out.size);
  unwrap<Vectors>(call.env, call.self).ops.from_bf16(out.data, x.data, x.size);
  return nullptr;
}

// Six words: CodecPosition.
CodecPosition codec_position(Call& call, size_t i) {
  const auto words = call.array<uint32_t>(i, "words", 6);
  return {words.data[0], words.data[1], words.data[2], words.data[3], words.data[4], words.data[5]};
}

int codec_bits(Call& call, size_t i) {
  const int bits = call.integer(call.value(i, "bits"), "bits", 4, 8);
  if (bits != 4 && bits != 8) throw BadArgument("bits: expected 4 or 8");
  return bits;
}

// normal(out, deviation, words): words are key0, key1, a, b of the stream.
napi_value vectors_normal(Call& call) {
  const auto out = call.array<float>(0, "out");
  const double deviation = call.number(call.value(1, "deviation"), "deviation");
  const auto words = call.array<uint32_t>(2, "words", 4);
  unwrap<Vectors>(call.env, call.self)
      .ops.normal(out.data, out.size, {words.data[0], words.data[1], words.data[2], words.data[3], deviation});
  return nullptr;
}

napi_value vectors_round_bf16(Call& call) {
  const auto x = call.array<float>(0, "x");
  unwrap<Vectors>(call.env, call.self).ops.round_bf16(x.data, x.size, codec_position(call, 1));
  return nullptr;
}

napi_value vectors_encode_bf16(Call& call) {
  const auto x = call.array<float>(1, "x");
  const auto out = call.array<uint8_t>(0, "out", 2 * x.size);
  unwrap<Vectors>(call.env, call.self).ops.encode_bf16(out.data, x.data, x.size, codec_position(call, 2));
  return nullptr;
}

napi_value vectors_decode_bf16(Call& call) {
  const auto out = call.array<float>(0, "out");
  const auto bytes = call.array<uint8_t>(1, "bytes", 2 * out.size);
  unwrap<Vectors>(call.env, call.self).ops.decode_bf16(out.data, bytes.data, out.size);
  return nullptr;
}

napi_value vectors_round_blocks(Call& call) {
  const auto x = call.array<float>(0, "x");
  unwrap<Vectors>(call.env, call.self).ops.round_blocks(x.data, x.size, codec_bits(call, 1));
  return nullptr;
}

napi_value vectors_encode_blocks(Call& call) {
  const int bits = codec_bits(call, 2);
  const auto x = call.array<float>(1, "x");
  const auto out = call.array<uint8_t>(0, "out", codec_bytes(x.size, bits));
  unwrap<Vectors>(call.env, call.self).ops.encode_blocks(out.data, x.data, x.size, bits);
  return nullptr;
}

napi_value vectors_decode_blocks(Call& call) {
  const int bits = codec_bits(call, 2);
  const auto out = call.array<float>(0, "out");
  const auto bytes = call.array<uint8_t>(1, "bytes", codec_bytes(out.size, bits));
  unwrap<Vectors>(call.env, call.self).ops.decode_blocks(out.data, bytes.data, out.size, bits);
  return nullptr;
}

// instructionSets(): the names of those that run here, best first.
napi_value instruction_sets(Call& call) {
  napi_value out;
  check(napi_create_array(call.env, &out), "making an array");
  uint32_t count = 0;
  for (Isa isa : every_isa)
    if (isa_runs_here(isa))
      check(napi_set_element(call.env, out, count++, text(call.env, isa_name(isa))), "filling an array");
  return out;
}

// chooseIsa(asked): the set's name, or an error that lists those that run here.
napi_value choose_isa(Call& call) { return text(call.env, isa_name(isa_choose(call.text(call.value(0, "isa"), "isa").c_str()))); }

// crc32(bytes): only exported where it runs.
napi_value crc32_of(Call& call) {
  const auto bytes = call.array<uint8_t>(0, "bytes");
  return number(call.env, crc32(bytes.data, bytes.size));
}

// A Uint8Array over shared memory, which is unmapped once nobody uses the array.
napi_value shared_bytes(napi_env env, void* data, size_t bytes) {
  const auto unmap = [](napi_env, void* data, void* size) {
    shared_memory_unmap(data, reinterpret_cast<size_t>(size));
  };
  napi_value buffer, array;
  if (napi_create_external_arraybuffer(env, data, bytes, unmap, reinterpret_cast<void*>(bytes), &buffer) != napi_ok) {
    shared_memory_unmap(data, bytes);
    throw std::runtime_error("shared memory: this Node.js takes no memory of others");
  }
  check(napi_create_typedarray(env, napi_uint8_array, bytes, buffer, 0, &array), "making an array");
  return array;
}

size_t size_of(Call& call, size_t i) {
  const double bytes = call.number(call.value(i, "bytes"), "bytes");
  if (!(bytes == std::floor(bytes) && bytes >= 1 && bytes <= 9007199254740991.0))
    throw BadArgument("bytes: expected a positive integer");
  return static_cast<size_t>(bytes);
}

// createShared(bytes) -> file descriptor
napi_value create_shared(Call& call) { return number(call.env, shared_memory_create(size_of(call, 0))); }

// openShared(path, bytes, writable) -> Uint8Array
napi_value open_shared(Call& call) {
  const string path = call.text(call.value(0, "path"), "path");
  const size_t bytes = size_of(call, 1);
  const bool writable = call.boolean(call.value(2, "writable"), "writable");
  return shared_bytes(call.env, shared_memory_open(path, bytes, writable), bytes);
}

// ---- Model(config, parameters): weft.h, off the event loop ----

// A core and the weights it was lent. It lives as long as anything that uses it: a Model, its Generations, a call under
// way.
struct Core {
  weft_config config{};
  weft_model* model = nullptr;
  size_t size = 0;  // P
  std::optional<Kept> weights;
  int version = 0;    // counts setWeights: a generation is valid for one version
  bool busy = false;  // calls on one model must not overlap
  ~Core() { weft_model_destroy(model); }
};

struct Model {
  static constexpr const char* name = "Model";
  static constexpr napi_type_tag tag = {0x27d1b6f0c3a94e15, 0x8b6e4f7a510d92c3};
  std::shared_ptr<Core> core;
};

Core& ready(const std::shared_ptr<Core>& core) {
  if (!core) throw std::runtime_error("native: the engine was disposed");
  if (core->busy) throw std::runtime_error("native: calls on one engine must not overlap; await the one before");
  return *core;
}

// Where the weights stand now; their owner may have transferred the array since.
const float* weights_of(const Core& core, const Call& call) {
  if (!core.weights) throw std::runtime_error("setWeights has not been called");
  return call.array_of<float>(core.weights->value(), "weights", core.size).data;
}

// One call under way: `compute` runs on a thread of libuv's and returns null or what went wrong, the promise settles on
// the event loop. `arrays` stay referenced until then; they must not be transferred to another thread meanwhile.
class Job {
 public:
  static napi_value start(Call& call, std::shared_ptr<Core> core, std::initializer_list<napi_value> arrays,
                          std::function<const char*()> compute) {
    std::unique_ptr<Job> job(new Job(call.env, std::move(core), std::move(compute)));
    napi_value promise;
    check(napi_create_promise(call.env, &job->deferred_, &promise), "making a promise");
    for (napi_value array : arrays) job->arrays_.emplace_back(call.env, array);
    check(napi_create_async_work(call.env, nullptr, text(call.env, "weft"), execute, complete, job.get(), &job->work_),
          "making a job");
    check(napi_queue_async_work(call.env, job->work_), "queueing a job");
    job.release()->core_->busy = true;
    return promise;
  }

  ~Job() {
    if (work_) napi_delete_async_work(env_, work_);
  }

 private:
  Job(napi_env env, std::shared_ptr<Core> core, std::function<const char*()> compute)
      : env_(env), core_(std::move(core)), compute_(std::move(compute)) {}

  static void execute(napi_env, void* data) {
    Job& job = *static_cast<Job*>(data);
    try {
      const char* error = job.compute_();
      if (error) job.error_ = error;
    } catch (const std::exception& error) {
      job.error_ = error.what();
    }
  }

  // When the environment is going away these calls fail, and nobody is left to be told.
  static void complete(napi_env env, napi_status, void* data) {
    const std::unique_ptr<Job> job(static_cast<Job*>(data));
    job->core_->busy = false;
    napi_value message, value;
    if (job->error_.empty()) {
      if (napi_get_undefined(env, &value) == napi_ok) napi_resolve_deferred(env, job->deferred_, value);
    } else if (napi_create_string_utf8(env, job->error_.data(), job->error_.size(), &message) == napi_ok &&
               napi_create_error(env, nullptr, message, &value) == napi_ok) {
      napi_reject_deferred(env, job->deferred_, value);
    }
  }

  napi_env env_;
  std::shared_ptr<Core> core_;
  std::function<const char*()> compute_;
  string error_;
  napi_deferred deferred_ = nullptr;
  napi_async_work work_ = nullptr;
  std::vector<Kept> arrays_;
};

struct Config {
  weft_config fields{};
  string isa;
};

// Argument 0: { ...ModelConfig, architecture, maxRows, precision, checkpointActivations, threads, isa }
std::unique_ptr<Config> read_config(Call& call) {
  auto config = std::make_unique<Config>();
  weft_config& c = config->fields;
  const auto integer = [&](const char* name, int least, int largest) {
    return call.integer(call.field(0, name), name, least, largest);
  };
  const auto boolean = [&](const char* name) { return call.boolean(call.field(0, name), name); };
  const auto choice = [&](const char* name, std::initializer_list<const char*> words) {
    return call.choice(call.field(0, name), name, words);
  };
  c.architecture = choice("architecture", {"table", "post-norm", "pre-norm"});
  c.vocab_size = integer("vocabSize", 1, 1 << 20);
  c.block_size = integer("blockSize", 1, 1 << 20);
  c.n_layer = integer("nLayer", 0, 1024);
  c.n_head = integer("nHead", 0, 1024);
  c.n_embd = integer("nEmbd", 0, 65536);
  c.bias = boolean("bias");
  c.activation = choice("activation", {"gelu", "gelu_tanh"});
  c.tied_head = boolean("tiedHead");
  c.max_rows = integer("maxRows", 1, 1 << 20);
  c.precision = choice("precision", {"float32", "bf16"});
  c.checkpoint_activations = boolean("checkpointActivations");
  c.dropout = call.number(call.field(0, "dropout"), "dropout");
  c.layer_norm_eps = call.number(call.field(0, "layerNormEps"), "layerNormEps");
  c.threads = integer("threads", 1, 1024);
  config->isa = call.text(call.field(0, "isa"), "isa");
  c.isa = config->isa.c_str();
  return config;
}

// plannedBytes(config): what a Model allocates for activations and scratch.
napi_value planned_bytes(Call& call) {
  const int64_t bytes = weft_planned_bytes(&read_config(call)->fields);
  if (bytes < 0) throw BadArgument("the native engine cannot run this model");
  return number(call.env, static_cast<double>(bytes));
}

// parameters: offset and size of each tensor; keys: the keys of weft_parameter, a line each.
napi_value model_new(Call& call) {
  call.require_new(Model::name);
  const auto config = read_config(call);
  const auto numbers = call.array<int64_t>(1, "parameters");
  if (numbers.size % 2 != 0) throw BadArgument("parameters: expected pairs of offset and size");
  string keys = call.text(call.value(2, "keys"), "keys");
  std::vector<weft_parameter> parameters(numbers.size / 2);
  char* key = keys.data();
  int64_t size = 0;
  for (size_t i = 0; i < parameters.size(); i++) {
    parameters[i] = {numbers.data[2 * i], numbers.data[2 * i + 1], key};
    char* const end = strchr(key, '\n');
    if ((end == nullptr) != (i + 1 == parameters.size())) throw BadArgument("keys: expected one for each parameter");
    if (end) *end = '\0', key = end + 1;
    if (parameters[i].offset != size || parameters[i].size < 0 || parameters[i].size > int64_t{1} << 40)
      throw BadArgument("parameters: expected one tensor after another");
    size += parameters[i].size;
  }
  const auto core = std::make_shared<Core>();
  core->config = config->fields;
  core->config.isa = nullptr;  // not ours beyond this call
  char error[512] = "the native engine cannot run this model";
  core->model = weft_model_create(&config->fields, parameters.data(), parameters.size(), error, sizeof error);
  if (!core->model) throw std::runtime_error(error);
  core->size = static_cast<size_t>(size);
  return wrap(call, std::make_unique<Model>(Model{core}));
}

napi_value model_arithmetic(Call& call) {
  const auto& core = unwrap<Model>(call.env, call.self).core;
  if (!core) throw std::runtime_error("native: the engine was disposed");
  return text(call.env, weft_arithmetic(core->model));
}

// setWeights(weights): lent, not copied, until the next or until dispose.
napi_value model_set_weights(Call& call) {
  Core& core = ready(unwrap<Model>(call.env, call.self).core);
  call.array<float>(0, "weights", core.size);
  core.weights = Kept(call.env, call.value(0, "weights"));
  core.version++;
  return nullptr;
}

// Ids are copied: they are few, and JavaScript must not change them once they are checked.
std::vector<int32_t> read_ids(const Core& core, Span<int32_t> ids, const char* name) {
  for (size_t i = 0; i < ids.size; i++)
    if (ids.data[i] < 0 || ids.data[i] >= core.config.vocab_size)
      throw BadArgument(string(name) + ": id " + std::to_string(ids.data[i]) + " at position " + std::to_string(i) +
                        " is outside the vocabulary of " + std::to_string(core.config.vocab_size));
  return std::vector<int32_t>(ids.data, ids.data + ids.size);
}

// (B, T) ids of argument i and the rows of argument `rows_at`.
struct Batch {
  std::vector<int32_t> ids;
  int rows, time;
};

Batch read_batch(const Core& core, Call& call, size_t rows_at) {
  const auto ids = call.array<int32_t>(0, "tokens");
  const int rows = call.integer(call.value(rows_at, "rows"), "rows", 1, core.config.max_rows);
  const size_t time = ids.size / rows;
  if (ids.size % rows != 0 || time < 1 || time > static_cast<size_t>(core.config.block_size))
    throw BadArgument("tokens: " + std::to_string(ids.size) + " ids do not make " + std::to_string(rows) +
                      " rows of 1 to " + std::to_string(core.config.block_size));
  return {read_ids(core, ids, "tokens"), rows, static_cast<int>(time)};
}

// gradient(tokens, targets, rows, position, out, loss): position is weft_position as four words, loss (1) float64.
napi_value model_gradient(Call& call) {
  const auto core = unwrap<Model>(call.env, call.self).core;
  ready(core);
  const Batch batch = read_batch(*core, call, 2);
  const auto targets = read_ids(*core, call.array<int32_t>(1, "targets", batch.ids.size()), "targets");
  const auto words = call.array<uint32_t>(3, "position", 4);
  const weft_position at = {words.data[0], words.data[1], words.data[2], words.data[3]};
  const auto out = call.array<float>(4, "out", core->size);
  const auto loss = call.array<double>(5, "loss", 1);
  const float* weights = weights_of(*core, call);
  return Job::start(call, core, {call.value(4, "out"), call.value(5, "loss")},
                    [core, weights, batch, targets, at, out, loss] {
                      return weft_gradient(core->model, weights, batch.ids.data(), targets.data(), batch.rows,
                                           batch.time, &at, out.data, loss.data);
                    });
}

// adamw(weights, m, v, sum, stretches, scalars, clip): stretches are triples of offset, size and decay, scalars nine with
// weight decay and nine without, clip float64 (3): the largest norm, the units, and a place for the norm.
napi_value model_adamw(Call& call) {
  const auto core = unwrap<Model>(call.env, call.self).core;
  ready(core);
  const auto weights = call.array<float>(0, "weights", core->size), m = call.array<float>(1, "m", core->size);
  const auto v = call.array<float>(2, "v", core->size), sum = call.array<float>(3, "sum", core->size);
  const auto triples = call.array<int64_t>(4, "stretches");
  if (triples.size % 3 != 0) throw BadArgument("stretches: expected triples of offset, size and decay");
  std::vector<weft_stretch> stretches;
  for (size_t i = 0; i < triples.size; i += 3)
    stretches.push_back({triples.data[i], triples.data[i + 1], triples.data[i + 2] != 0});
  const auto scalars = call.array<float>(5, "scalars", 18);
  weft_adamw update{};
  memcpy(update.decayed, scalars.data, sizeof update.decayed);
  memcpy(update.plain, scalars.data + 9, sizeof update.plain);
  const auto clip = call.array<double>(6, "clip", 3);
  update.clip = clip.data[0];
  if (!(clip.data[1] >= 1 && clip.data[1] <= 1 << 30)) throw BadArgument("clip: expected 1 or more units");
  update.units = static_cast<int32_t>(clip.data[1]);
  return Job::start(call, core,
                    {call.value(0, "weights"), call.value(1, "m"), call.value(2, "v"), call.value(3, "sum"),
                     call.value(6, "clip")},
                    [core, weights, m, v, sum, stretches, update, clip] {
                      return weft_adamw_update(core->model, weights.data, m.data, v.data, sum.data, stretches.data(),
                                               stretches.size(), &update, clip.data + 2);
                    });
}

// losses(tokens, targets, rows, out)
napi_value model_losses(Call& call) {
  const auto core = unwrap<Model>(call.env, call.self).core;
  ready(core);
  const Batch batch = read_batch(*core, call, 2);
  const auto targets = read_ids(*core, call.array<int32_t>(1, "targets", batch.ids.size()), "targets");
  const auto out = call.array<float>(3, "out", batch.rows);
  const float* weights = weights_of(*core, call);
  return Job::start(call, core, {call.value(3, "out")}, [core, weights, batch, targets, out] {
    return weft_losses(core->model, weights, batch.ids.data(), targets.data(), batch.rows, batch.time,
                       out.data);
  });
}

// logits(tokens, rows, out) and hidden(tokens, rows, out)
template <const char* (*compute)(weft_model*, const float*, const int32_t*, int, int, float*),
          int32_t weft_config::*columns>
napi_value model_positions(Call& call) {
  const auto core = unwrap<Model>(call.env, call.self).core;
  ready(core);
  const Batch batch = read_batch(*core, call, 1);
  const auto out = call.array<float>(2, "out", batch.ids.size() * (core->config.*columns));
  const float* weights = weights_of(*core, call);
  return Job::start(call, core, {call.value(2, "out")}, [core, weights, batch, out] {
    return compute(core->model, weights, batch.ids.data(), batch.rows, batch.time, out.data);
  });
}

// Memory goes when the generations have been disposed too.
napi_value model_dispose(Call& call) {
  Model& model = unwrap<Model>(call.env, call.self);
  if (!model.core) return nullptr;
  ready(model.core);
  model.core.reset();
  return nullptr;
}

// ---- Generation(model, rows) ----

struct Generation {
  static constexpr const char* name = "Generation";
  static constexpr napi_type_tag tag = {0xf05a8c1be7d2463b, 0xa4416d09538ec7f2};
  std::shared_ptr<Core> core;
  int rows;
  int version;
  // Shared with a call under way, and destroyed before the core it points into.
  std::shared_ptr<weft_generation> state;
};

Generation& ready_generation(Call& call) {
  Generation& generation = unwrap<Generation>(call.env, call.self);
  if (!generation.state) throw std::runtime_error("native: the generation was disposed");
  const Core& core = ready(generation.core);
  if (core.version != generation.version)
    throw std::runtime_error("native: the weights changed since this generation began; begin a new one");
  weights_of(core, call);
  return generation;
}

// generationBytes(model, rows): what a Generation allocates.
napi_value generation_bytes(Call& call) {
  const auto& core = unwrap<Model>(call.env, call.value(0, "model")).core;
  ready(core);
  const int rows = call.integer(call.value(1, "rows"), "rows", 1, 1 << 20);
  return number(call.env, static_cast<double>(weft_generation_bytes(core->model, rows)));
}

napi_value generation_new(Call& call) {
  call.require_new(Generation::name);
  const auto core = unwrap<Model>(call.env, call.value(0, "model")).core;
  ready(core);
  const int rows = call.integer(call.value(1, "rows"), "rows", 1, 1 << 20);
  char error[512] = "the native engine cannot generate here";
  weft_generation* state = weft_generation_create(core->model, weights_of(*core, call), rows, error, sizeof error);
  if (!state) throw std::runtime_error(error);
  const std::shared_ptr<weft_generation> shared(state, [core](weft_generation* g) { weft_generation_destroy(g); });
  return wrap(call, std::make_unique<Generation>(Generation{core, rows, core->version, shared}));
}

// feed(tokens, counts, logits)
napi_value generation_feed(Call& call) {
  Generation& generation = ready_generation(call);
  const Core& core = *generation.core;
  const auto ids = call.array<int32_t>(0, "tokens");
  const auto counts = call.array<int32_t>(1, "counts", generation.rows);
  size_t sum = 0;
  for (size_t i = 0; i < counts.size; i++) {
    if (counts.data[i] < 0 || counts.data[i] > core.config.block_size)
      throw BadArgument("counts: expected 0 to " + std::to_string(core.config.block_size) + " tokens a row");
    sum += counts.data[i];
  }
  if (ids.size != sum)
    throw BadArgument("tokens: " + std::to_string(ids.size) + " values, expected " + std::to_string(sum));
  const auto tokens = read_ids(core, ids, "tokens");
  const std::vector<int32_t> added(counts.data, counts.data + counts.size);
  const auto logits =
      call.array<float>(2, "logits", static_cast<size_t>(generation.rows) * core.config.vocab_size);
  return Job::start(call, generation.core, {call.value(2, "logits")}, [state = generation.state, tokens, added, logits] {
    return weft_generation_feed(state.get(), tokens.data(), added.data(), logits.data);
  });
}

napi_value generation_reorder(Call& call) {
  Generation& generation = ready_generation(call);
  const auto from = call.array<int32_t>(0, "from", generation.rows);
  for (size_t i = 0; i < from.size; i++)
    if (from.data[i] < 0 || from.data[i] >= generation.rows)
      throw BadArgument("from: row " + std::to_string(from.data[i]) + " of " + std::to_string(generation.rows));
  const std::vector<int32_t> rows(from.data, from.data + from.size);
  return Job::start(call, generation.core, {},
                    [state = generation.state, rows] { return weft_generation_reorder(state.get(), rows.data()); });
}

napi_value generation_clear(Call& call) {
  Generation& generation = ready_generation(call);
  const int row = call.integer(call.value(0, "row"), "row", 0, generation.rows - 1);
  const char* error = weft_generation_clear(generation.state.get(), row);
  if (error) throw std::runtime_error(error);
  return nullptr;
}

napi_value generation_dispose(Call& call) {
  Generation& generation = unwrap<Generation>(call.env, call.self);
  generation.state.reset();
  generation.core.reset();
  return nullptr;
}

}  // namespace

NAPI_MODULE_INIT() {
  const napi_property_descriptor vectors[] = {
      method<vectors_isa>("isa"),
      method<vectors_add>("add"),
      method<vectors_sum_of_squares>("sumOfSquares"),
      method<vectors_adamw>("adamw"),
      method<vectors_subtract>("subtract"),
      method<vectors_nesterov>("nesterov"),
      method<vectors_digest>("digest"),
      method<vectors_to_bf16>("toBf16"),
      method<vectors_from_bf16>("fromBf16"),
      method<vectors_normal>("normal"),
      method<vectors_round_bf16>("roundBf16"),
      method<vectors_encode_bf16>("encodeBf16"),
      method<vectors_decode_bf16>("decodeBf16"),
      method<vectors_round_blocks>("roundBlocks"),
      method<vectors_encode_blocks>("encodeBlocks"),
      method<vectors_decode_blocks>("decodeBlocks"),
  };
  const napi_property_descriptor model[] = {
      method<model_arithmetic>("arithmetic"),
      method<model_set_weights>("setWeights"),
      method<model_gradient>("gradient"),
      method<model_adamw>("adamw"),
      method<model_losses>("losses"),
      method<model_positions<weft_logits, &weft_config::vocab_size>>("logits"),
      method<model_positions<weft_hidden, &weft_config::n_embd>>("hidden"),
      method<model_dispose>("dispose"),
  };
  const napi_property_descriptor generation[] = {
      method<generation_feed>("feed"),
      method<generation_reorder>("reorder"),
      method<generation_clear>("clear"),
      method<generation_dispose>("dispose"),
  };
  const napi_property_descriptor functions[] = {
      method<instruction_sets>("instructionSets"),
      method<choose_isa>("chooseIsa"),
      method<planned_bytes>("plannedBytes"),
      method<generation_bytes>("generationBytes"),
  };
  const napi_property_descriptor fast_crc32 = method<crc32_of>("crc32");
  const napi_property_descriptor shared[] = {method<create_shared>("createShared"), method<open_shared>("openShared")};
  if (!define<Vectors, vectors_new>(env, exports, vectors) || !define<Model, model_new>(env, exports, model) ||
      !define<Generation, generation_new>(env, exports, generation) ||
      napi_define_properties(env, exports, sizeof functions / sizeof *functions, functions) != napi_ok ||
      (crc32_runs_here() && napi_define_properties(env, exports, 1, &fast_crc32) != napi_ok) ||
      (shared_memory_runs_here && napi_define_properties(env, exports, 2, shared) != napi_ok))
    napi_throw_error(env, nullptr, "native: the addon could not start");
  return exports;
}
