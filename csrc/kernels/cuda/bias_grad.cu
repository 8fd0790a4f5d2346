// The gradient of a bias, fused with the derivative of the activation after it:
//
//   grad_pre = grad_output * activation'(output), grad_bias[c] = sum(grad_pre) over the values of channel c
//
// Bytes: each tensor once; FLOPs: 1 to 4 an element: memory-bound. Threads: as for batch normalisation (see
// batch_norm.cuh). A thread sums in float32 (float64 for float64) over at most a few hundred values; threads and slices
// are joined in float64, as trees and in order of the slices: deterministic.
#include "kernels/cuda/bias_grad.h"

#include "kernels/cuda/activation_math.cuh"
#include "kernels/cuda/batch_norm.cuh"

namespace d2l::cuda {
namespace {

using batch_norm::choose_instance;
using batch_norm::grid_of;
using batch_norm::kMinBlocks;
using batch_norm::kPackBytes;
using batch_norm::kThreads;
using batch_norm::load_from;
using batch_norm::Maps;
using batch_norm::store_to;
using batch_norm::Walk;
using batch_norm::Work;

constexpr int kJoinColumns = 32;
constexpr int kJoinRows = 8;

BatchNormShape as_maps(const BiasGradShape& shape) { return {shape.N, shape.C, shape.pixels}; }

// Adds the parts of all rows of threads to those of row 0.
template <int kLanes>
__device__ __forceinline__ void join_rows(double* shared, double (&parts)[kLanes]) {
  double* const own = shared + (threadIdx.y * blockDim.x + threadIdx.x) * kLanes;
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    if (threadIdx.y >= half && threadIdx.y < 2 * half) {
      for (int v = 0; v < kLanes; ++v) own[v] = parts[v];
    }
    __syncthreads();
    if (threadIdx.y < half) {
      for (int v = 0; v < kLanes; ++v) parts[v] += own[half * blockDim.x * kLanes + v];
    }
  }
}

// partials[slice][c]
template <Activation kActivation, typename T, bool kNhwc, int kPack>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    bias_grad_sums(Work work, const T* grad_output, const T* output, T* grad_pre, double* __restrict__ partials) {
  using Value = accumulate_t<T>;
  constexpr int kLanes = kNhwc ? kPack : 1;
  D2L_SHARED(double, shared, [kThreads * kLanes]);
  const int64_t c = kNhwc ? (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kPack : blockIdx.x;
  Value sums[kLanes] = {};
  const Maps<const T> from{grad_output, work.C}, values_from{output, work.C};
  const Maps<T> to{grad_pre, work.C};
#pragma unroll 4
  for (Walk<kNhwc, kPack> walk(work, c); walk.inside(); walk.next(work)) {
    Pack<T, kPack> gradients = load_from<kPack>(walk.in(from), work.aligned);
    if constexpr (kActivation != Activation::none) {
      const Pack<T, kPack> values = load_from<kPack>(walk.in(values_from), work.aligned);
      for (int v = 0; v < kPack; ++v) {
        gradients[v] = narrow<T>(activation_gradient<kActivation>(widen(gradients[v]), widen(values[v])));
      }
      store_to<kPack>(walk.in(to), gradients, work.aligned);
    }
    for (int v = 0; v < kPack; ++v) sums[kNhwc ? v : 0] += widen(gradients[v]);
  }
  double parts[kLanes];
  for (int v = 0; v < kLanes; ++v) parts[v] = static_cast<double>(sums[v]);
  join_rows<kLanes>(shared, parts);
  if (threadIdx.y == 0 && c < work.C) {
    for (int v = 0; v < kLanes; ++v) partials[blockIdx.y * work.C + c + v] = parts[v];
  }
}

template <typename T>
__global__ void __launch_bounds__(kJoinColumns* kJoinRows)
    bias_grad_join(int64_t channels, int slices, const double* __restrict__ partials, T* __restrict__ grad_bias) {
  D2L_SHARED(double, shared, [kJoinColumns * kJoinRows]);
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kJoinColumns + threadIdx.x;
  double part[1] = {0};
  if (c < channels) {
#pragma unroll 4
    for (int slice = threadIdx.y; slice < slices; slice += kJoinRows) part[0] += partials[slice * channels + c];
  }
  join_rows<1>(shared, part);
  if (threadIdx.y == 0 && c < channels) grad_bias[c] = narrow<T>(static_cast<accumulate_t<T>>(part[0]));
}

}  // namespace

int64_t bias_grad_workspace(const BiasGradShape& shape, Layout layout) {
  return batch_norm::max_slices(as_maps(shape), layout) * shape.C * static_cast<int64_t>(sizeof(double));
}

LaunchStatus activation_bias_grad(const BiasGradShape& shape, Layout layout, Activation activation, DType dtype,
                                  const void* grad_output, const void* output, void* grad_pre, void* grad_bias,
                                  void* workspace, Stream stream) {
  if (shape.N * shape.C * shape.pixels == 0) return {};
  const bool aligned =
      is_aligned(grad_output, kPackBytes) && is_aligned(output, kPackBytes) && is_aligned(grad_pre, kPackBytes);
  auto* const partials = static_cast<double*>(workspace);
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return visit_activation(activation, [&](auto constant) {
      return choose_instance<T>(as_maps(shape), layout, [&](auto nhwc, auto pack) {
        constexpr bool kNhwc = decltype(nhwc)::value;
        constexpr int kPack = decltype(pack)::value;
        const Work work = batch_norm::work_of<kNhwc, kPack>(as_maps(shape), 0.0, aligned);
        const batch_norm::Grid grid = grid_of<kNhwc, kPack>(work);
        D2L_LAUNCH((bias_grad_sums<decltype(constant)::value, T, kNhwc, kPack>), grid.grid, grid.block, 0, stream, work,
                   static_cast<const T*>(grad_output), static_cast<const T*>(output), static_cast<T*>(grad_pre),
                   partials);
        const LaunchStatus status = launched(grid.grid, grid.block);
        if (status.error != 0) return status;
        const dim3 join_grid(static_cast<unsigned>(ceil_div(shape.C, int64_t{kJoinColumns})));
        const dim3 join_block(kJoinColumns, kJoinRows);
        D2L_LAUNCH((bias_grad_join<T>), join_grid, join_block, 0, stream, shape.C, static_cast<int>(grid.slices),
                   partials, static_cast<T*>(grad_bias));
        return launched(join_grid, join_block);
      });
    });
  });
}

}  // namespace d2l::cuda
