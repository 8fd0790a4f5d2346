#include "kernels/cpu/softmax.h"

#include <algorithm>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/softmax_kernel.h"

namespace d2l::cpu {

namespace {

constexpr int64_t kElementsPerTask = 8192;  // fewer are not worth a thread

int64_t grain_of(const SoftmaxShape& shape) { return std::max<int64_t>(1, kElementsPerTask / shape.C); }

}  // namespace

template <typename T>
void softmax(const SoftmaxShape& shape, bool is_log, const T* input, T* output) {
  parallel_for(0, shape.rows(), grain_of(shape), [&](int64_t begin, int64_t end) {
    D2L_CALL_BEST(softmax_rows, shape, is_log, begin, end, input, output);
  });
}

template <typename T>
void softmax_input_grad(const SoftmaxShape& shape, bool is_log, const T* grad_output, const T* output, T* grad_input) {
  parallel_for(0, shape.rows(), grain_of(shape), [&](int64_t begin, int64_t end) {
    D2L_CALL_BEST(softmax_grad_rows, shape, is_log, begin, end, grad_output, output, grad_input);
  });
}

template void softmax<float>(const SoftmaxShape&, bool, const float*, float*);
template void softmax<double>(const SoftmaxShape&, bool, const double*, double*);
template void softmax_input_grad<float>(const SoftmaxShape&, bool, const float*, const float*, float*);
template void softmax_input_grad<double>(const SoftmaxShape&, bool, const double*, const double*, double*);

}  // namespace d2l::cpu
