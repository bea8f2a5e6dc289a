// One model as the compute core sees it: where each parameter stands in the flat vector, where each activation stands
// in the one arena, and the passes over them. weft.h is the public face; forward.cpp, backward.cpp and generation.cpp
// do the work, model.cpp builds and guards it.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "kernels.h"
#include "pool.h"
#include "vector.h"
#include "weft.h"

namespace weft {

// Offsets in the flat vector, in floats; a bias that does not exist stands at -1.
struct ParameterAt {
  int64_t weight = -1, bias = -1;
};
struct BlockParameters {
  ParameterAt norm1, qkv, projection, norm2, expand, contract;
};
struct Parameters {
  int64_t tokens = -1, positions = -1, head = -1;  // head: tokens when tied; bigram: only `tokens`, its table
  std::vector<BlockParameters> blocks;
  ParameterAt final_norm;
  int64_t size = 0;  // P
};

// 64-byte aligned floats; counted first (null base), then laid out.
class Arena {
 public:
  explicit Arena(float* base) : base_(base) {}
  float* take(int64_t floats) {
    float* p = base_ ? base_ + used_ : nullptr;
    used_ += (floats + 15) / 16 * 16 + 16;  // the extra line keeps equal arrays from lying 4096 bytes apart
    return p;
  }
  int64_t used() const { return used_; }

 private:
  float* base_;
  int64_t used_ = 0;
};

struct FreeAligned {
  void operator()(float* p) const { ::operator delete(p, std::align_val_t{64}); }
};
using Memory = std::unique_ptr<float, FreeAligned>;
Memory allocate(int64_t floats);

// What one block's forward pass leaves for its backward pass. (N, C) unless said; the norms' statistics are (N).
//   gpt2: normed1 = norm1(x); middle = x + attention(normed1); normed2 = norm2(middle); last = middle + mlp(normed2)
//   gpt1: middle = x + attention(x); normed1 = norm1(middle); last = normed1 + mlp(normed1); normed2 = norm2(last)
struct Activations {
  float *normed1, *mean1, *rstd1, *normed2, *mean2, *rstd2;
  float *qkv;       // (N, 3 C)
  float *attended;  // heads side by side, before the projection
  float *log_sum;   // (B, H, T)
  float *middle, *last;
  float *hidden, *slope;  // (N, 4 C) gelu and gelu' of the expansion
};

struct Buffers {
  std::vector<Activations> blocks;  // with checkpointing they share all but what leaves the block
  float *embedded, *final_normed, *final_mean, *final_rstd;
  float *logits;  // (head_rows, V)
  float *losses;  // (N)
  // Backward: gradient at the residual stream, at a branch, at a branch behind its dropout, at hidden, at qkv.
  float *dstream, *dbranch, *dmasked, *dhidden, *dqkv;
  float *norm_parts;             // (chunks of N, 2 C)
  std::vector<float*> scratch;  // one per thread

  int64_t floats;
};

// out (N, outputs) = x (N, inputs) times one weight of the layout, finished as `finish` says.
using Linear = std::function<void(float* out, const float* x, ParameterAt weight, int inputs, int outputs,
                                  const Matmul& finish)>;

// One way to run the blocks over N tokens: whole sequences in training, appended tokens in generation.
struct Pass {
  int tokens;  // N
  bool keep_slopes;
  Linear linear;
  std::function<void(int block)> attend;  // attended from qkv
};

constexpr int norm_chunk = 32;  // rows whose norm gradients are summed before the parts are folded, in order

}  // namespace weft

struct weft_model {
  // Throws std::runtime_error on a configuration or parameter list that makes no sense.
  weft_model(const weft_config& config, const weft_parameter* parameters, size_t count);

  weft_config config;
  const weft::Kernels* kernels;
  weft::Parameters at;
  weft::Buffers buffers;
  weft::Memory memory;
  std::unique_ptr<weft::Pool> pool;
  std::unique_ptr<weft::VectorOps> vectors;  // on the same threads
  std::string arithmetic, error;

  // Of the call under way.
  const float* weights = nullptr;
  int rows = 0, time = 0;
  const weft_position* position = nullptr;  // null: no dropout

  int tokens_in_call() const { return rows * time; }
  int head_size() const { return config.n_embd / config.n_head; }
  bool pre_norm() const { return config.architecture == WEFT_PRE_NORM; }
  const float* weight(int64_t offset) const { return offset < 0 ? nullptr : weights + offset; }
  weft::Dropout dropout(int site) const;
  float* output_of(int block) const;
  const float* input_of(int block) const { return block == 0 ? buffers.embedded : output_of(block - 1); }

  // Tasks (model.cpp).
  void product(const weft::Matmul& m);
  void add_dropout(float* out, const float* in, int64_t n, const weft::Dropout& dropout);

  // Passes (forward.cpp).
  void embed(const int32_t* tokens);
  void norm(float* out, float* mean, float* rstd, const float* x, weft::ParameterAt norm, int n);
  void linear(float* out, const float* x, weft::ParameterAt weight, int inputs, int outputs, int n,
              weft::Matmul finish);
  void block_forward(int block, const float* x, const weft::Activations& a, const weft::Pass& pass);
  weft::Pass whole_sequences(bool keep_slopes);
  const float* forward(const int32_t* tokens, bool keep);
  weft::Attention attention_of(int block, int task) const;
  void logits_of(float* logits, const float* hidden, const int32_t* tokens, int row0, int row1);
  void cross_entropy(const int32_t* targets, int row0, int row1, float scale);
  void losses(const int32_t* tokens, const int32_t* targets);

  // backward.cpp
  double gradient(const int32_t* tokens, const int32_t* targets, float* gradient);
  void head_backward(const float* hidden, const int32_t* tokens, const int32_t* targets, float* gradient);
  void scatter(float* table, const float* x, const int32_t* ids, int n, int width);
  void norm_backward(float* dx, bool add, const float* dout, const float* x, const float* mean, const float* rstd,
                     weft::ParameterAt norm, float* gradient);
  void linear_backward(float* dx, const float* dy, const float* x, weft::ParameterAt weight, int inputs, int outputs,
                       float* gradient, weft::Matmul finish = {});
  void block_backward(int block, const float* x, float* gradient);
  void embed_backward(const int32_t* tokens, float* gradient);

  int head_rows() const;
};

namespace weft {
Buffers lay_out(const weft_config& config, const Kernels& kernels, int head_rows, float* base);
}
