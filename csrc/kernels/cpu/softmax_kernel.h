// What the launchers of softmax.cpp call, once per instruction set: some rows, each `shape.C` elements that are
// `shape.inner` apart. Row r begins at (r / inner) * C * inner + r % inner. Exponentials that the output would round
// wait in `scratch`: those of a row, or of a cache line of rows that lie side by side.
#pragma once

#include "kernels/cpu/capability.h"
#include "kernels/cpu/element.h"
#include "kernels/shapes.h"

namespace d2l::cpu {

#define D2L_SOFTMAX_KERNELS(capability)                                                                            \
  namespace capability {                                                                                           \
  template <typename E>                                                                                            \
  void softmax_rows(const SoftmaxShape& shape, bool is_log, int64_t begin, int64_t end, const E* input,            \
                    computed_t<E>* scratch, E* output);                                                            \
  template <typename E>                                                                                            \
  void softmax_grad_rows(const SoftmaxShape& shape, bool is_log, int64_t begin, int64_t end, const E* grad_output, \
                         const E* output, E* grad_input);                                                          \
  }
D2L_FOR_EACH_CAPABILITY(D2L_SOFTMAX_KERNELS)
#undef D2L_SOFTMAX_KERNELS

}  // namespace d2l::cpu
