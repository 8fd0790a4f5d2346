// Convolutions of bfloat16 maps on the CPU whose kernels read and write them as they are
// (kernels/cpu/conv2d_bfloat16.h).
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/cpu/conv2d_bfloat16.h"

namespace d2l {

// By a kernel that is not none. Maps are in the layout, dense but for the pixel strides of the shape.
void bfloat16_conv2d(cpu::BFloat16Kernel kernel, const Conv2dShape& shape, Layout layout, const at::Tensor& input,
                     const at::Tensor& weight, const std::optional<at::Tensor>& bias, const at::Tensor& output,
                     Activation activation);
void bfloat16_conv2d_input_grad(cpu::BFloat16Kernel kernel, const Conv2dShape& shape, Layout layout,
                                const at::Tensor& grad_output, const at::Tensor& weight, const at::Tensor& grad_input);
void bfloat16_conv2d_weight_grad(cpu::BFloat16Kernel kernel, const Conv2dShape& shape, Layout layout,
                                 const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& grad_weight);

}  // namespace d2l
