// Dropout with random numbers made on the fly, from seed and place of an element: no mask is stored, and the backward
// pass is the same kernel.
//
// Bytes: the input and the output once; about 20 integer operations an element. Threads: one for each counter of
// philox.h, that is for four elements, 16 apart: 16 threads load 16 neighbours. Computed in float32 (float64 for
// float64), rounded once.
#include "kernels/cuda/dropout.h"

#include "kernels/cuda/pointwise.cuh"
#include "kernels/philox.h"

namespace d2l::cuda {
namespace {

using namespace pointwise;

struct Numbers {
  uint32_t words[philox::kWords];
};

__device__ __forceinline__ Numbers random_numbers(uint64_t counter, uint64_t seed) {
  uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32), c2 = 0, c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < philox::kRounds; ++round) {
    const uint64_t first = static_cast<uint64_t>(philox::kMultiplier0) * c0;
    const uint64_t second = static_cast<uint64_t>(philox::kMultiplier1) * c2;
    c0 = static_cast<uint32_t>(second >> 32) ^ c1 ^ k0;
    c2 = static_cast<uint32_t>(first >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(second);
    c3 = static_cast<uint32_t>(first);
    k0 += philox::kStep0;
    k1 += philox::kStep1;
  }
  return {{c0, c1, c2, c3}};
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    dropout_kernel(int64_t count, const int64_t* __restrict__ seed, uint32_t threshold, accumulate_t<T> scale,
                   const T* __restrict__ input, T* __restrict__ output) {
  using Value = accumulate_t<T>;
  const uint64_t key = static_cast<uint64_t>(*seed);
  const int64_t counters = ceil_div<int64_t>(count, philox::kBlock) * philox::kCounters;
  for (int64_t counter = first_item(); counter < counters; counter += item_step()) {
    const Numbers numbers = random_numbers(static_cast<uint64_t>(counter), key);
    const int64_t first = counter / philox::kCounters * philox::kBlock + counter % philox::kCounters;
    for (int w = 0; w < philox::kWords; ++w) {
      const int64_t i = first + w * philox::kCounters;
      if (i < count) output[i] = narrow<T>(widen(input[i]) * (numbers.words[w] >= threshold ? scale : Value{0}));
    }
  }
}

}  // namespace

LaunchStatus dropout(int64_t count, const int64_t* seed, double p, DType dtype, const void* input, void* output,
                     Stream stream) {
  if (count == 0) return {};
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto scale = static_cast<accumulate_t<T>>(p < 1 ? 1 / (1 - p) : 0);
    const dim3 grid = grid_for(ceil_div<int64_t>(count, philox::kWords)), block(kThreads);
    D2L_LAUNCH((dropout_kernel<T>), grid, block, 0, stream, count, seed, philox::threshold(p), scale,
               static_cast<const T*>(input), static_cast<T*>(output));
    return launched(grid, block);
  });
}

}  // namespace d2l::cuda
