// What the launchers of mse_loss.cpp call, once per instruction set.
#pragma once

#include "kernels/cpu/capability.h"
#include "kernels/shapes.h"

#define D2L_MSE_LOSS_KERNELS_OF(T)                                                                                 \
  void squared_error_range(int64_t count, const T* input, const T* target, T* losses);                             \
  void squared_error_sum(int64_t count, const T* input, const T* target, double* sum);                             \
  void squared_error_grad_range(int64_t count, const T* grad_output, int64_t grad_stride, T scale, const T* input, \
                                const T* target, T* grad_input);

#define D2L_MSE_LOSS_KERNELS(capability) \
  namespace capability {                 \
  D2L_MSE_LOSS_KERNELS_OF(float)         \
  D2L_MSE_LOSS_KERNELS_OF(double)        \
  }

namespace d2l::cpu {
D2L_FOR_EACH_CAPABILITY(D2L_MSE_LOSS_KERNELS)
}  // namespace d2l::cpu
