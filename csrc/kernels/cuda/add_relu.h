// Launcher of add_relu on CUDA devices. Elements lie side by side, in any order that all tensors share.
#pragma once

#include "kernels/cuda/launch.h"

namespace d2l::cuda {

// output[i] = max(input[i] + other[i], 0)
LaunchStatus add_relu(int64_t count, DType dtype, const void* input, const void* other, void* output, Stream stream);

}  // namespace d2l::cuda
