// max(x + y, 0).
//
// Bytes: each tensor once; FLOPs: 2 an element: memory-bound. A thread takes packs of 16 bytes, one grid's width
// apart, or elements where these are not aligned. Computed in float32 (float64
// for float64), rounded once.
#include "kernels/cuda/add_relu.h"

#include <algorithm>

#include "kernels/cuda/activation.cuh"

namespace d2l::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPackBytes = 16;
constexpr int64_t kMaxBlocks = 2048;  // enough to fill the largest devices; each thread then loops

template <typename T>
__device__ __forceinline__ T relu_of_sum(T x, T y) {
  return narrow<T>(activated(widen(x) + widen(y), Activation::relu));
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    add_relu_kernel(int64_t count, bool aligned, const T* input, const T* other, T* output) {
  constexpr int kPack = kPackBytes / static_cast<int>(sizeof(T));
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  const int64_t packs = aligned ? count / kPack : 0;
  for (int64_t i = first; i < packs; i += step) {
    Pack<T, kPack> values = load_pack<T, kPack>(input + i * kPack);
    const Pack<T, kPack> more = load_pack<T, kPack>(other + i * kPack);
    for (int v = 0; v < kPack; ++v) values[v] = relu_of_sum(values[v], more[v]);
    store_pack(output + i * kPack, values);
  }
  for (int64_t i = packs * kPack + first; i < count; i += step) output[i] = relu_of_sum(input[i], other[i]);
}

}  // namespace

LaunchStatus add_relu(int64_t count, DType dtype, const void* input, const void* other, void* output, Stream stream) {
  if (count == 0) return {};
  const bool aligned = is_aligned(input, kPackBytes) && is_aligned(other, kPackBytes) && is_aligned(output, kPackBytes);
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const int64_t items = ceil_div<int64_t>(count, kPackBytes / static_cast<int64_t>(sizeof(T)));
    const dim3 grid(static_cast<unsigned>(std::min(ceil_div<int64_t>(items, kThreads), kMaxBlocks))), block(kThreads);
    D2L_LAUNCH((add_relu_kernel<T>), grid, block, 0, stream, count, aligned, static_cast<const T*>(input),
               static_cast<const T*>(other), static_cast<T*>(output));
    return launched(grid, block);
  });
}

}  // namespace d2l::cuda
