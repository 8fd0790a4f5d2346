#include "kernels/cpu/softmax.h"

#include <algorithm>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/softmax_kernel.h"
#include "kernels/cpu/workspace.h"

namespace d2l::cpu {

namespace {

constexpr int64_t kElementsPerTask = 8192;  // fewer are not worth a thread
constexpr int64_t kLineBytes = 64;

int64_t grain_of(const SoftmaxShape& shape) { return std::max<int64_t>(1, kElementsPerTask / shape.C); }

}  // namespace

template <typename E>
void softmax(const SoftmaxShape& shape, bool is_log, const E* input, E* output) {
  using T = computed_t<E>;
  const int64_t rows_at_once = shape.inner > 1 ? kLineBytes / static_cast<int64_t>(sizeof(E)) : 1;
  const int64_t scratch_bytes = rows_at_once * shape.C * static_cast<int64_t>(sizeof(T));
  parallel_for(0, shape.rows(), grain_of(shape), [&](int64_t begin, int64_t end) {
    auto* const scratch =
        kIsRounded<E> && !is_log ? static_cast<T*>(workspace(Workspace::task, scratch_bytes)) : nullptr;
    D2L_CALL_BEST(softmax_rows, shape, is_log, begin, end, input, scratch, output);
    trim_workspace(Workspace::task);
  });
}

template <typename E>
void softmax_input_grad(const SoftmaxShape& shape, bool is_log, const E* grad_output, const E* output, E* grad_input) {
  parallel_for(0, shape.rows(), grain_of(shape), [&](int64_t begin, int64_t end) {
    D2L_CALL_BEST(softmax_grad_rows, shape, is_log, begin, end, grad_output, output, grad_input);
  });
}

#define D2L_INSTANTIATE(E)                                        \
  template void softmax(const SoftmaxShape&, bool, const E*, E*); \
  template void softmax_input_grad(const SoftmaxShape&, bool, const E*, const E*, E*);
D2L_INSTANTIATE(float)
D2L_INSTANTIATE(double)
D2L_INSTANTIATE(BFloat16)
#undef D2L_INSTANTIATE

}  // namespace d2l::cpu
