// Launchers of cross-entropy on CUDA devices (see CrossEntropyShape). Tensors are contiguous; `weight` may be null
// (ones) and has the type of the input. `statistics`, `losses` and total_weight are float32, or float64 for float64
// input. No atomics, deterministic.
//
// A target that is neither a class nor ignore_index is treated as ignored: nothing is read or written out of bounds.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/shapes.h"

namespace d2l::cuda {

// `loss` has the type of the input: one for each row, or one in all. `statistics` [2, N, pixels] holds the maximum of
// each row and the logarithm of its sum of exp(x - max). `losses` and `weights` have one element a row, for the sums.
LaunchStatus cross_entropy(const CrossEntropyShape& shape, Reduction reduction, DType dtype, const void* input,
                           const int64_t* target, const void* weight, void* losses, void* weights, void* statistics,
                           void* loss, void* total_weight, Stream stream);

LaunchStatus cross_entropy_input_grad(const CrossEntropyShape& shape, Reduction reduction, DType dtype,
                                      const void* grad_output, const void* input, const int64_t* target,
                                      const void* weight, const void* statistics, const void* total_weight,
                                      void* grad_input, Stream stream);

}  // namespace d2l::cuda
