// Activations and their gradients: y = activation(x), dx = dy * activation'(x) by y.
//
// Bytes: each tensor once; FLOPs: 1 (relu) to about 20 an element: memory-bound. Threads: see pointwise.cuh. Computed
// in float32 (float64 for float64), rounded once.
#include "kernels/cuda/activation.h"

#include "kernels/cuda/activation_math.cuh"
#include "kernels/cuda/pointwise.cuh"

namespace d2l::cuda {
namespace {

using namespace pointwise;

template <Activation kActivation, typename T>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    activation_kernel(int64_t count, bool aligned, const T* input, T* output) {
  constexpr int kPack = kPackOf<T>;
  for_each<kPack>(
      count, aligned,
      [&](int64_t i) {
        Pack<T, kPack> values = load_pack<T, kPack>(input + i);
        for (int v = 0; v < kPack; ++v) values[v] = narrow<T>(activate<kActivation>(widen(values[v])));
        store_pack(output + i, values);
      },
      [&](int64_t i) { output[i] = narrow<T>(activate<kActivation>(widen(input[i]))); });
}

template <Activation kActivation, typename T>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    activation_input_grad_kernel(int64_t count, bool aligned, const T* grad_output, const T* output, T* grad_input) {
  constexpr int kPack = kPackOf<T>;
  for_each<kPack>(
      count, aligned,
      [&](int64_t i) {
        Pack<T, kPack> gradients = load_pack<T, kPack>(grad_output + i);
        const Pack<T, kPack> values = load_pack<T, kPack>(output + i);
        for (int v = 0; v < kPack; ++v) {
          gradients[v] = narrow<T>(activation_gradient<kActivation>(widen(gradients[v]), widen(values[v])));
        }
        store_pack(grad_input + i, gradients);
      },
      [&](int64_t i) {
        grad_input[i] = narrow<T>(activation_gradient<kActivation>(widen(grad_output[i]), widen(output[i])));
      });
}

}  // namespace

LaunchStatus activation(Activation activation, int64_t count, DType dtype, const void* input, void* output,
                        Stream stream) {
  if (count == 0) return {};
  const bool aligned = is_aligned(input, kPackBytes) && is_aligned(output, kPackBytes);
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return visit_activation(activation, [&](auto constant) {
      const dim3 grid = grid_for(ceil_div<int64_t>(count, kPackOf<T>)), block(kThreads);
      D2L_LAUNCH((activation_kernel<decltype(constant)::value, T>), grid, block, 0, stream, count, aligned,
                 static_cast<const T*>(input), static_cast<T*>(output));
      return launched(grid, block);
    });
  });
}

LaunchStatus activation_input_grad(Activation activation, int64_t count, DType dtype, const void* grad_output,
                                   const void* output, void* grad_input, Stream stream) {
  if (count == 0) return {};
  const bool aligned =
      is_aligned(grad_output, kPackBytes) && is_aligned(output, kPackBytes) && is_aligned(grad_input, kPackBytes);
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return visit_activation(activation, [&](auto constant) {
      const dim3 grid = grid_for(ceil_div<int64_t>(count, kPackOf<T>)), block(kThreads);
      D2L_LAUNCH((activation_input_grad_kernel<decltype(constant)::value, T>), grid, block, 0, stream, count, aligned,
                 static_cast<const T*>(grad_output), static_cast<const T*>(output), static_cast<T*>(grad_input));
      return launched(grid, block);
    });
  });
}

}  // namespace d2l::cuda
