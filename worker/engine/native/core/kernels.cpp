// The fast kernels, compiled once for each instruction set (sources.txt) into a namespace of its own. Nothing of the
// standard library is instantiated here: the linker would keep one set's copy for all.
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 says it of its own intrinsics
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#define WEFT_STRING_OF(x) #x
#define WEFT_STRING(x) WEFT_STRING_OF(x)

namespace weft {
namespace WEFT_ISA {

#include "vec.h"

#include "matmul.h"

#include "attention.h"
#include "pointwise.h"

static size_t matmul_scratch() { return (size_t)K_BLOCK * (M_BLOCK + N_BLOCK) + 2 * NR; }

static void matmul(const Matmul& f, int row0, int row1, int column0, int column1, float* scratch) {
  if (f.bf16) matmul_as<Bf16>(f, row0, row1, column0, column1, scratch);
  else matmul_as<Float32>(f, row0, row1, column0, column1, scratch);
}

extern const Kernels kernels = {
    .name = WEFT_STRING(WEFT_ISA),
    .tile_rows = MR,
    .tile_columns = NR,
    .matmul_scratch = matmul_scratch,
    .attention_scratch = attention_scratch,
    .matmul = matmul,
    .attention_forward = attention_forward,
    .attention_step = attention_step,
    .attention_backward = attention_backward,
    .gemv = gemv,
    .gemv_transposed = gemv_transposed,
    .pack_row = pack_row,
    .pack_down = pack_down,
    .gelu = gelu,
    .norm_forward = norm_forward,
    .norm_backward = norm_backward,
    .cross_entropy = cross_entropy,
    .dropout = dropout,
    .column_sum = column_sum,
    .fold = fold,
    .add = add,
};

}  // namespace WEFT_ISA
}  // namespace weft
