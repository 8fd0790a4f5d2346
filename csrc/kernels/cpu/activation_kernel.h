// What the launchers of activations.cpp call, once per instruction set. `streams`: the result goes past the cache.
#pragma once

#include "kernels/cpu/capability.h"
#include "kernels/shapes.h"

#define D2L_ACTIVATION_KERNELS(capability)                                                                          \
  namespace capability {                                                                                            \
  void activation_range(Activation activation, int64_t count, const float* input, float* output, bool streams);     \
  void activation_range(Activation activation, int64_t count, const double* input, double* output, bool streams);   \
  void activation_grad_range(Activation activation, int64_t count, const float* grad_output, const float* output,   \
                             float* grad_input, bool streams);                                                      \
  void activation_grad_range(Activation activation, int64_t count, const double* grad_output, const double* output, \
                             double* grad_input, bool streams);                                                     \
  }

namespace d2l::cpu {
D2L_FOR_EACH_CAPABILITY(D2L_ACTIVATION_KERNELS)
}  // namespace d2l::cpu
