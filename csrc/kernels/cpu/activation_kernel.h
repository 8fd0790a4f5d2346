// What the launchers of activations.cpp call, once per instruction set. `streams`: the result goes past the cache.
#pragma once

#include "kernels/cpu/capability.h"
#include "kernels/cpu/element.h"
#include "kernels/shapes.h"

namespace d2l::cpu {

#define D2L_ACTIVATION_KERNELS(capability)                                                                \
  namespace capability {                                                                                  \
  template <typename E>                                                                                   \
  void activation_range(Activation activation, int64_t count, const E* input, E* output, bool streams);   \
  template <typename E>                                                                                   \
  void activation_grad_range(Activation activation, int64_t count, const E* grad_output, const E* output, \
                             E* grad_input, bool streams);                                                \
  }
D2L_FOR_EACH_CAPABILITY(D2L_ACTIVATION_KERNELS)
#undef D2L_ACTIVATION_KERNELS

}  // namespace d2l::cpu
