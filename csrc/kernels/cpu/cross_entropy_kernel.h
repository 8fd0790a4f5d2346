// What the launchers of cross_entropy.cpp call, once per instruction set: some rows (see rows.h). T = computed_t<E>.
#pragma once

#include "kernels/cpu/capability.h"
#include "kernels/cpu/cross_entropy.h"
#include "kernels/shapes.h"

namespace d2l::cpu {

#define D2L_CROSS_ENTROPY_KERNELS(capability)                                                                        \
  namespace capability {                                                                                             \
  template <typename E, typename T>                                                                                  \
  void cross_entropy_rows(const CrossEntropyShape& shape, int64_t begin, int64_t end, const E* input,                \
                          const int64_t* target, const T* weight, T total_weight, E* losses, T* statistics,          \
                          CrossEntropySums* sums);                                                                   \
  template <typename E, typename T>                                                                                  \
  void cross_entropy_grad_rows(const CrossEntropyShape& shape, int64_t begin, int64_t end, const E* grad_output,     \
                               int64_t grad_stride, T scale, const E* input, const int64_t* target, const T* weight, \
                               T total_weight, const T* statistics, E* grad_input);                                  \
  }
D2L_FOR_EACH_CAPABILITY(D2L_CROSS_ENTROPY_KERNELS)
#undef D2L_CROSS_ENTROPY_KERNELS

}  // namespace d2l::cpu
