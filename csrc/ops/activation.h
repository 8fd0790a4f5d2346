// The derivative ops of activations, for the ops that end with one.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>
#include <tuple>

#include "kernels/shapes.h"

namespace d2l {

// "none", "relu", "sigmoid" or "tanh", as schemas have it.
Activation activation_of(const char* op, std::string_view name);

// activation(input), through the dispatcher: differentiable.
at::Tensor activated(Activation activation, const at::Tensor& input);

// grad_output * activation'(output), through the dispatcher: differentiable.
at::Tensor activation_input_grad(Activation activation, const at::Tensor& grad_output, const at::Tensor& output);

// The gradients of what an activation of that name was applied to and of the bias that was added before, which is
// undefined unless it is needed. Through the dispatcher: differentiable. `output` is not read where there is none.
// For a backward, which does not read `grad` again: see common/reuse.h.
std::tuple<at::Tensor, at::Tensor> activation_grads(std::string_view name, bool needs_bias_grad, const at::Tensor& grad,
                                                    const at::Tensor& output);

}  // namespace d2l
