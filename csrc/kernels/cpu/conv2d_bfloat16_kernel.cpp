// The direct kernel of conv2d_driver.h on pairs of channels: they travel through it as the bits of a float, and nothing
// but multiply_add looks at them (see gemm_product.h).
#include "kernels/cpu/conv2d_driver.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

void correlate_pairs(const Correlation<float, float, BFloat16>& problem) { run_correlation(problem); }

void weave_rows(const uint16_t* from, int64_t pairs, int64_t values, float* to) {
  constexpr int64_t kValuesPerTask = 1 << 15;  // fewer are not worth a thread
  parallel_for(0, pairs, max(1, kValuesPerTask / values), [&](int64_t begin, int64_t end) {
    for (int64_t pair = begin; pair < end; ++pair) {
      const Neighbours<float> rows{from + 2 * pair * values, from + (2 * pair + 1) * values, 0xffff};
      float* const row = to + pair * values;
      int64_t i = 0;
      for (; i + kLanes<float> <= values; i += kLanes<float>) store(row + i, rows.at(i));
      if (i < values) store_partial(row + i, rows.at(i, values - i), values - i);
    }
  });
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
