// Matrix products on the CPU. T is float or double.
//
//   c[i, j] = activation(bias[j] + sum_k a[i, k] * b[k, j])
//
// Serves linear and 1x1 convolutions with all their derivatives: operands have a stride per axis, so that a transposed
// matrix is a matrix with its strides swapped. Results are the same for every run with the same number of threads.
#pragma once

#include "kernels/cpu/progress.h"
#include "kernels/shapes.h"

namespace d2l::cpu {

template <typename T>
struct Gemm {
  int64_t rows, columns, depth;
  const T* a;
  int64_t a_row, a_depth;  // element strides; one of the two is 1
  const T* b;
  int64_t b_depth, b_column;  // likewise
  const T* bias;              // [columns] or null
  T* c;
  int64_t c_row;  // columns of c are adjacent
  Activation activation;
  Progress progress = {};  // of c: a pixel is a row
};

// c may hold anything on entry, and elements between its rows are left alone.
template <typename T>
void gemm(const Gemm<T>& problem);

// Whether float32 is multiplied by parts in tiles of AMX, which are faster than multiply-adds (see float_parts.h).
template <typename T>
bool gemm_suits_parts(const Gemm<T>& problem);

}  // namespace d2l::cpu
