// Matrix products of bfloat16 with the machine's own instruction (AVX512-BF16): twice the multiplications of float32.
//
//   c[i, j] = activation(bias[j] + sum_k a[i, k] * b[k, j])
//
// Sums are in float32 and are rounded once. As the instruction does, subnormal factors and results count as zero.
#pragma once

#include "kernels/shapes.h"

namespace d2l::cpu {

// Two values that follow one another along the depth, the first in the lower half.
using BFloat16Pair = uint32_t;

struct BFloat16Gemm {
  int64_t rows, columns, depth;  // the depth in pairs, and the strides of a and b in pairs, too
  const BFloat16Pair* a;
  int64_t a_row, a_depth;  // one of the two is 1
  const BFloat16Pair* b;
  int64_t b_depth, b_column;  // likewise
  const float* bias;          // [columns] or null
  uint16_t* c;                // [rows][columns], the bits of bfloat16
  Activation activation;
};

// Whether the machine has it; false where a lower capability than avx512 was asked for.
bool has_bfloat16_gemm();

void gemm(const BFloat16Gemm& problem);

// to[d * rows + i] = from[2 d, i] and from[2 d + 1, i], for a matrix whose rows of `rows` values lie `stride` values
// apart; an odd depth is filled up with a zero.
void pair_neighbours(const uint16_t* from, int64_t stride, int64_t rows, int64_t depth, BFloat16Pair* to);

}  // namespace d2l::cpu
