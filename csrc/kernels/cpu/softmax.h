// Launchers of softmax and its logarithm on the CPU (see SoftmaxShape), for T = float and double. Tensors are
// contiguous. `is_log` chooses log softmax, whose output is x - max - log(sum).
#pragma once

#include "kernels/shapes.h"

namespace d2l::cpu {

template <typename T>
void softmax(const SoftmaxShape& shape, bool is_log, const T* input, T* output);

// From the output y: y * (dy - sum(dy * y)), or of the logarithm dy - exp(y) * sum(dy).
template <typename T>
void softmax_input_grad(const SoftmaxShape& shape, bool is_log, const T* grad_output, const T* output, T* grad_input);

}  // namespace d2l::cpu
