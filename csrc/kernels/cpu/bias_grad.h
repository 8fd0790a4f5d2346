// Launchers of the gradient of a bias on the CPU (see BiasGradShape), for T = float and double.
//
// Maps are dense in `layout`. Sums are made in T over at most a few hundred values and joined in double, in an order
// that the shape alone decides: results do not depend on the number of threads.
#pragma once

#include "kernels/shapes.h"

namespace d2l::cpu {

// grad_bias alone, where no activation follows the bias.
template <typename T>
void bias_grad(const BiasGradShape& shape, Layout layout, const T* grad_output, T* grad_bias);

// grad_pre and grad_bias in one pass; `output` is that of the activation. grad_pre may be grad_output.
template <typename T>
void activation_bias_grad(const BiasGradShape& shape, Layout layout, Activation activation, const T* grad_output,
                          const T* output, T* grad_pre, T* grad_bias);

}  // namespace d2l::cpu
