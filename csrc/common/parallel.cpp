// kernels/cpu/parallel.h on torch's threads.
#include "kernels/cpu/parallel.h"

#include <ATen/Parallel.h>

namespace d2l::cpu {

void run_parallel(int64_t begin, int64_t end, int64_t grain, RangeFunction function, void* context) {
  at::parallel_for(begin, end, grain, [=](int64_t b, int64_t e) { function(context, b, e); });
}

int64_t max_threads() { return at::in_parallel_region() ? 1 : at::get_num_threads(); }

}  // namespace d2l::cpu
