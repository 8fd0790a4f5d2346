// The convolution kernels of float32 with all bits.
#include "kernels/cuda/conv2d_launch.cuh"

namespace d2l::cuda {

template struct Conv2dKernels<float, Multiplier::simt>;

}  // namespace d2l::cuda
