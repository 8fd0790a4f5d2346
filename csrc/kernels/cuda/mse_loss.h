// Launchers of the squared error on CUDA devices. Elements lie side by side, in an order that all tensors share; 16-bit
// types are computed in float32 and rounded once. Sums are made in two stages, in an order that the count alone
// decides: no atomics, deterministic.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/shapes.h"

namespace d2l::cuda {

// Bytes of workspace for the sums.
int64_t mse_loss_workspace();

// `loss`: (input - target)^2 of each element, or the sum or mean of them.
LaunchStatus mse_loss(int64_t count, Reduction reduction, DType dtype, const void* input, const void* target,
                      void* loss, void* workspace, Stream stream);

LaunchStatus mse_loss_input_grad(int64_t count, Reduction reduction, DType dtype, const void* grad_output,
                                 const void* input, const void* target, void* grad_input, Stream stream);

}  // namespace d2l::cuda
