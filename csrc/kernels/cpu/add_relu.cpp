#include "kernels/cpu/add_relu.h"

#include "kernels/cpu/add_relu_kernel.h"
#include "kernels/cpu/cache.h"
#include "kernels/cpu/parallel.h"

namespace d2l::cpu {

template <typename E>
void add_relu(int64_t count, const E* input, const E* other, E* output) {
  constexpr int64_t kElementsPerTask = 65536;  // fewer are not worth a thread
  const bool streams = is_streamed(count, output, input, other);
  parallel_for(0, count, kElementsPerTask, [&](int64_t begin, int64_t end) {
    D2L_CALL_BEST(add_relu_range, end - begin, input + begin, other + begin, output + begin, streams);
  });
}

template void add_relu(int64_t, const float*, const float*, float*);
template void add_relu(int64_t, const double*, const double*, double*);
template void add_relu(int64_t, const BFloat16*, const BFloat16*, BFloat16*);

}  // namespace d2l::cpu
