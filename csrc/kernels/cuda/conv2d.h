// Launchers of the 2-D cross-correlation on CUDA devices and of its two derivatives.
//
// All tensors are dense with channels innermost: input [N,H,W,C], output [N,P,Q,K], weight [K,R,S,C/groups]; input and
// output may also be ranges of the channels of wider maps (see Conv2dShape).
// bfloat16 and float16 are summed in float32 and rounded once. Results are deterministic.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/shapes.h"

namespace d2l::cuda {

LaunchStatus conv2d(const Conv2dShape& shape, DType dtype, Float32Precision precision, const void* input,
                    const void* weight, const void* bias /* [K] or null */, void* output, Stream stream,
                    Activation activation = Activation::none);

// The same, and the mean and the variance (the mean squared deviation) of each channel of what is stored, of the types
// of batch_norm.h. The output is dense and has at least one value.
int64_t conv2d_moments_workspace(const Conv2dShape& shape, DType dtype);  // bytes

LaunchStatus conv2d_moments(const Conv2dShape& shape, DType dtype, Float32Precision precision, const void* input,
                            const void* weight, const void* bias, void* output, void* mean, void* var, void* workspace,
                            Stream stream);

LaunchStatus conv2d_input_grad(const Conv2dShape& shape, DType dtype, Float32Precision precision,
                               const void* grad_output, const void* weight, void* grad_input, Stream stream);

// Bytes of workspace that conv2d_weight_grad needs (partial sums, reduced in a fixed order); 0 if none.
int64_t conv2d_weight_grad_workspace(const Conv2dShape& shape, DType dtype);

LaunchStatus conv2d_weight_grad(const Conv2dShape& shape, DType dtype, Float32Precision precision,
                                const void* grad_output, const void* input, void* grad_weight, void* workspace,
                                Stream stream);

}  // namespace d2l::cuda
