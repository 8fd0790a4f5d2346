// Dropout with random numbers made on the fly: one load and one store an element, and about 5 instructions for its
// share of a round of Philox. The loops over the counters of a block are what the compiler vectorises.
#include "kernels/cpu/dropout_kernel.h"

#include "kernels/cpu/integers.h"
#include "kernels/cpu/vec_element.h"
#include "kernels/philox.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

using philox::kBlock;
using philox::kCounters;

// The numbers of the elements of a block, in order.
D2L_INLINE void random_block(uint64_t block, uint64_t seed, uint32_t (&numbers)[kBlock]) {
  uint32_t c0[kCounters], c1[kCounters], c2[kCounters], c3[kCounters];
  for (int l = 0; l < kCounters; ++l) {
    const uint64_t counter = block * kCounters + static_cast<uint64_t>(l);
    c0[l] = static_cast<uint32_t>(counter), c1[l] = static_cast<uint32_t>(counter >> 32), c2[l] = 0, c3[l] = 0;
  }
  auto k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < philox::kRounds; ++round, k0 += philox::kStep0, k1 += philox::kStep1) {
    for (int l = 0; l < kCounters; ++l) {
      const uint64_t first = static_cast<uint64_t>(philox::kMultiplier0) * c0[l];
      const uint64_t second = static_cast<uint64_t>(philox::kMultiplier1) * c2[l];
      c0[l] = static_cast<uint32_t>(second >> 32) ^ c1[l] ^ k0;
      c2[l] = static_cast<uint32_t>(first >> 32) ^ c3[l] ^ k1;
      c1[l] = static_cast<uint32_t>(second);
      c3[l] = static_cast<uint32_t>(first);
    }
  }
  for (int l = 0; l < kCounters; ++l) {
    numbers[l] = c0[l], numbers[kCounters + l] = c1[l];
    numbers[2 * kCounters + l] = c2[l], numbers[3 * kCounters + l] = c3[l];
  }
}

}  // namespace

template <typename E>
void dropout_blocks(int64_t begin, int64_t end, int64_t count, uint64_t seed, uint32_t threshold, computed_t<E> scale,
                    const E* input, E* output) {
  using T = computed_t<E>;
  for (int64_t block = begin; block < end; ++block) {
    uint32_t numbers[kBlock];
    random_block(static_cast<uint64_t>(block), seed, numbers);
    T factors[kBlock];
    for (int i = 0; i < kBlock; ++i) factors[i] = numbers[i] >= threshold ? scale : T(0);
    const E* const from = input + block * kBlock;
    const auto whole = [&](int64_t i) D2L_INLINE_LAMBDA { return read(from + i) * load(factors + i); };
    const auto part = [&](int64_t i, int64_t n)
                          D2L_INLINE_LAMBDA { return read_partial(from + i, n) * load(factors + i); };
    write_all(output + block * kBlock, clamp(count - block * kBlock, 0, kBlock), false, whole, part);
  }
}

#define D2L_INSTANTIATE(E) \
  template void dropout_blocks(int64_t, int64_t, int64_t, uint64_t, uint32_t, computed_t<E>, const E*, E*);
D2L_INSTANTIATE(float)
D2L_INSTANTIATE(double)
D2L_INSTANTIATE(BFloat16)
#undef D2L_INSTANTIATE

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
