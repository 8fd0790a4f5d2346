// The derivative ops of activations, for the ops that end with one.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

#include "kernels/shapes.h"

namespace d2l {

// "none", "relu", "sigmoid" or "tanh", as schemas have it.
Activation activation_of(const char* op, std::string_view name);

// grad_output * activation'(output), through the dispatcher: differentiable.
at::Tensor activation_input_grad(Activation activation, const at::Tensor& grad_output, const at::Tensor& output);

}  // namespace d2l
