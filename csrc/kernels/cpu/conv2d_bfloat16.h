// Which kernels run a pass over bfloat16 maps, and the launchers of those that multiply pairs, of channels in NHWC,
// with the machine's own instruction (AVX512-BF16): twice the multiplications of float32. Sums are in float32 and
// rounded once; as the instruction does, subnormal factors count as zero. The arguments are those of conv2d.h, but
// weights are pairs, as the sums go over them: of input channels in the forward pass, of output channels in the input
// gradient. Their strides are in pairs, and so is the axis that is summed over.
#pragma once

#include "kernels/cpu/conv2d.h"

namespace d2l::cpu {

// Two values that follow one another along the axis that is summed over, the first in the lower half.
using BFloat16Pair = uint32_t;

// Pairs of neighbouring rows of `values` values each: to[p * values + i] = from[2 p, i] and from[2 p + 1, i].
void pair_rows(const BFloat16* from, int64_t pairs, int64_t values, BFloat16Pair* to);

enum class BFloat16Kernel {
  none,       // those of float, on copies
  product,    // a 1x1 convolution of all pixels: a matrix product (gemm_bfloat16.h)
  elements,   // those of conv2d.h for BFloat16
  pairs,      // the forward pass and the input gradient, below
  row_pairs,  // the forward pass, of odd channels: pairs of rows
};

// The fastest that takes the shape and its pixel strides.
BFloat16Kernel bfloat16_kernel(const Conv2dShape& shape, Layout layout, Conv2dPass pass);

// The weight and its strides are in values.
void conv2d_row_pairs(const Conv2dShape& shape, Layout layout, const BFloat16* input, const BFloat16* weight,
                      WeightStrides weight_strides, const float* bias /* [K] or null */, BFloat16* output,
                      Activation activation);

void conv2d_pairs(const Conv2dShape& shape, const BFloat16* input, const BFloat16Pair* weight,
                  WeightStrides weight_strides, const float* bias /* [K] or null */, BFloat16* output,
                  Activation activation);

void conv2d_input_grad_pairs(const Conv2dShape& shape, const BFloat16* grad_output, const BFloat16Pair* weight,
                             WeightStrides weight_strides, BFloat16* grad_input);

// The same, of the weight itself: its input channels are contiguous, and strides are in values.
void conv2d_input_grad_pairs(const Conv2dShape& shape, const BFloat16* grad_output, const BFloat16* weight,
                             WeightStrides weight_strides, BFloat16* grad_input);

}  // namespace d2l::cpu
