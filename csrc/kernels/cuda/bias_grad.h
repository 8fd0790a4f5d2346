// Launchers of the gradient of a bias on CUDA devices (see BiasGradShape).
//
// Maps are dense in `layout`; grad_bias has their type. Sums are made in two stages, in an order that depends on the
// shape alone: no atomics, deterministic.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/shapes.h"

namespace d2l::cuda {

// Bytes of workspace.
int64_t bias_grad_workspace(const BiasGradShape& shape, Layout layout);

// grad_bias, and with an activation grad_pre; without one (Activation::none), `output` and `grad_pre` are not used.
LaunchStatus activation_bias_grad(const BiasGradShape& shape, Layout layout, Activation activation, DType dtype,
                                  const void* grad_output, const void* output, void* grad_pre, void* grad_bias,
                                  void* workspace, Stream stream);

}  // namespace d2l::cuda
