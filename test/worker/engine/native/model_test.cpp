// Whole models of every family: the fast kernels against the naive ones, the same bits for 1, 2 and 3 threads and with
// activations recomputed, generation against the logits of whole sequences, and every refusal.
#include "model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "check.h"

using namespace weft;
using Floats = std::vector<float>;

static std::mt19937 engine(7);

// A layout with every part where the architecture wants one, for tests alone; backwards, because the order is the
// layout's own affair.
static std::vector<weft_parameter> layout_of(const weft_config& c) {
  static std::set<std::string> kept;  // keys live as long as the program
  std::vector<weft_parameter> list;
  int64_t offset = 0;
  auto add = [&](const std::string& key, int64_t size) {
    list.push_back({offset, size, kept.insert(key).first->c_str()});
    offset += size;
  };
  auto pair = [&](const std::string& role, int64_t weight, int64_t bias) {
    add(role + ".weight", weight);
    if (c.bias) add(role + ".bias", bias);
  };
  const int64_t V = c.vocab_size, C = c.n_embd;
  if (c.architecture == WEFT_TABLE) {
    add("table.weight", V * V);
    return list;
  }
  if (!c.tied_head) add("head.weight", V * C);
  if (c.architecture == WEFT_PRE_NORM) pair("finalNorm", C, C);
  for (int l = c.n_layer - 1; l >= 0; l--) {
    const std::string block = std::to_string(l) + ".";
    pair(block + "expand", 4 * C * C, 4 * C), pair(block + "contract", 4 * C * C, C);
    pair(block + "norm2", C, C), pair(block + "norm1", C, C);
    pair(block + "projection", C * C, C), pair(block + "qkv", 3 * C * C, 3 * C);
  }
  add("positions.weight", c.block_size * C);
  add("tokens.weight", V * C);
  return list;
}

static int64_t offset_of(const weft_config& c, const std::string& key) {
  for (const weft_parameter& p : layout_of(c))
    if (p.key == key) return p.offset;
  return -1;
}

struct Case {
  weft_config config{};
  int rows, time;
  Floats weights;
  std::vector<int32_t> tokens, targets;

  Case(int architecture, int V, int T, int L, int H, int C, int rows, int time) : rows(rows), time(time) {
    config.architecture = architecture, config.vocab_size = V, config.block_size = T, config.n_layer = L, config.n_head = H;
    config.n_embd = C, config.bias = 1, config.tied_head = 1, config.max_rows = rows, config.layer_norm_eps = 1e-5;
    config.threads = 1;
  }
  void draw() {
    const auto layout = layout_of(config);
    std::normal_distribution<float> normal(0, 0.2f);
    weights.resize(layout.back().offset + layout.back().size);
    for (float& w : weights) w = normal(engine);
    for (auto* ids : {&tokens, &targets}) {
      ids->resize(static_cast<size_t>(rows) * time);
      for (int32_t& id : *ids) id = static_cast<int32_t>(engine() % config.vocab_size);
    }
  }
  weft_model* make(const Kernels* kernels) const {
    const auto layout = layout_of(config);
    char error[256] = "";
    weft_model* model = weft_model_create(&config, layout.data(), layout.size(), error, sizeof error);
    CHECK(model, "%s", error);
    if (kernels) model->kernels = kernels;
    return model;
  }
  // gradient, loss, losses and logits, one after another.
  Floats results(const Kernels* kernels = nullptr) const {
    weft_model* model = make(kernels);
    Floats all(weights.size(), NAN), losses(rows), logits(tokens.size() * config.vocab_size);
    double loss;
    const weft_position at{1, 2, 3, 4};
    for (const char* error :
         {weft_gradient(model, weights.data(), tokens.data(), targets.data(), rows, time, &at, all.data(), &loss),
          weft_losses(model, weights.data(), tokens.data(), targets.data(), rows, time, losses.data()),
          weft_logits(model, weights.data(), tokens.data(), rows, time, logits.data())})
      CHECK(!error, "%s", error);
    weft_model_destroy(model);
    all.push_back(static_cast<float>(loss));
    all.insert(all.end(), losses.begin(), losses.end());
    all.insert(all.end(), logits.begin(), logits.end());
    return all;
  }
};

static void near(const char* what, const Floats& got, const Floats& expected, double tolerance) {
  double largest = 0, worst = -1;
  size_t at = 0;
  for (float x : expected) largest = std::max(largest, std::fabs(static_cast<double>(x)));
  for (size_t i = 0; i < got.size(); i++) {
    const double error = std::fabs(static_cast<double>(got[i]) - expected[i]) / largest;
    if (!(error <= worst)) worst = error, at = i;
  }
  CHECK(worst <= tolerance, "%s: element %zu of %zu is %.9g, expected %.9g (%.2g of the largest %.3g)", what, at,
        got.size(), got[at], expected[at], worst, largest);
}

static void same(const char* what, const Floats& got, const Floats& expected) {
  for (size_t i = 0; i < got.size(); i++)
    CHECK(memcmp(&got[i], &expected[i], 4) == 0, "%s: element %zu is %.9g, expected the bits of %.9g", what, i, got[i],
          expected[i]);
}

static void against_naive(Case c) {
  c.draw();
  char what[128];
  std::snprintf(what, sizeof what, "family %d V %d C %d L %d B %d T %d dropout %g precision %d", c.config.architecture,
                c.config.vocab_size, c.config.n_embd, c.config.n_layer, c.rows, c.time, c.config.dropout,
                c.config.precision);
  const Floats one = c.results();
  // bf16 rounds what float32 noise has moved across a rounding border: a coarser bound there.
  near(what, one, c.results(&naive_kernels), c.config.precision == WEFT_BF16 ? 2e-2 : 2e-5);
  for (const int threads : {2, 3}) {
    c.config.threads = threads;
    same(what, c.results(), one);
  }
  c.config.checkpoint_activations = 1;
  same(what, c.results(), one);
}

// Rows fed in unequal pieces, reordered and cleared, against logits of the same sequences at once.
static void generation(Case c) {
  c.draw();
  const int V = c.config.vocab_size, rows = 3, T = c.config.block_size;
  weft_model* model = c.make(nullptr);
  char error[256] = "";
  weft_generation* g = weft_generation_create(model, c.weights.data(), rows, error, sizeof error);
  CHECK(g, "%s", error);
  std::vector<std::vector<int32_t>> held(rows);
  Floats logits(static_cast<size_t>(rows) * V);
  auto feed = [&](const std::vector<int32_t>& counts) {
    std::vector<int32_t> tokens;
    for (int r = 0; r < rows; r++)
      for (int i = 0; i < counts[r]; i++) {
        tokens.push_back(static_cast<int32_t>(engine() % V));
        held[r].push_back(tokens.back());
      }
    const char* problem = weft_generation_feed(g, tokens.data(), counts.data(), logits.data());
    CHECK(!problem, "%s", problem);
    for (int r = 0; r < rows; r++) {
      const Floats got(logits.begin() + r * V, logits.begin() + (r + 1) * V);
      Floats expected(V);
      if (!held[r].empty()) {
        Floats all(held[r].size() * V);
        problem = weft_logits(model, c.weights.data(), held[r].data(), 1, static_cast<int>(held[r].size()), all.data());
        CHECK(!problem, "%s", problem);
        expected.assign(all.end() - V, all.end());
        near("generation", got, expected, c.config.precision == WEFT_BF16 ? 3e-2 : 1e-5);
      } else {
        same("a row that holds nothing", got, expected);
      }
    }
  };
  auto reorder = [&](const std::vector<int32_t>& from) {
    const char* problem = weft_generation_reorder(g, from.data());
    CHECK(!problem, "%s", problem);
    const auto old = held;
    for (int r = 0; r < rows; r++) held[r] = old[from[r]];
  };
  feed({4, 0, 1});
  feed({1, 1, 1});
  feed({0, 12, 2});
  reorder({1, 1, 0});
  feed({1, 1, 1});
  reorder({2, 2, 2});
  feed({2, 0, 1});
  held[1].clear();
  CHECK(!weft_generation_clear(g, 1), "clear");
  feed({0, T, 1});
  const int32_t many[] = {0, 1, 0}, token[] = {0}, beyond[] = {0, 3, 0};
  CHECK(weft_generation_feed(g, token, many, logits.data()), "a full row took one more token");
  CHECK(weft_generation_reorder(g, beyond), "a row went on from row 3 of 3");
  weft_generation_destroy(g);
  weft_model_destroy(model);
}

// What is not finite must reach the loss and the gradient, where it is refused: no kernel may swallow it.
static void not_finite(Case c) {
  c.draw();
  for (const float poison : {NAN, INFINITY}) {
    Case poisoned = c;
    for (const int64_t at : {offset_of(c.config, "tokens.weight") + static_cast<int64_t>(c.tokens[0]) * c.config.n_embd,
                             offset_of(c.config, "0.qkv.weight")}) {
      poisoned.weights = c.weights;
      poisoned.weights[at] = poison;
      weft_model* model = poisoned.make(nullptr);
      Floats gradient(c.weights.size());
      double loss;
      const weft_position position{};
      CHECK(!weft_gradient(model, poisoned.weights.data(), c.tokens.data(), c.targets.data(), c.rows, c.time, &position,
                           gradient.data(), &loss),
            "gradient");
      CHECK(!std::isfinite(loss), "the loss is %g with %g at weight %lld", loss, poison, static_cast<long long>(at));
      const bool seen = std::any_of(gradient.begin(), gradient.end(), [](float g) { return !std::isfinite(g); });
      CHECK(seen, "the gradient is finite with %g at weight %lld", poison, static_cast<long long>(at));
      weft_model_destroy(model);
    }
  }
}

static void refusals() {
  Case c(WEFT_PRE_NORM, 11, 8, 1, 2, 6, 2, 8);
  c.draw();
  auto layout = layout_of(c.config);
  char error[256] = "";
  layout[2].size++;
  CHECK(!weft_model_create(&c.config, layout.data(), layout.size(), error, sizeof error) && *error, "a wrong size");
  layout[2].size--;
  CHECK(!weft_model_create(&c.config, layout.data(), layout.size() - 1, error, sizeof error), "one too few");
  CHECK(std::string(error) == "the layout has no parameter tokens.weight", "%s", error);
  layout.push_back({layout.back().offset + layout.back().size, 6, "1.norm1.weight"});
  CHECK(!weft_model_create(&c.config, layout.data(), layout.size(), error, sizeof error), "one too many");
  CHECK(std::string(error).find("a parameter 1.norm1.weight") != std::string::npos, "%s", error);
  layout.back().key = "tokens.weight";
  CHECK(!weft_model_create(&c.config, layout.data(), layout.size(), error, sizeof error), "one twice");
  layout.pop_back();
  weft_config odd = c.config;
  odd.n_head = 4;
  CHECK(!weft_model_create(&odd, layout.data(), layout.size(), error, sizeof error), "6 / 4 heads");
  CHECK(weft_planned_bytes(&odd) == -1 && weft_planned_bytes(&c.config) > 0, "planned bytes");
  weft_model* model = c.make(nullptr);
  Floats out(c.weights.size());
  double loss;
  const weft_position at{};
  auto run = [&](int rows, int time) {
    return weft_gradient(model, c.weights.data(), c.tokens.data(), c.targets.data(), rows, time, &at, out.data(),
                         &loss);
  };
  CHECK(run(3, 8) && run(0, 8) && run(1, 9) && run(1, 0), "rows or time out of range");
  c.targets[5] = 11;
  CHECK(run(2, 8) && std::string(run(2, 8)).find("target 5 is 11") == 0, "%s", run(2, 8));
  c.targets[5] = 10;
  CHECK(!run(2, 8), "%s", run(2, 8));
  weft_model_destroy(model);
}

int main() {
  isa_under_test();
  Case bigram(WEFT_TABLE, 65, 8, 0, 0, 0, 4, 8);
  Case gpt2(WEFT_PRE_NORM, 65, 40, 2, 2, 32, 3, 40), odd(WEFT_PRE_NORM, 97, 21, 3, 3, 33, 3, 17);
  Case gpt1(WEFT_POST_NORM, 70, 33, 2, 4, 36, 2, 33), single(WEFT_PRE_NORM, 5, 1, 1, 1, 7, 1, 1);
  Case wide(WEFT_PRE_NORM, 50257, 3, 1, 2, 6, 2, 3), heads(WEFT_POST_NORM, 300, 20, 1, 1, 40, 12, 20);
  for (Case c : {bigram, gpt2, odd, gpt1, single, wide, heads}) {
    against_naive(c);
    if (c.config.architecture == WEFT_TABLE) continue;
    c.config.dropout = 0.3;
    against_naive(c);
    c.config.tied_head = 0;
    c.config.bias = 0;
    c.config.activation = WEFT_GELU_TANH;
    against_naive(c);
    c.config.precision = WEFT_BF16;
    against_naive(c);
  }
  for (Case c : {bigram, gpt2, odd, gpt1}) {
    c.config.block_size = 30;
    generation(c);
    c.config.threads = 2;
    c.config.precision = WEFT_BF16;
    generation(c);
  }
  Case longer(WEFT_PRE_NORM, 20, 600, 1, 2, 8, 1, 1);
  generation(longer);
  for (Case c : {gpt2, odd, gpt1}) {
    not_finite(c);
    c.config.precision = WEFT_BF16;
    not_finite(c);
  }
  refusals();
  std::printf("models agree\n");
}
