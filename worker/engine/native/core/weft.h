// The native engine's public interface: the whole forward and backward pass of one GPT in plain C, no Node inside.
// The header is the documentation: shapes, ownership and sources stand at each function.
//
// Letters: B rows (sequences), T time, N = B * T, C width, V vocabulary, H heads, L layers, P parameters.
// Memory: every array is dense, row-major and owned by the caller; float arrays need only their natural alignment.
// Inputs and outputs never overlap. All arrays of a model are planned in *_create; calls allocate none.
// Threads: a call blocks until it is done; calls on one model (or its generations) must not overlap in time.
// Same bits: results do not depend on the number of threads, only on the arithmetic (weft_arithmetic).
// Denormals: calls flush them to zero on the threads that compute and put each thread's mode back afterwards.
// Errors: functions return NULL when they succeed, else one sentence for people, valid until the model's next call.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// ---- model (model.cpp) ----

// Architecture in shared/family/family.ts.
enum weft_architecture { WEFT_TABLE = 0, WEFT_POST_NORM = 1, WEFT_PRE_NORM = 2 };
enum weft_activation { WEFT_GELU = 0, WEFT_GELU_TANH = 1 };
enum weft_precision { WEFT_FLOAT32 = 0, WEFT_BF16 = 1 };

// What shared/model.ts describes, field by field, and how to run it.
typedef struct weft_config {
  int32_t architecture;  // weft_architecture
  int32_t vocab_size;  // V
  int32_t block_size;  // most T of a call, and rows of the position embedding
  int32_t n_layer;     // L
  int32_t n_head;      // H, divides C
  int32_t n_embd;      // C
  int32_t bias;        // linear layers and norms have biases
  int32_t activation;  // weft_activation
  int32_t tied_head;   // the head shares the token embedding
  int32_t max_rows;    // most B of a call
  int32_t precision;   // weft_precision: of the inputs of matrix products; all else is float32
  int32_t checkpoint_activations;  // keep block inputs only, recompute the rest in the backward pass
  double dropout;                  // probability, [0, 1)
  double layer_norm_eps;
  int32_t threads;  // of the model's own pool, the caller counted: at least 1
  const char* isa;  // name for isa_choose (isa.h); null or "auto": the fastest that runs here
} weft_config;

// One parameter tensor of the flat vector, as layoutOf() in shared/family/layout.ts has it. The core finds each tensor by
// its key and refuses an unexpected size, a key that is missing, and one that it has no use for.
typedef struct weft_parameter {
  int64_t offset;   // first element, in floats
  int64_t size;     // elements
  const char* key;  // ParameterKey in shared/family/family.ts: "tokens.weight", "3.qkv.bias"
} weft_parameter;

typedef struct weft_model weft_model;

// Bytes a model with this configuration plans for activations and scratch; weights and gradients, which the caller
// owns, are not counted. -1 when weft_model_create would refuse the configuration.
int64_t weft_planned_bytes(const weft_config* config);

// Copies what it needs of its arguments. On failure returns NULL and writes a sentence to error (error_size bytes).
weft_model* weft_model_create(const weft_config* config, const weft_parameter* parameters, size_t parameter_count,
                              char* error, size_t error_size);
void weft_model_destroy(weft_model* model);

// What decides the last bits, such as "avx512 float32" or "avx512 bf16"; lives as long as the model.
const char* weft_arithmetic(const weft_model* model);

// Where a shard stands in the run: with the seed it determines every dropout mask (dropoutMask in shared/arithmetic/philox.ts).
typedef struct weft_position {
  uint32_t key0, key1;  // keyOf(seed, stream.dropout)
  uint32_t step, shard;
} weft_position;

// Mean cross-entropy in nats over the N targets, and its gradient; dropout is on when the configuration has any.
//   weights (P), tokens (B, T), targets (B, T); gradient (P) is overwritten. 1 <= B <= max_rows, 1 <= T <= block_size.
const char* weft_gradient(weft_model* model, const float* weights, const int32_t* tokens, const int32_t* targets,
                          int rows, int time, const weft_position* at, float* gradient, double* loss);

// Mean cross-entropy in nats of each row, without dropout. losses (B) is overwritten.
const char* weft_losses(weft_model* model, const float* weights, const int32_t* tokens, const int32_t* targets,
                        int rows, int time, float* losses);

// Logits of every position, without dropout. logits (B, T, V) is overwritten.
const char* weft_logits(weft_model* model, const float* weights, const int32_t* tokens, int rows, int time,
                        float* logits);

// What enters the head, after the final norm where the family has one. hidden (B, T, C) is overwritten.
const char* weft_hidden(weft_model* model, const float* weights, const int32_t* tokens, int rows, int time,
                        float* hidden);

// ---- local training ----

// Neighbouring elements of the weights that decay, or do not.
typedef struct weft_stretch {
  int64_t offset, size;
  int32_t decay;
} weft_stretch;

// One update of AdamW: adamwScalars of shared/arithmetic/vector.ts with weight decay and without; their first element, the
// gradient's scale, is worked out from the norm.
typedef struct weft_adamw {
  float decayed[9], plain[9];
  double clip;    // largest norm of the mean gradient; 0: any
  int32_t units;  // sum is over so many, a power of two
} weft_adamw;

// AdamW in place on the model's threads; weights, m, v, sum: (P). Same bits as the vector arithmetic of the coordinator,
// denormals kept. norm: of the mean gradient before the clip.
const char* weft_adamw_update(weft_model* model, float* weights, float* m, float* v, const float* sum,
                              const weft_stretch* stretches, size_t count, const weft_adamw* update, double* norm);

// ---- generation (generation.cpp) ----

typedef struct weft_generation weft_generation;

// Bytes weft_generation_create will allocate for `rows` sequences of block_size tokens.
int64_t weft_generation_bytes(const weft_model* model, int rows);

// Sequences that grow token by token, keys and values cached. weights (P) is borrowed: it must stay in place, with the
// same values, until the generation is destroyed (bf16 takes a copy of its own). The model must outlive it.
// On failure returns NULL and writes a sentence to error.
weft_generation* weft_generation_create(weft_model* model, const float* weights, int rows, char* error,
                                        size_t error_size);
void weft_generation_destroy(weft_generation* generation);

// Append counts[r] tokens to each row r; `tokens` holds them one row after another, sum(counts) in all.
//   logits (rows, V) is overwritten: those after the last token of each row, all zero for a row that holds none.
const char* weft_generation_feed(weft_generation* generation, const int32_t* tokens, const int32_t* counts,
                                 float* logits);
// Row r goes on from what row from[r] held; from (rows).
const char* weft_generation_reorder(weft_generation* generation, const int32_t* from);
// Forget what one row held.
const char* weft_generation_clear(weft_generation* generation, int row);

#ifdef __cplusplus
}
#endif
