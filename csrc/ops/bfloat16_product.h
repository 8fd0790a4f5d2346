// Products of bfloat16 matrices on CPUs that have an instruction for them: what linear and 1x1 convolutions run there.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "kernels/shapes.h"

namespace d2l {

// Whether a product of this CPU tensor runs in bfloat16; float32 copies are what other machines multiply.
bool has_bfloat16_product(const at::Tensor& tensor);

// output = activation(input weight^T + bias): matrices (rows, depth) and (columns, depth) with any strides and a depth
// over 0, and an output (rows, columns) whose rows are contiguous. The output may be of float32, and so may a weight
// that can_be_floats().
void bfloat16_product(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                      const at::Tensor& output, Activation activation);

// Whether a product rounds this weight (columns, depth) of float32, or its transpose, where it reads it: it is one that
// no cache holds, and so it is read once, without a copy.
bool can_be_floats(const at::Tensor& weight);

// A 1x1 convolution of all pixels, its channels multiplied by the matrix `weight` (output channels, input channels)
// with any strides. The output is dense in the layout, or in NHWC a range of the channels of a wider map; the input is
// copied unless it lies as the product reads it.
void bfloat16_pointwise(Layout layout, const at::Tensor& input, const at::Tensor& weight,
                        const std::optional<at::Tensor>& bias, const at::Tensor& output, Activation activation);

// Its weight gradient: a contiguous matrix, from maps of which the first decides how it is computed.
void bfloat16_pointwise_weight_grad(const at::Tensor& grad_output, const at::Tensor& input,
                                    const at::Tensor& grad_weight);

}  // namespace d2l
