// The squared error: (x - t)^2 of each element, their sum or mean, and the gradient 2 dy (x - t) (over the count for a
// mean).
//
// Bytes: each tensor once; FLOPs: 2 an element: memory-bound. Threads: see pointwise.cuh. For a sum, a thread sums in
// float64, blocks as trees, and one block joins them.
#include "kernels/cuda/mse_loss.h"

#include "kernels/cuda/pointwise.cuh"

namespace d2l::cuda {
namespace {

using namespace pointwise;

constexpr int64_t kMaxParts = 1024;

template <typename T>
__device__ __forceinline__ accumulate_t<T> square_at(const T* input, const T* target, int64_t i) {
  const accumulate_t<T> distance = widen(input[i]) - widen(target[i]);
  return distance * distance;
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    mse_loss_elements(int64_t count, const T* __restrict__ input, const T* __restrict__ target, T* __restrict__ loss) {
  for (int64_t i = first_item(); i < count; i += item_step()) loss[i] = narrow<T>(square_at(input, target, i));
}

__device__ __forceinline__ double sum_of_block(double* shared, double value) {
  shared[threadIdx.x] = value;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half) shared[threadIdx.x] += shared[threadIdx.x + half];
  }
  return shared[0];
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    mse_loss_parts(int64_t count, const T* __restrict__ input, const T* __restrict__ target,
                   double* __restrict__ parts) {
  D2L_SHARED(double, shared, [kThreads]);
  double sum = 0;
#pragma unroll 4
  for (int64_t i = first_item(); i < count; i += item_step()) {
    sum += static_cast<double>(square_at(input, target, i));
  }
  sum = sum_of_block(shared, sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    mse_loss_join(int count, double divisor, const double* __restrict__ parts, T* __restrict__ loss) {
  D2L_SHARED(double, shared, [kThreads]);
  double sum = 0;
  for (int i = threadIdx.x; i < count; i += kThreads) sum += parts[i];
  sum = sum_of_block(shared, sum);
  if (threadIdx.x == 0) *loss = narrow<T>(static_cast<accumulate_t<T>>(sum / divisor));
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    mse_loss_input_grad_kernel(int64_t count, Reduction reduction, const T* __restrict__ grad_output,
                               const T* __restrict__ input, const T* __restrict__ target, T* __restrict__ grad_input) {
  using Value = accumulate_t<T>;
  const Value scale = reduction == Reduction::mean ? Value{2} / static_cast<Value>(count) : Value{2};
  const bool is_none = reduction == Reduction::none;
  for (int64_t i = first_item(); i < count; i += item_step()) {
    const Value gradient = widen(grad_output[is_none ? i : 0]) * scale;
    grad_input[i] = narrow<T>(gradient * (widen(input[i]) - widen(target[i])));
  }
}

}  // namespace

int64_t mse_loss_workspace() { return kMaxParts * static_cast<int64_t>(sizeof(double)); }

LaunchStatus mse_loss(int64_t count, Reduction reduction, DType dtype, const void* input, const void* target,
                      void* loss, void* workspace, Stream stream) {
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const T *const x = static_cast<const T*>(input), *const t = static_cast<const T*>(target);
    const dim3 block(kThreads);
    if (reduction == Reduction::none) {
      if (count == 0) return LaunchStatus{};
      const dim3 grid = grid_for(count);
      D2L_LAUNCH((mse_loss_elements<T>), grid, block, 0, stream, count, x, t, static_cast<T*>(loss));
      return launched(grid, block);
    }
    auto* const parts = static_cast<double*>(workspace);
    const dim3 grid(static_cast<unsigned>(std::clamp<int64_t>(ceil_div<int64_t>(count, 4 * kThreads), 1, kMaxParts)));
    D2L_LAUNCH((mse_loss_parts<T>), grid, block, 0, stream, count, x, t, parts);
    const LaunchStatus status = launched(grid, block);
    if (status.error != 0) return status;
    const double divisor = reduction == Reduction::mean ? static_cast<double>(count) : 1.0;
    D2L_LAUNCH((mse_loss_join<T>), dim3(1), block, 0, stream, static_cast<int>(grid.x), divisor, parts,
               static_cast<T*>(loss));
    return launched(dim3(1), block);
  });
}

LaunchStatus mse_loss_input_grad(int64_t count, Reduction reduction, DType dtype, const void* grad_output,
                                 const void* input, const void* target, void* grad_input, Stream stream) {
  if (count == 0) return {};
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const dim3 grid = grid_for(count), block(kThreads);
    D2L_LAUNCH((mse_loss_input_grad_kernel<T>), grid, block, 0, stream, count, reduction,
               static_cast<const T*>(grad_output), static_cast<const T*>(input), static_cast<const T*>(target),
               static_cast<T*>(grad_input));
    return launched(grid, block);
  });
}

}  // namespace d2l::cuda
