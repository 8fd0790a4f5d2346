// Launchers of the squared error on the CPU, for T = float and double. Elements lie side by side, in an order that all
// tensors share. Sums are made in T over a few hundred elements and joined in double, in an order that the count alone
// decides: results do not depend on the number of threads.
#pragma once

#include "kernels/shapes.h"

namespace d2l::cpu {

// losses[i] = (input[i] - target[i])^2
template <typename T>
void squared_error(int64_t count, const T* input, const T* target, T* losses);

// The sum of them.
template <typename T>
double sum_of_squared_error(int64_t count, const T* input, const T* target);

// grad_input[i] = 2 * scale * grad_output[i * grad_stride] * (input[i] - target[i]), where grad_stride is 0 or 1.
template <typename T>
void squared_error_grad(int64_t count, const T* grad_output, int64_t grad_stride, T scale, const T* input,
                        const T* target, T* grad_input);

}  // namespace d2l::cpu
