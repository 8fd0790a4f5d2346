// Launchers of the convolution kernels: checks of what the kernels take for granted, and the choice among their
// instances. The kernels: conv2d_gemm.cuh.
#include "kernels/cuda/conv2d.h"

#include "kernels/cuda/batch_norm_moments.cuh"
#include "kernels/cuda/conv2d_kernels.cuh"
#include "kernels/cuda/conv2d_plan.cuh"

namespace d2l::cuda {
namespace {

template <typename T, Multiplier kMultiplier>
struct KernelsTag {
  using Kernels = Conv2dKernels<T, kMultiplier>;
  using MomentsKernels = Conv2dMomentsKernels<T, kMultiplier>;
};

// Calls function(tag) with the instance that is meant, unless there is nothing to compute.
template <typename Function>
LaunchStatus dispatch_kernels(const Conv2dShape& shape, int64_t result_elements, DType dtype,
                              Float32Precision precision, Function&& function) {
  if (result_elements == 0) return {};
  if (!fits_coordinates(shape)) {
    LaunchStatus status;
    status.error = static_cast<int>(cudaErrorInvalidValue);
    return status;
  }
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    if constexpr (std::is_same_v<T, double>) {
      return function(KernelsTag<T, Multiplier::simt>{});
    } else if constexpr (std::is_same_v<T, float>) {
      if (precision == Float32Precision::ieee) return function(KernelsTag<T, Multiplier::simt>{});
      return function(KernelsTag<T, Multiplier::tensor_cores>{});
    } else {
      return function(KernelsTag<T, Multiplier::tensor_cores>{});
    }
  });
}

int64_t weight_elements(const Conv2dShape& shape) { return shape.K * shape.R * shape.S * shape.group_c(); }

}  // namespace

LaunchStatus conv2d(const Conv2dShape& shape, DType dtype, Float32Precision precision, const void* input,
                    const void* weight, const void* bias, void* output, Stream stream, Activation activation) {
  const int64_t elements = shape.N * shape.P * shape.Q * shape.K;
  return dispatch_kernels(shape, elements, dtype, precision, [&](auto tag) {
    return decltype(tag)::Kernels::forward(shape, input, weight, bias, activation, output, stream);
  });
}

int64_t conv2d_moments_workspace(const Conv2dShape& shape, DType dtype) {
  constexpr int64_t kFewestTileRows = 64;
  const bool wide = dtype == DType::float32 || dtype == DType::float64;
  const int64_t bytes = wide ? sizeof(Moments<double>) : sizeof(Moments<float>);
  return (ceil_div(shape.N * shape.P * shape.Q, kFewestTileRows) + kJoinedSlices) * shape.K * bytes;
}

LaunchStatus conv2d_moments(const Conv2dShape& shape, DType dtype, Float32Precision precision, const void* input,
                            const void* weight, const void* bias, void* output, void* mean, void* var, void* workspace,
                            Stream stream) {
  const int64_t elements = shape.N * shape.P * shape.Q * shape.K;
  return dispatch_kernels(shape, elements, dtype, precision, [&](auto tag) {
    return decltype(tag)::MomentsKernels::forward(shape, dtype, input, weight, bias, output, mean, var, workspace,
                                                  stream);
  });
}

LaunchStatus conv2d_input_grad(const Conv2dShape& shape, DType dtype, Float32Precision precision,
                               const void* grad_output, const void* weight, void* grad_input, Stream stream) {
  const int64_t elements = shape.N * shape.H * shape.W * shape.C;
  return dispatch_kernels(shape, elements, dtype, precision, [&](auto tag) {
    return decltype(tag)::Kernels::input_grad(shape, grad_output, weight, grad_input, stream);
  });
}

int64_t conv2d_weight_grad_workspace(const Conv2dShape& shape, DType dtype) {
  if (weight_elements(shape) == 0 || !fits_coordinates(shape)) return 0;
  const int slices = weight_grad_slices(shape).count;
  const int64_t sum_bytes = dtype == DType::float64 ? sizeof(double) : sizeof(float);
  return slices > 1 ? slices * weight_elements(shape) * sum_bytes : 0;
}

LaunchStatus conv2d_weight_grad(const Conv2dShape& shape, DType dtype, Float32Precision precision,
                                const void* grad_output, const void* input, void* grad_weight, void* workspace,
                                Stream stream) {
  return dispatch_kernels(shape, weight_elements(shape), dtype, precision, [&](auto tag) {
    return decltype(tag)::Kernels::weight_grad(shape, grad_output, input, grad_weight, workspace, stream);
  });
}

}  // namespace d2l::cuda
