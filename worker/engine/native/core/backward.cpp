// The backward pass: every gradient is written once, or added in a fixed order of rows, whatever the threads do.
// `gradient` is the flat vector (P) being written; d... are gradients of the mean loss at the activation named.
#include <algorithm>
#include <cstring>

#include "model.h"

using namespace weft;

// Returns the mean loss.
double weft_model::gradient(const int32_t* tokens, const int32_t* targets, float* gradient) {
  const float* hidden = forward(tokens, true);
  head_backward(hidden, tokens, targets, gradient);
  if (config.architecture != WEFT_TABLE) {
    const int last = config.n_layer - 1;
    if (pre_norm())
      norm_backward(buffers.dstream, false, buffers.dbranch, output_of(last), buffers.final_mean, buffers.final_rstd,
                    at.final_norm, gradient);
    for (int l = last; l >= 0; l--) {
      if (config.checkpoint_activations && l != last)
        block_forward(l, input_of(l), buffers.blocks[l], whole_sequences(true));
      block_backward(l, input_of(l), gradient);
    }
    embed_backward(tokens, gradient);
  }
  double sum = 0;
  for (int i = 0; i < tokens_in_call(); i++) sum += buffers.losses[i];
  return sum / tokens_in_call();
}

// Logits, loss, and the gradient at what entered the head: into dbranch when a final norm follows, else dstream.
void weft_model::head_backward(const float* hidden, const int32_t* tokens, const int32_t* targets, float* gradient) {
  const int N = tokens_in_call();
  const int64_t V = config.vocab_size, C = config.n_embd;
  float* const dhidden = pre_norm() ? buffers.dbranch : buffers.dstream;
  if (config.architecture == WEFT_TABLE) memset(gradient + at.tokens, 0, static_cast<size_t>(V * V) * sizeof(float));
  for (int row0 = 0; row0 < N; row0 += head_rows()) {
    const int row1 = std::min(N, row0 + head_rows());
    logits_of(buffers.logits, hidden, tokens, row0, row1);
    cross_entropy(targets, row0, row1, 1.0f / static_cast<float>(N));
    if (config.architecture == WEFT_TABLE) {
      scatter(gradient + at.tokens, buffers.logits, tokens + row0, row1 - row0, config.vocab_size);
      continue;
    }
    Matmul dx{};
    dx.M = row1 - row0, dx.N = config.n_embd, dx.K = config.vocab_size;
    dx.a = buffers.logits, dx.lda = V;
    dx.b = weight(at.head), dx.ldb = C;
    dx.c = dhidden + row0 * C, dx.ldc = C;
    dx.bf16 = config.precision == WEFT_BF16;
    product(dx);
    Matmul dw{};
    dw.M = config.vocab_size, dw.N = config.n_embd, dw.K = row1 - row0;
    dw.a = buffers.logits, dw.lda = V, dw.a_transposed = true;
    dw.b = hidden + row0 * C, dw.ldb = C;
    dw.c = gradient + at.head, dw.ldc = C;
    dw.accumulate = row0 > 0;
    dw.bf16 = dx.bf16;
    product(dw);
  }
}

// table[ids[i]] += x[i] for the rows of x (n, width), in order; tasks own columns.
void weft_model::scatter(float* table, const float* x, const int32_t* ids, int n, int width) {
  pool->run_ranges(width, 64, 2, [&](size_t from, size_t to, int) {
    for (int64_t i = 0; i < n; i++) {
      float* row = table + static_cast<int64_t>(ids[i]) * width;
      kernels->add(row + from, row + from, x + i * width + from, static_cast<int64_t>(to - from));
    }
  });
}

void weft_model::norm_backward(float* dx, bool add, const float* dout, const float* x, const float* mean,
                               const float* rstd, ParameterAt norm, float* gradient) {
  const int N = tokens_in_call(), C = config.n_embd, chunks = (N + norm_chunk - 1) / norm_chunk;
  const bool bias = norm.bias >= 0;
  pool->run(chunks, [&](int chunk, int) {
    float* part = buffers.norm_parts + static_cast<int64_t>(chunk) * 2 * C;
    kernels->norm_backward(dx, add, part, bias ? part + C : nullptr, dout, x, mean, rstd, weight(norm.weight), C,
                           chunk * norm_chunk, std::min(N, (chunk + 1) * norm_chunk));
  });
  kernels->fold(gradient + norm.weight, buffers.norm_parts, 2 * C, chunks, C);
  if (bias) kernels->fold(gradient + norm.bias, buffers.norm_parts + C, 2 * C, chunks, C);
}

// For y = x weight + bias: dx = dy weight^T finished as `finish` says, and the gradients of weight and bias.
void weft_model::linear_backward(float* dx, const float* dy, const float* x, ParameterAt weight_at, int inputs,
                                 int outputs, float* gradient, Matmul finish) {
  const int N = tokens_in_call();
  Matmul m = finish;
  m.M = N, m.N = inputs, m.K = outputs;
  m.a = dy, m.lda = outputs;
  m.b = weight(weight_at.weight), m.ldb = outputs, m.b_transposed = true;
  m.c = dx, m.ldc = inputs;
  m.bf16 = config.precision == WEFT_BF16;
  product(m);
  Matmul dw{};
  dw.M = inputs, dw.N = outputs, dw.K = N;
  dw.a = x, dw.lda = inputs, dw.a_transposed = true;
  dw.b = dy, dw.ldb = outputs;
  dw.c = gradient + weight_at.weight, dw.ldc = outputs;
  dw.bf16 = m.bf16;
  product(dw);
  if (weight_at.bias < 0) return;
  pool->run_ranges(outputs, 64, 2, [&](size_t from, size_t to, int) {
    kernels->column_sum(gradient + weight_at.bias, dy, outputs, N, static_cast<int>(from), static_cast<int>(to), false);
  });
}

// dstream holds the gradient at the block's output on entry, at its input x on return.
void weft_model::block_backward(int block, const float* x, float* gradient) {
  const BlockParameters& p = at.blocks[block];
  const Activations& a = buffers.blocks[block];
  const int N = tokens_in_call(), C = config.n_embd;
  float* const stream = buffers.dstream;
  // The stream's gradient behind the dropout that closed a branch.
  auto behind = [&](int site) -> const float* {
    const Dropout d = dropout(site);
    if (!d.on) return stream;
    add_dropout(buffers.dmasked, stream, static_cast<int64_t>(N) * C, d);
    return buffers.dmasked;
  };
  Matmul times_slope{}, onto_stream{};
  times_slope.epilogue = Epilogue::multiply;
  times_slope.slope = a.slope;
  onto_stream.accumulate = true;

  if (!pre_norm()) norm_backward(stream, false, stream, a.last, a.mean2, a.rstd2, p.norm2, gradient);
  linear_backward(buffers.dhidden, behind(3 + 3 * block), a.hidden, p.contract, 4 * C, C, gradient, times_slope);
  if (pre_norm()) {
    linear_backward(buffers.dbranch, buffers.dhidden, a.normed2, p.expand, C, 4 * C, gradient);
    norm_backward(stream, true, buffers.dbranch, a.middle, a.mean2, a.rstd2, p.norm2, gradient);
  } else {
    linear_backward(stream, buffers.dhidden, a.normed1, p.expand, C, 4 * C, gradient, onto_stream);
    norm_backward(stream, false, stream, a.middle, a.mean1, a.rstd1, p.norm1, gradient);
  }

  linear_backward(buffers.dbranch, behind(2 + 3 * block), a.attended, p.projection, C, C, gradient);
  pool->run(rows * config.n_head, [&](int task, int slot) {
    Attention f = attention_of(block, task);
    const int64_t first = f.q - a.qkv;
    f.dout = buffers.dbranch + (f.out - a.attended);
    f.dq = buffers.dqkv + first;
    f.dk = f.dq + C;
    f.dv = f.dk + C;
    f.ld_dqkv = 3 * C;
    kernels->attention_backward(f, buffers.scratch[slot]);
  });
  if (pre_norm()) {
    linear_backward(buffers.dbranch, buffers.dqkv, a.normed1, p.qkv, C, 3 * C, gradient);
    norm_backward(stream, true, buffers.dbranch, x, a.mean1, a.rstd1, p.norm1, gradient);
  } else {
    linear_backward(stream, buffers.dqkv, x, p.qkv, C, 3 * C, gradient, onto_stream);
  }
}

void weft_model::embed_backward(const int32_t* tokens, float* gradient) {
  const int N = tokens_in_call();
  const int64_t C = config.n_embd, V = config.vocab_size;
  float* const stream = buffers.dstream;
  if (const Dropout d = dropout(0); d.on) add_dropout(stream, stream, N * C, d);
  if (!config.tied_head) memset(gradient + at.tokens, 0, static_cast<size_t>(V * C) * sizeof(float));
  scatter(gradient + at.tokens, stream, tokens, N, config.n_embd);
  pool->run_ranges(time, 1, 4, [&](size_t from, size_t to, int) {
    for (size_t t = from; t < to; t++)
      kernels->fold(gradient + at.positions + t * C, stream + t * C, time * C, rows, config.n_embd);
  });
  memset(gradient + at.positions + time * C, 0, static_cast<size_t>(config.block_size - time) * C * sizeof(float));
}
