// What the launchers of cross_entropy.cpp call, once per instruction set: some rows (see rows.h).
#pragma once

#include "kernels/cpu/capability.h"
#include "kernels/cpu/cross_entropy.h"
#include "kernels/shapes.h"

#define D2L_CROSS_ENTROPY_KERNELS_OF(T)                                                                              \
  void cross_entropy_rows(const CrossEntropyShape& shape, int64_t begin, int64_t end, const T* input,                \
                          const int64_t* target, const T* weight, T total_weight, T* losses, T* statistics,          \
                          CrossEntropySums* sums);                                                                   \
  void cross_entropy_grad_rows(const CrossEntropyShape& shape, int64_t begin, int64_t end, const T* grad_output,     \
                               int64_t grad_stride, T scale, const T* input, const int64_t* target, const T* weight, \
                               T total_weight, const T* statistics, T* grad_input);

#define D2L_CROSS_ENTROPY_KERNELS(capability) \
  namespace capability {                      \
  D2L_CROSS_ENTROPY_KERNELS_OF(float)         \
  D2L_CROSS_ENTROPY_KERNELS_OF(double)        \
  }

namespace d2l::cpu {
D2L_FOR_EACH_CAPABILITY(D2L_CROSS_ENTROPY_KERNELS)
}  // namespace d2l::cpu
