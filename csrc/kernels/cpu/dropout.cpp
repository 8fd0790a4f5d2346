#include "kernels/cpu/dropout.h"

#include "kernels/cpu/dropout_kernel.h"
#include "kernels/cpu/parallel.h"
#include "kernels/philox.h"

namespace d2l::cpu {

namespace {

constexpr int64_t kBlocksPerTask = 512;  // fewer are not worth a thread

}  // namespace

template <typename E>
void dropout(int64_t count, int64_t seed, double p, const E* input, E* output) {
  const auto scale = static_cast<computed_t<E>>(p < 1 ? 1 / (1 - p) : 0);
  const int64_t blocks = (count + philox::kBlock - 1) / philox::kBlock;
  parallel_for(0, blocks, kBlocksPerTask, [&](int64_t begin, int64_t end) {
    D2L_CALL_BEST(dropout_blocks, begin, end, count, static_cast<uint64_t>(seed), philox::threshold(p), scale, input,
                  output);
  });
}

template void dropout(int64_t, int64_t, double, const float*, float*);
template void dropout(int64_t, int64_t, double, const double*, double*);
template void dropout(int64_t, int64_t, double, const BFloat16*, BFloat16*);

}  // namespace d2l::cpu
