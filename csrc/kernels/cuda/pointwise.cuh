// What the kernels that take tensors element by element share: which thread takes which elements.
//
// A thread takes packs of up to 16 bytes, one grid's width apart; what no pack holds, and all of what is
// not aligned, is taken element by element. The order of elements has no effect on the results.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/common.cuh"

namespace d2l::cuda::pointwise {

constexpr int kThreads = 256;
// Blocks on a multiprocessor. Without a number ptxas spills registers to reach more than the memory pipes need.
constexpr int kMinBlocks = 2;
constexpr int kPackBytes = 16;
// Enough to fill the largest devices; each thread then loops.
constexpr int64_t kMaxBlocks = 2048;

template <typename T>
constexpr int kPackOf = kPackBytes / static_cast<int>(sizeof(T));

inline dim3 grid_for(int64_t items) {
  return dim3(static_cast<unsigned>(std::clamp<int64_t>(ceil_div<int64_t>(items, kThreads), 1, kMaxBlocks)));
}

__device__ __forceinline__ int64_t first_item() { return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; }
__device__ __forceinline__ int64_t item_step() { return static_cast<int64_t>(gridDim.x) * kThreads; }

// Calls packed(i) for the first elements of whole packs, then single(i) for the rest.
template <int kPack, typename Packed, typename Single>
__device__ __forceinline__ void for_each(int64_t count, bool aligned, Packed&& packed, Single&& single) {
  const int64_t packs = aligned ? count / kPack : 0;
  for (int64_t i = first_item(); i < packs; i += item_step()) packed(i * kPack);
  for (int64_t i = packs * kPack + first_item(); i < count; i += item_step()) single(i);
}

}  // namespace d2l::cuda::pointwise
