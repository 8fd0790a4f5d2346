// Launchers of softmax and its logarithm on the CPU (see SoftmaxShape), for E = float, double and BFloat16.
// Tensors are contiguous. `is_log` chooses log softmax, whose output is x - max - log(sum).
#pragma once

#include "kernels/cpu/element.h"
#include "kernels/shapes.h"

namespace d2l::cpu {

template <typename E>
void softmax(const SoftmaxShape& shape, bool is_log, const E* input, E* output);

// From the output y: y * (dy - sum(dy * y)), or of the logarithm dy - exp(y) * sum(dy).
template <typename E>
void softmax_input_grad(const SoftmaxShape& shape, bool is_log, const E* grad_output, const E* output, E* grad_input);

}  // namespace d2l::cpu
