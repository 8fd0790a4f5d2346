// What the launcher of dropout.cpp calls, once per instruction set: the blocks of philox.h from `begin` to `end`.
#pragma once

#include "kernels/cpu/capability.h"
#include "kernels/cpu/element.h"

namespace d2l::cpu {

#define D2L_DROPOUT_KERNELS(capability)                                                             \
  namespace capability {                                                                            \
  template <typename E>                                                                             \
  void dropout_blocks(int64_t begin, int64_t end, int64_t count, uint64_t seed, uint32_t threshold, \
                      computed_t<E> scale, const E* input, E* output);                              \
  }
D2L_FOR_EACH_CAPABILITY(D2L_DROPOUT_KERNELS)
#undef D2L_DROPOUT_KERNELS

}  // namespace d2l::cpu
