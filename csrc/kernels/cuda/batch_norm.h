// Launchers of batch normalisation on CUDA devices (see BatchNormShape).
//
// Maps are dense in `layout`. Weight, bias and their gradients are float32, or float64 for float64 maps. Statistics are
// float64 for float32 and float64 maps (a mean in float32 would be off by a part of the standard deviation where the
// mean is much larger), float32 for 16-bit ones. `weight` may be null (ones), `bias` too (zeros). Sums are made in two
// stages, in an order that depends on the shape alone: no atomics, deterministic.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/shapes.h"

namespace d2l::cuda {

// Bytes of workspace that the launchers with sums need.
int64_t batch_norm_workspace(const BatchNormShape& shape, Layout layout, DType dtype);

// With the statistics of the input, which it returns. There must be at least one value per channel.
LaunchStatus batch_norm_train(const BatchNormShape& shape, Layout layout, DType dtype, double eps, const void* input,
                              const void* weight, const void* bias, void* output, void* mean, void* var,
                              void* workspace, Stream stream);

// With given statistics: of the type above, or float32 for float32 maps if not `wide_statistics`.
LaunchStatus batch_norm_infer(const BatchNormShape& shape, Layout layout, DType dtype, double eps, const void* input,
                              const void* mean, const void* var, bool wide_statistics, const void* weight,
                              const void* bias, void* output, Stream stream);

// The gradients of batch_norm_train; mean and var are what it returned.
LaunchStatus batch_norm_train_grad(const BatchNormShape& shape, Layout layout, DType dtype, double eps,
                                   const void* grad_output, const void* input, const void* weight, const void* mean,
                                   const void* var, void* grad_input, void* grad_weight, void* grad_bias,
                                   void* workspace, Stream stream);

// The gradients of either for weight and bias alone.
LaunchStatus batch_norm_weight_grad(const BatchNormShape& shape, Layout layout, DType dtype, double eps,
                                    const void* grad_output, const void* input, const void* mean, const void* var,
                                    void* grad_weight, void* grad_bias, void* workspace, Stream stream);

}  // namespace d2l::cuda
