// Launchers of softmax and its logarithm on CUDA devices (see SoftmaxShape). Tensors are contiguous; 16-bit types are
// computed in float32 and rounded once. `is_log` chooses log softmax. Deterministic: a row is one thread's or one
// warp's.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/shapes.h"

namespace d2l::cuda {

LaunchStatus softmax(const SoftmaxShape& shape, bool is_log, DType dtype, const void* input, void* output,
                     Stream stream);

// From the output y: y * (dy - sum(dy * y)), or of the logarithm dy - exp(y) * sum(dy).
LaunchStatus softmax_input_grad(const SoftmaxShape& shape, bool is_log, DType dtype, const void* grad_output,
                                const void* output, void* grad_input, Stream stream);

}  // namespace d2l::cuda
