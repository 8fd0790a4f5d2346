// Launcher of dropout on CUDA devices: output[i] = input[i] * (kept ? 1 / (1 - p) : 0), where seed and i decide (see
// philox.h). Linear in the input, and its own transpose. Tensors are contiguous; `seed` is read on the device.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/shapes.h"

namespace d2l::cuda {

LaunchStatus dropout(int64_t count, const int64_t* seed, double p, DType dtype, const void* input, void* output,
                     Stream stream);

}  // namespace d2l::cuda
