// What the launcher of dropout.cpp calls, once per instruction set: the blocks of philox.h from `begin` to `end`.
#pragma once

#include "kernels/cpu/capability.h"
#include "kernels/shapes.h"

#define D2L_DROPOUT_KERNELS(capability)                                                                           \
  namespace capability {                                                                                          \
  void dropout_blocks(int64_t begin, int64_t end, int64_t count, uint64_t seed, uint32_t threshold, float scale,  \
                      const float* input, float* output);                                                         \
  void dropout_blocks(int64_t begin, int64_t end, int64_t count, uint64_t seed, uint32_t threshold, double scale, \
                      const double* input, double* output);                                                       \
  }

namespace d2l::cpu {
D2L_FOR_EACH_CAPABILITY(D2L_DROPOUT_KERNELS)
}  // namespace d2l::cpu
