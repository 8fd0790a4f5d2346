// Convolutions of bfloat16 maps on the CPU whose kernels read and write them as they are: with pairs of channels where
// the machine multiplies them (kernels/cpu/conv2d_bfloat16.h), else widened and rounded a strip at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/cpu/conv2d_algorithm.h"

namespace d2l {

// Whether there is such a kernel for a pass over maps of this dtype, and it is faster than float32 copies.
bool has_bfloat16_convolution(const Conv2dShape& shape, at::MemoryFormat format, cpu::Conv2dPass pass,
                              const at::Tensor& map);

// Maps are in the format, dense but for the pixel strides of the shape.
void bfloat16_conv2d(const Conv2dShape& shape, at::MemoryFormat format, const at::Tensor& input,
                     const at::Tensor& weight, const std::optional<at::Tensor>& bias, const at::Tensor& output,
                     Activation activation);
void bfloat16_conv2d_input_grad(const Conv2dShape& shape, at::MemoryFormat format, const at::Tensor& grad_output,
                                const at::Tensor& weight, const at::Tensor& grad_input);

}  // namespace d2l
