// The forward convolution with the statistics of its result, for every element type and multiplier.
#include "kernels/cuda/conv2d_launch.cuh"

namespace d2l::cuda {

template <typename T, Multiplier kMultiplier>
LaunchStatus Conv2dMomentsKernels<T, kMultiplier>::forward(const Conv2dShape& shape, DType dtype, const void* input,
                                                           const void* weight, const void* bias, void* output,
                                                           void* mean, void* var, void* workspace, Stream stream) {
  ForwardMomentsMap<T> map{};
  map.partials = static_cast<Moments<statistic_t<T>>*>(workspace);
  map.channels = shape.K;
  map.dtype = dtype;
  map.mean = mean;
  map.var = var;
  return launch_forward<kMultiplier>(map, shape, input, weight, bias, Activation::none, output, stream);
}

template struct Conv2dMomentsKernels<float, Multiplier::simt>;
template struct Conv2dMomentsKernels<float, Multiplier::tensor_cores>;
template struct Conv2dMomentsKernels<double, Multiplier::simt>;
template struct Conv2dMomentsKernels<__nv_bfloat16, Multiplier::tensor_cores>;
template struct Conv2dMomentsKernels<__half, Multiplier::tensor_cores>;

}  // namespace d2l::cuda
