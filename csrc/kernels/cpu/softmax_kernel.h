// What the launchers of softmax.cpp call, once per instruction set: some rows, each `shape.C` elements that are
// `shape.inner` apart. Row r begins at (r / inner) * C * inner + r % inner.
#pragma once

#include "kernels/cpu/capability.h"
#include "kernels/shapes.h"

#define D2L_SOFTMAX_KERNELS_OF(T)                                                                                   \
  void softmax_rows(const SoftmaxShape& shape, bool is_log, int64_t begin, int64_t end, const T* input, T* output); \
  void softmax_grad_rows(const SoftmaxShape& shape, bool is_log, int64_t begin, int64_t end, const T* grad_output,  \
                         const T* output, T* grad_input);

#define D2L_SOFTMAX_KERNELS(capability) \
  namespace capability {                \
  D2L_SOFTMAX_KERNELS_OF(float)         \
  D2L_SOFTMAX_KERNELS_OF(double)        \
  }

namespace d2l::cpu {
D2L_FOR_EACH_CAPABILITY(D2L_SOFTMAX_KERNELS)
}  // namespace d2l::cpu
