// The forward pass, from tokens to logits. N = rows * time of the call.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "model.h"

using namespace weft;

// embedded (N, C) = token embedding + position embedding, through dropout site 0.
void weft_model::embed(const int32_t* tokens) {
  const int64_t C = config.n_embd;
  const float *token = weight(at.tokens), *place = weight(at.positions);
  pool->run_ranges(tokens_in_call(), 1, 4, [&](size_t from, size_t to, int) {
    for (size_t i = from; i < to; i++)
      kernels->add(buffers.embedded + i * C, token + tokens[i] * C, place + i % time * C, C);
  });
  if (const Dropout d = dropout(0); d.on) add_dropout(buffers.embedded, buffers.embedded, tokens_in_call() * C, d);
}

void weft_model::norm(float* out, float* mean, float* rstd, const float* x, ParameterAt norm, int n) {
  pool->run_ranges(n, 1, 4, [&](size_t from, size_t to, int) {
    kernels->norm_forward(out, mean, rstd, x, weight(norm.weight), weight(norm.bias),
                          static_cast<float>(config.layer_norm_eps), config.n_embd, static_cast<int>(from),
                          static_cast<int>(to));
  });
}

// out (n, outputs) = x (n, inputs) times a weight of the layout (inputs, outputs) + its bias, finished as `finish`
// says.
void weft_model::linear(float* out, const float* x, ParameterAt weight_at, int inputs, int outputs, int n,
                        Matmul finish) {
  Matmul m = finish;
  m.M = n, m.N = outputs, m.K = inputs;
  m.a = x, m.lda = inputs;
  m.b = weight(weight_at.weight), m.ldb = outputs;
  m.c = out, m.ldc = outputs;
  m.bias = weight(weight_at.bias);
  m.bf16 = config.precision == WEFT_BF16;
  m.gelu_tanh = config.activation == WEFT_GELU_TANH;
  product(m);
}

static Matmul onto(const float* residual, const Dropout& dropout) {
  Matmul finish{};
  finish.epilogue = Epilogue::residual;
  finish.residual = residual;
  finish.dropout = dropout;
  return finish;
}

// The block's output, a.last or a.normed2 (output_of), may be x: generation runs all blocks in one set of arrays.
void weft_model::block_forward(int block, const float* x, const Activations& a, const Pass& pass) {
  const BlockParameters& p = at.blocks[block];
  const int C = config.n_embd, N = pass.tokens;

  if (pre_norm()) norm(a.normed1, a.mean1, a.rstd1, x, p.norm1, N);
  pass.linear(a.qkv, pre_norm() ? a.normed1 : x, p.qkv, C, 3 * C, {});
  pass.attend(block);
  pass.linear(a.middle, a.attended, p.projection, C, C, onto(x, dropout(2 + 3 * block)));

  float* const normed = pre_norm() ? a.normed2 : a.normed1;  // what enters the MLP
  if (pre_norm()) norm(normed, a.mean2, a.rstd2, a.middle, p.norm2, N);
  else norm(normed, a.mean1, a.rstd1, a.middle, p.norm1, N);
  Matmul gelu{};
  gelu.epilogue = Epilogue::gelu;
  gelu.slope = pass.keep_slopes ? a.slope : nullptr;
  pass.linear(a.hidden, normed, p.expand, C, 4 * C, gelu);
  pass.linear(a.last, a.hidden, p.contract, 4 * C, C, onto(pre_norm() ? a.middle : normed, dropout(3 + 3 * block)));
  if (!pre_norm()) norm(a.normed2, a.mean2, a.rstd2, a.last, p.norm2, N);
}

Pass weft_model::whole_sequences(bool keep_slopes) {
  const int N = tokens_in_call();
  return {N, keep_slopes,
          [this, N](float* out, const float* x, ParameterAt weight, int inputs, int outputs, const Matmul& finish) {
            linear(out, x, weight, inputs, outputs, N, finish);
          },
          [this](int block) {
            pool->run(rows * config.n_head, [&](int task, int slot) {
              kernels->attention_forward(attention_of(block, task), buffers.scratch[slot]);
            });
          }};
}

float* weft_model::output_of(int block) const {
  return pre_norm() ? buffers.blocks[block].last : buffers.blocks[block].normed2;
}

// Task b * H + h: row b, head h, without the backward pass's arrays.
Attention weft_model::attention_of(int block, int task) const {
  const int64_t C = config.n_embd, H = config.n_head, b = task / H, h = task % H;
  const Activations& act = buffers.blocks[block];
  Attention a{};
  a.queries = time;
  a.head_size = head_size();
  a.scale = 1 / std::sqrt(static_cast<float>(a.head_size));
  a.q = act.qkv + b * time * 3 * C + h * a.head_size;
  a.k = a.q + C;
  a.v = a.k + C;
  a.ld_q = a.ld_kv = 3 * C;
  a.out = act.attended + b * time * C + h * a.head_size;
  a.ld_out = C;
  a.log_sum = act.log_sum + static_cast<int64_t>(task) * time;
  a.bf16 = config.precision == WEFT_BF16;
  a.dropout = dropout(1 + 3 * block);
  a.dropout_first = static_cast<uint64_t>(task) * time * time;
  a.dropout_row = static_cast<uint64_t>(time);
  return a;
}

// Returns what enters the head (N, C), in a buffer of ours; null for bigram, whose table is read by logits_of.
const float* weft_model::forward(const int32_t* tokens, bool keep_slopes) {
  if (config.architecture == WEFT_TABLE) return nullptr;
  embed(tokens);
  const Pass pass = whole_sequences(keep_slopes);
  for (int l = 0; l < config.n_layer; l++) block_forward(l, input_of(l), buffers.blocks[l], pass);
  const float* out = output_of(config.n_layer - 1);
  if (!pre_norm()) return out;
  norm(buffers.final_normed, buffers.final_mean, buffers.final_rstd, out, at.final_norm, tokens_in_call());
  return buffers.final_normed;
}

// logits (row1 - row0, V) of rows [row0, row1) of hidden (N, C).
void weft_model::logits_of(float* logits, const float* hidden, const int32_t* tokens, int row0, int row1) {
  const int64_t V = config.vocab_size, C = config.n_embd;
  if (config.architecture == WEFT_TABLE) {
    for (int64_t r = row0; r < row1; r++) memcpy(logits + (r - row0) * V, weight(at.tokens) + tokens[r] * V, V * 4);
    return;
  }
  Matmul m{};
  m.M = row1 - row0, m.N = config.vocab_size, m.K = config.n_embd;
  m.a = hidden + row0 * C, m.lda = C;
  m.b = weight(at.head), m.ldb = C, m.b_transposed = true;
  m.c = logits, m.ldc = V;
  m.bf16 = config.precision == WEFT_BF16;
  product(m);
}

// Fills buffers.losses (N) with the cross-entropy of each target.
void weft_model::losses(const int32_t* tokens, const int32_t* targets) {
  const float* hidden = forward(tokens, false);
  const int N = tokens_in_call();
  for (int row0 = 0; row0 < N; row0 += head_rows()) {
    const int row1 = std::min(N, row0 + head_rows());
    logits_of(buffers.logits, hidden, tokens, row0, row1);
    cross_entropy(targets, row0, row1, 0);
  }
}

// Of the logits of rows [row0, row1) in buffers.logits; their gradient takes their place when scale is not 0.
void weft_model::cross_entropy(const int32_t* targets, int row0, int row1, float scale) {
  pool->run_ranges(row1 - row0, 1, 4, [&](size_t from, size_t to, int) {
    kernels->cross_entropy(buffers.logits, config.vocab_size, targets + row0, buffers.losses + row0, scale, scale != 0,
                           config.vocab_size, static_cast<int>(from), static_cast<int>(to));
  });
}
