// The convolution kernels of float32 rounded to TF32.
#include "kernels/cuda/conv2d_launch.cuh"

namespace d2l::cuda {

template struct Conv2dKernels<float, Multiplier::tensor_cores>;

}  // namespace d2l::cuda
