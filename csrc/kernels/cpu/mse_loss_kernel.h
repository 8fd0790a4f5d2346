// What the launchers of mse_loss.cpp call, once per instruction set.
#pragma once

#include "kernels/cpu/capability.h"
#include "kernels/cpu/element.h"
#include "kernels/shapes.h"

namespace d2l::cpu {

#define D2L_MSE_LOSS_KERNELS(capability)                                                                       \
  namespace capability {                                                                                       \
  template <typename E>                                                                                        \
  void squared_error_range(int64_t count, const E* input, const E* target, E* losses);                         \
  template <typename E>                                                                                        \
  void squared_error_sum(int64_t count, const E* input, const E* target, double* sum);                         \
  template <typename E>                                                                                        \
  void squared_error_grad_range(int64_t count, const E* grad_output, int64_t grad_stride, computed_t<E> scale, \
                                const E* input, const E* target, E* grad_input);                               \
  }
D2L_FOR_EACH_CAPABILITY(D2L_MSE_LOSS_KERNELS)
#undef D2L_MSE_LOSS_KERNELS

}  // namespace d2l::cpu
