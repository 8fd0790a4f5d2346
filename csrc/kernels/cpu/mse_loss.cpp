#include "kernels/cpu/mse_loss.h"

#include <algorithm>

#include "kernels/cpu/mse_loss_kernel.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/workspace.h"

namespace d2l::cpu {

namespace {

constexpr int64_t kElementsPerTask = 65536;

}  // namespace

template <typename E>
void squared_error(int64_t count, const E* input, const E* target, E* losses) {
  parallel_for(0, count, kElementsPerTask, [&](int64_t begin, int64_t end) {
    D2L_CALL_BEST(squared_error_range, end - begin, input + begin, target + begin, losses + begin);
  });
}

template <typename E>
double sum_of_squared_error(int64_t count, const E* input, const E* target) {
  const int64_t parts = (count + kElementsPerTask - 1) / kElementsPerTask;
  auto* const sums = static_cast<double*>(workspace(Workspace::call, parts * static_cast<int64_t>(sizeof(double))));
  parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      const int64_t begin = part * kElementsPerTask, end = std::min(count, begin + kElementsPerTask);
      D2L_CALL_BEST(squared_error_sum, end - begin, input + begin, target + begin, sums + part);
    }
  });
  double total = 0;
  for (int64_t part = 0; part < parts; ++part) total += sums[part];
  return total;
}

template <typename E>
void squared_error_grad(int64_t count, const E* grad_output, int64_t grad_stride, computed_t<E> scale, const E* input,
                        const E* target, E* grad_input) {
  parallel_for(0, count, kElementsPerTask, [&](int64_t begin, int64_t end) {
    D2L_CALL_BEST(squared_error_grad_range, end - begin, grad_output + begin * grad_stride, grad_stride, scale,
                  input + begin, target + begin, grad_input + begin);
  });
}

#define D2L_INSTANTIATE(E)                                           \
  template void squared_error(int64_t, const E*, const E*, E*);      \
  template double sum_of_squared_error(int64_t, const E*, const E*); \
  template void squared_error_grad(int64_t, const E*, int64_t, computed_t<E>, const E*, const E*, E*);
D2L_INSTANTIATE(float)
D2L_INSTANTIATE(double)
D2L_INSTANTIATE(BFloat16)
#undef D2L_INSTANTIATE

}  // namespace d2l::cpu
