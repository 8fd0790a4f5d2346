// The convolution launchers, one set per element type and multiplier. Defined by conv2d_launch.cuh, instantiated in
// files of their own (conv2d_<name>.cu), so that they compile side by side.
#pragma once

#include "kernels/cuda/common.cuh"

namespace d2l::cuda {

enum class Multiplier { simt, tensor_cores };

// Shapes are valid, their coordinates fit (fits_coordinates), the results have at least one element.
template <typename T, Multiplier kMultiplier>
struct Conv2dKernels {
  static LaunchStatus forward(const Conv2dShape& shape, const void* input, const void* weight, const void* bias,
                              Activation activation, void* output, Stream stream);
  static LaunchStatus input_grad(const Conv2dShape& shape, const void* grad_output, const void* weight,
                                 void* grad_input, Stream stream);
  static LaunchStatus weight_grad(const Conv2dShape& shape, const void* grad_output, const void* input,
                                  void* grad_weight, void* workspace, Stream stream);
};

// The forward product and the statistics of its result, in a file of its own (conv2d_moments.cu).
template <typename T, Multiplier kMultiplier>
struct Conv2dMomentsKernels {
  static LaunchStatus forward(const Conv2dShape& shape, DType dtype, const void* input, const void* weight,
                              const void* bias, void* output, void* mean, void* var, void* workspace, Stream stream);
};

}  // namespace d2l::cuda
