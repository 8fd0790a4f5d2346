// Rows of C elements, `inner` apart, one per warp where they are contiguous and one per thread where their neighbours
// lie side by side: loads of a warp are contiguous in both. What softmax and cross-entropy share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/common.cuh"

namespace d2l::cuda::rows {

constexpr int kThreads = 128;
// Blocks on a multiprocessor. Without a number ptxas spills registers to reach more than the memory pipes need.
constexpr int kMinBlocks = 4;
// Enough to fill the largest devices; warps or threads then loop over rows.
constexpr int64_t kMaxBlocks = 4096;

// Threads of one row.
template <bool kContiguous>
constexpr int kTeam = kContiguous ? kWarpSize : 1;

template <bool kContiguous>
dim3 grid_for(int64_t rows) {
  const int64_t per_block = kThreads / kTeam<kContiguous>;
  return dim3(static_cast<unsigned>(std::clamp<int64_t>(ceil_div(rows, per_block), 1, kMaxBlocks)));
}

// Calls function(std::bool_constant<kContiguous>{}).
template <typename Function>
LaunchStatus choose_team(int64_t inner, Function&& function) {
  return inner == 1 ? function(std::true_type{}) : function(std::false_type{});
}

template <bool kContiguous>
struct Team {
  int64_t row, step;
  int lane;

  __device__ __forceinline__ Team() {
    const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    row = thread / kTeam<kContiguous>;
    step = static_cast<int64_t>(gridDim.x) * kThreads / kTeam<kContiguous>;
    lane = kContiguous ? static_cast<int>(threadIdx.x) % kWarpSize : 0;
  }

  // Where element 0 of the row is.
  __device__ __forceinline__ int64_t offset(int64_t C, int64_t inner) const {
    return kContiguous ? row * C : row / inner * C * inner + row % inner;
  }

  template <typename Value>
  __device__ __forceinline__ Value max(Value x) const {
    if constexpr (kContiguous) {
      for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
        const Value other = __shfl_xor_sync(kFullWarp, x, distance);
        x = other > x ? other : x;
      }
    }
    return x;
  }

  template <typename Value>
  __device__ __forceinline__ Value sum(Value x) const {
    if constexpr (kContiguous) {
      for (int distance = kWarpSize / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kFullWarp, x, distance);
    }
    return x;
  }
};

template <typename Value>
__device__ __forceinline__ Value minus_infinity() {
  return -static_cast<Value>(INFINITY);
}

}  // namespace d2l::cuda::rows
