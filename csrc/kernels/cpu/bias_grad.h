// Launchers of the gradient of a bias on the CPU (see BiasGradShape), for E = float, double and BFloat16.
//
// Maps are dense in `layout`. Sums are made in computed_t<E> over at most a few hundred values and joined in double, in
// an order that the shape alone decides: results do not depend on the number of threads.
#pragma once

#include "kernels/cpu/element.h"
#include "kernels/shapes.h"

namespace d2l::cpu {

// grad_bias alone, where no activation follows the bias.
template <typename E>
void bias_grad(const BiasGradShape& shape, Layout layout, const E* grad_output, computed_t<E>* grad_bias);

// grad_pre and grad_bias in one pass; `output` is that of the activation. grad_pre may be grad_output.
template <typename E>
void activation_bias_grad(const BiasGradShape& shape, Layout layout, Activation activation, const E* grad_output,
                          const E* output, E* grad_pre, computed_t<E>* grad_bias);

}  // namespace d2l::cpu
