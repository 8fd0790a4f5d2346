// The convolution kernels of bfloat16.
#include "kernels/cuda/conv2d_launch.cuh"

namespace d2l::cuda {

template struct Conv2dKernels<__nv_bfloat16, Multiplier::tensor_cores>;

}  // namespace d2l::cuda
