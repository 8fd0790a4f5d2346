#include "kernels/cpu/dropout.h"

#include "kernels/cpu/dropout_kernel.h"
#include "kernels/cpu/parallel.h"
#include "kernels/philox.h"

namespace d2l::cpu {

namespace {

constexpr int64_t kBlocksPerTask = 512;  // fewer are not worth a thread

}  // namespace

template <typename T>
void dropout(int64_t count, int64_t seed, double p, const T* input, T* output) {
  const T scale = p < 1 ? static_cast<T>(1 / (1 - p)) : T(0);
  const int64_t blocks = (count + philox::kBlock - 1) / philox::kBlock;
  parallel_for(0, blocks, kBlocksPerTask, [&](int64_t begin, int64_t end) {
    D2L_CALL_BEST(dropout_blocks, begin, end, count, static_cast<uint64_t>(seed), philox::threshold(p), scale, input,
                  output);
  });
}

template void dropout<float>(int64_t, int64_t, double, const float*, float*);
template void dropout<double>(int64_t, int64_t, double, const double*, double*);

}  // namespace d2l::cpu
