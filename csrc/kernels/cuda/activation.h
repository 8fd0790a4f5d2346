// Launchers of the activations and their gradients on CUDA devices. Elements lie side by side, in any order that all
// tensors share; 16-bit types are computed in float32 and rounded once. Not a number stays not a number.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/shapes.h"

namespace d2l::cuda {

// output[i] = activation(input[i]); input and output may be the same.
LaunchStatus activation(Activation activation, int64_t count, DType dtype, const void* input, void* output,
                        Stream stream);

// grad_input[i] = grad_output[i] * activation', which `output` tells. grad_input may be one of the others.
LaunchStatus activation_input_grad(Activation activation, int64_t count, DType dtype, const void* grad_output,
                                   const void* output, void* grad_input, Stream stream);

}  // namespace d2l::cuda
