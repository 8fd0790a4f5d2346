// The kernel of add_relu.cpp, which is compiled once per capability. `streams`: the result goes past the cache.
#pragma once

#include <cstdint>

#include "kernels/cpu/capability.h"
#include "kernels/cpu/element.h"

namespace d2l::cpu {

#define D2L_ADD_RELU_KERNELS(capability)                                                       \
  namespace capability {                                                                       \
  template <typename E>                                                                        \
  void add_relu_range(int64_t count, const E* input, const E* other, E* output, bool streams); \
  }

D2L_FOR_EACH_CAPABILITY(D2L_ADD_RELU_KERNELS)

#undef D2L_ADD_RELU_KERNELS

}  // namespace d2l::cpu
