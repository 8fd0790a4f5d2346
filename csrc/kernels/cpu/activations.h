// Launchers of the activations and their gradients on the CPU, for T = float and double. Elements lie side by side, in
// any order that all tensors share. Not a number stays not a number.
#pragma once

#include "kernels/shapes.h"

namespace d2l::cpu {

// output[i] = activation(input[i]); input and output may be the same.
template <typename T>
void activation(Activation activation, int64_t count, const T* input, T* output);

// grad_input[i] = grad_output[i] * activation', which `output` tells. grad_input may be one of the others.
template <typename T>
void activation_input_grad(Activation activation, int64_t count, const T* grad_output, const T* output, T* grad_input);

}  // namespace d2l::cpu
