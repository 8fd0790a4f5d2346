// The convolution kernels of float16.
#include "kernels/cuda/conv2d_launch.cuh"

namespace d2l::cuda {

template struct Conv2dKernels<__half, Multiplier::tensor_cores>;

}  // namespace d2l::cuda
