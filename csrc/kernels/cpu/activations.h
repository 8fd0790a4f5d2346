// Launchers of the activations and their gradients on the CPU, for E = float, double and BFloat16. Elements lie side by
// side, in any order that all tensors share. Not a number stays not a number.
#pragma once

#include "kernels/cpu/element.h"
#include "kernels/shapes.h"

namespace d2l::cpu {

// output[i] = activation(input[i]); input and output may be the same.
template <typename E>
void activation(Activation activation, int64_t count, const E* input, E* output);

// grad_input[i] = grad_output[i] * activation', which `output` tells. grad_input may be one of the others.
template <typename E>
void activation_input_grad(Activation activation, int64_t count, const E* grad_output, const E* output, E* grad_input);

}  // namespace d2l::cpu
