// The statistics of some values of a channel, and how those of several parts become one.
#pragma once

#include "kernels/cuda/common.cuh"

namespace d2l::cuda {

// The type of statistics and of the sums of a block.
template <typename T>
struct Statistic {
  using type = double;
};
template <>
struct Statistic<__nv_bfloat16> {
  using type = float;
};
template <>
struct Statistic<__half> {
  using type = float;
};
template <typename T>
using statistic_t = typename Statistic<T>::type;

// Mean and sum of squared deviations of `count` values.
template <typename Stat>
struct Moments {
  Stat count, mean, squares;

  // Chan, Golub and LeVeque, 1979.
  __device__ __forceinline__ void join(const Moments& more) {
    const Stat total = count + more.count;
    if (more.count == 0) return;
    const Stat distance = more.mean - mean, weight = more.count / total;
    mean += distance * weight;
    squares += more.squares + distance * distance * weight * count;
    count = total;
  }
};

// Of `count` values whose distances from `center` have this sum and these squares: few values, so that the sums may be
// of the type that maps are computed in.
template <typename Stat, typename Value>
__device__ __forceinline__ Moments<Stat> moments_around(Value center, Stat count, Value sum, Value squares) {
  if (count == 0) return {};
  const Stat wide = static_cast<Stat>(sum), shift = wide / count;
  return {count, static_cast<Stat>(center) + shift, static_cast<Stat>(squares) - wide * shift};
}

// Slices that a second pass joins at the most; more are joined to so many before.
constexpr int64_t kJoinedSlices = 64;

// Mean and variance of each channel from its Moments in all slices, partials[slice][channel], joined in a fixed order.
// Behind the slices there is memory for kJoinedSlices more. The types are those for maps of `dtype`.
LaunchStatus join_moments(int64_t channels, int64_t slices, DType dtype, void* partials, void* mean, void* var,
                          Stream stream);

}  // namespace d2l::cuda
