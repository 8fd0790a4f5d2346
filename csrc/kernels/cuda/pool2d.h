// Launchers of 2-D pooling on CUDA devices, regular and adaptive alike (see Pool2dShape).
//
// Inputs, outputs, their gradients and the offsets are dense in `layout`. Offsets are uint8_t, or int32_t if
// `wide_offsets` (a window may hold more than 256 taps). bfloat16 and float16 averages are summed in float32.
// Gradients are gathered, not scattered: no atomics, deterministic.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/shapes.h"

namespace d2l::cuda {

// As in torch, a NaN in a window wins (the last one gives the offset), otherwise the first maximum does. `offsets` may
// be null when no gradient is wanted.
LaunchStatus max_pool2d(const Pool2dShape& shape, Layout layout, DType dtype, const void* input, void* output,
                        void* offsets, bool wide_offsets, Stream stream);

LaunchStatus max_pool2d_input_grad(const Pool2dShape& shape, Layout layout, DType dtype, const void* grad_output,
                                   const void* offsets, bool wide_offsets, void* grad_input, Stream stream);

// output[p,q] = the input at the remembered place: the transpose of max_pool2d_input_grad.
LaunchStatus max_pool2d_gather(const Pool2dShape& shape, Layout layout, DType dtype, const void* input,
                               const void* offsets, bool wide_offsets, void* output, Stream stream);

// indices[p,q] = h * W + w of the remembered place, as torch's return_indices gives it.
LaunchStatus max_pool2d_indices(const Pool2dShape& shape, Layout layout, const void* offsets, bool wide_offsets,
                                int64_t* indices, Stream stream);

LaunchStatus avg_pool2d(const Pool2dShape& shape, Layout layout, DType dtype, const void* input, void* output,
                        Stream stream);

LaunchStatus avg_pool2d_input_grad(const Pool2dShape& shape, Layout layout, DType dtype, const void* grad_output,
                                   void* grad_input, Stream stream);

}  // namespace d2l::cuda
