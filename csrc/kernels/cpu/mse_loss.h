// Launchers of the squared error on the CPU, for E = float, double and BFloat16. Elements lie side by side, in an order
// that all tensors share. Sums are made in computed_t<E> over a few hundred elements and joined in double, in an order
// that the count alone decides: results do not depend on the number of threads.
#pragma once

#include "kernels/cpu/element.h"
#include "kernels/shapes.h"

namespace d2l::cpu {

// losses[i] = (input[i] - target[i])^2
template <typename E>
void squared_error(int64_t count, const E* input, const E* target, E* losses);

// The sum of them.
template <typename E>
double sum_of_squared_error(int64_t count, const E* input, const E* target);

// grad_input[i] = 2 * scale * grad_output[i * grad_stride] * (input[i] - target[i]), where grad_stride is 0 or 1.
template <typename E>
void squared_error_grad(int64_t count, const E* grad_output, int64_t grad_stride, computed_t<E> scale, const E* input,
                        const E* target, E* grad_input);

}  // namespace d2l::cpu
