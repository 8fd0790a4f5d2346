#include "kernels/cpu/mse_loss.h"

#include <algorithm>

#include "kernels/cpu/mse_loss_kernel.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/workspace.h"

namespace d2l::cpu {

namespace {

constexpr int64_t kElementsPerTask = 65536;

}  // namespace

template <typename T>
void squared_error(int64_t count, const T* input, const T* target, T* losses) {
  parallel_for(0, count, kElementsPerTask, [&](int64_t begin, int64_t end) {
    D2L_CALL_BEST(squared_error_range, end - begin, input + begin, target + begin, losses + begin);
  });
}

template <typename T>
double sum_of_squared_error(int64_t count, const T* input, const T* target) {
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

template <typename T>
void squared_error_grad(int64_t count, const T* grad_output, int64_t grad_stride, T scale, const T* input,
                        const T* target, T* grad_input) {
  parallel_for(0, count, kElementsPerTask, [&](int64_t begin, int64_t end) {
    D2L_CALL_BEST(squared_error_grad_range, end - begin, grad_output + begin * grad_stride, grad_stride, scale,
                  input + begin, target + begin, grad_input + begin);
  });
}

template void squared_error<float>(int64_t, const float*, const float*, float*);
template void squared_error<double>(int64_t, const double*, const double*, double*);
template double sum_of_squared_error<float>(int64_t, const float*, const float*);
template double sum_of_squared_error<double>(int64_t, const double*, const double*);
template void squared_error_grad<float>(int64_t, const float*, int64_t, float, const float*, const float*, float*);
template void squared_error_grad<double>(int64_t, const double*, int64_t, double, const double*, const double*,
                                         double*);

}  // namespace d2l::cpu
