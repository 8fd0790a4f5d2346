// Launchers of batch normalisation on the CPU (see BatchNormShape), for T = float and double.
//
// Maps are dense in `layout`. What there is one of per channel is double, whatever T: a mean in float32 would be off by
// a part of the standard deviation where the mean is much larger. `weight` may be null (ones), `bias` too (zeros).
// Results do not depend on the number of threads.
#pragma once

#include "kernels/shapes.h"

namespace d2l::cpu {

// With the statistics of the input, which it returns; those of no values are zero.
template <typename T>
void batch_norm_train(const BatchNormShape& shape, Layout layout, double eps, const T* input, const double* weight,
                      const double* bias, T* output, double* mean, double* var);

// With given statistics.
template <typename T>
void batch_norm_infer(const BatchNormShape& shape, Layout layout, double eps, const T* input, const double* mean,
                      const double* var, const double* weight, const double* bias, T* output);

// The gradients of batch_norm_train; mean and var are what it returned.
template <typename T>
void batch_norm_train_grad(const BatchNormShape& shape, Layout layout, double eps, const T* grad_output, const T* input,
                           const double* weight, const double* mean, const double* var, T* grad_input,
                           double* grad_weight, double* grad_bias);

// The gradients of either for weight and bias alone.
template <typename T>
void batch_norm_weight_grad(const BatchNormShape& shape, Layout layout, double eps, const T* grad_output,
                            const T* input, const double* mean, const double* var, double* grad_weight,
                            double* grad_bias);

}  // namespace d2l::cpu
