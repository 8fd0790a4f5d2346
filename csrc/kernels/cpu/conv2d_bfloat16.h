// Launchers of convolutions of bfloat16 maps in NHWC that multiply pairs of channels with the machine's own instruction
// (AVX512-BF16): twice the multiplications of float32. Sums are in float32 and rounded once; as the instruction does,
// subnormal factors count as zero. The arguments are those of conv2d.h, but weights are pairs, as the sums go over
// them: of input channels in the forward pass, of output channels in the input gradient. Their strides are in pairs,
// and so is the axis that is summed over.
#pragma once

#include "kernels/cpu/conv2d.h"

namespace d2l::cpu {

// Two values that follow one another along the axis that is summed over, the first in the lower half.
using BFloat16Pair = uint32_t;

// Pairs of neighbouring rows of `values` values each: to[p * values + i] = from[2 p, i] and from[2 p + 1, i].
void pair_rows(const BFloat16* from, int64_t pairs, int64_t values, BFloat16Pair* to);

// Whether these kernels take the shape and are the fastest for it. 1x1 convolutions of all pixels are matrix products
// (gemm_bfloat16.h).
bool conv2d_takes_pairs(const Conv2dShape& shape, Layout layout, Conv2dPass pass);

// Whether the forward pass multiplies pairs of rows instead, with tiles: of odd channels.
bool conv2d_takes_row_pairs(const Conv2dShape& shape, Layout layout);

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
