// The passes of a convolution of CPU tensors, with arguments that are checked and results that have their memory. Maps
// in channels_last may be ranges of the channels of wider ones, which are read and written in place; inputs in another
// order than that of the format are copied.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/MemoryFormat.h>

#include <optional>

#include "kernels/cpu/conv2d.h"
#include "kernels/shapes.h"

namespace d2l {

inline cpu::WeightStrides weight_strides(const at::Tensor& weight) {
  return {weight.stride(0), weight.stride(1), weight.stride(2), weight.stride(3)};
}

// activation(conv2d(...))
void conv2d_on_cpu(Conv2dShape shape, at::MemoryFormat format, const at::Tensor& input, const at::Tensor& weight,
                   const std::optional<at::Tensor>& bias, Activation activation, const at::Tensor& output);

void conv2d_input_grad_on_cpu(Conv2dShape shape, at::MemoryFormat format, const at::Tensor& grad_output,
                              const at::Tensor& weight, const at::Tensor& grad_input);

// grad_weight is dense.
void conv2d_weight_grad_on_cpu(Conv2dShape shape, at::MemoryFormat format, const at::Tensor& grad_output,
                               const at::Tensor& input, const at::Tensor& grad_weight);

}  // namespace d2l
