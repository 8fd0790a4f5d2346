// The convolution kernels of float64.
#include "kernels/cuda/conv2d_launch.cuh"

namespace d2l::cuda {

template struct Conv2dKernels<double, Multiplier::simt>;

}  // namespace d2l::cuda
