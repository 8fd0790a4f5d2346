// Matrix products of bfloat16 with the machine's own instructions: AVX512-BF16, or tiles of AMX.
//
//   c[i, j] = activation(bias + sum_k a[i, k] * b[k, j])
//
// Sums are in float32 and are rounded once. As the instruction does, subnormal factors and results count as zero.
#pragma once

#include "kernels/cpu/capability.h"
#include "kernels/shapes.h"

namespace d2l::cpu {

// The bits of bfloat16. The instruction multiplies pairs of values that follow one another along the depth. Either they
// lie side by side, every line begins at a pair and the depth is even; or lines are neighbours, and kernels pair them.
struct BFloat16Matrix {
  const uint16_t* data;
  int64_t line, depth;  // strides of its rows (of a) or columns (of b), and of the depth
  bool adjacent;        // whether `line` is 1, and not the stride of the depth
  int64_t image;        // from the matrix of an image to that of the next; 0 for one that all images share
  // Float32 values instead of data, rounded as they are read: of b, with an even depth unless it is adjacent.
  const float* floats = nullptr;
};

struct BFloat16Gemm {
  int64_t rows, columns, depth;
  BFloat16Matrix a, b;
  const float* bias;  // or null
  bool is_row_bias;   // [rows], else [columns]
  uint16_t* c;        // [images][rows][columns], or [rows][columns] if the products of all images are added up
  int64_t c_row;      // from a row of c to the next: more than columns only where there is one c
  float* exact;       // or null: where results go instead of c, not rounded
  Activation activation;
  int64_t images;
  bool adds_images;
};

// Whether the machine has them; false where a lower capability than avx512 was asked for.
bool has_bfloat16_gemm();

// Calls a kernel of a *_bfloat16_kernel.cpp, where has_bfloat16_gemm().
#define D2L_CALL_BFLOAT16(function, ...)                           \
  do {                                                             \
    if (::d2l::cpu::capability() == ::d2l::cpu::Capability::amx) { \
      ::d2l::cpu::amx::function(__VA_ARGS__);                      \
    } else {                                                       \
      ::d2l::cpu::avx512_bfloat16::function(__VA_ARGS__);          \
    }                                                              \
  } while (false)

void gemm(const BFloat16Gemm& problem);

}  // namespace d2l::cpu
