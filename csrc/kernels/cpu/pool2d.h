// Launchers of 2-D pooling on the CPU, regular and adaptive alike (see Pool2dShape). E is the type of the
// elements (see element.h); Offset is uint8_t, or int32_t where a window may hold more than 256 taps.
//
// Inputs, outputs, their gradients and the offsets are dense in `layout`. Outputs may hold anything on entry.
#pragma once

#include "kernels/cpu/element.h"
#include "kernels/shapes.h"

namespace d2l::cpu {

// Maximum. As in torch, a NaN in a window wins (the last one gives the offset), otherwise the first maximum does.
// `offsets` may be null when no gradient is wanted.
template <typename E, typename Offset>
void max_pool2d(const Pool2dShape& shape, Layout layout, const E* input, E* output, Offset* offsets);

// grad_input[h,w] = sum of grad_output over the windows whose maximum lies at (h, w); summed in a fixed order.
template <typename E, typename Offset>
void max_pool2d_input_grad(const Pool2dShape& shape, Layout layout, const E* grad_output, const Offset* offsets,
                           E* grad_input);

// output[p,q] = the input at the remembered place: the transpose of max_pool2d_input_grad.
template <typename E, typename Offset>
void max_pool2d_gather(const Pool2dShape& shape, Layout layout, const E* input, const Offset* offsets, E* output);

// indices[p,q] = h * W + w of the remembered place, as torch's return_indices gives it.
template <typename Offset>
void max_pool2d_indices(const Pool2dShape& shape, Layout layout, const Offset* offsets, int64_t* indices);

template <typename E>
void avg_pool2d(const Pool2dShape& shape, Layout layout, const E* input, E* output);

template <typename E>
void avg_pool2d_input_grad(const Pool2dShape& shape, Layout layout, const E* grad_output, E* grad_input);

}  // namespace d2l::cpu
