// What the launchers of bias_grad.cpp call, once per instruction set. With Activation::none, `output` and `grad_pre`
// are not used.
#pragma once

#include "kernels/cpu/capability.h"
#include "kernels/cpu/element.h"
#include "kernels/shapes.h"

namespace d2l::cpu {

// Rows of `width` values that lie side by side.
struct BiasColumns {
  int64_t rows, width;
};

// Runs of values, `stride` apart.
struct BiasPlanes {
  int64_t planes, pixels, stride;
};

#define D2L_BIAS_GRAD_KERNELS(capability)                                                                          \
  namespace capability {                                                                                           \
  /* sums[j] is the sum of column j; `scratch` has room for `width` values. */                                     \
  template <typename E>                                                                                            \
  void bias_grad_columns(Activation activation, const BiasColumns& columns, const E* grad_output, const E* output, \
                         E* grad_pre, computed_t<E>* scratch, double* sums);                                       \
  /* sum[0] is the sum of all values. */                                                                           \
  template <typename E>                                                                                            \
  void bias_grad_planes(Activation activation, const BiasPlanes& planes, const E* grad_output, const E* output,    \
                        E* grad_pre, double* sum);                                                                 \
  }
D2L_FOR_EACH_CAPABILITY(D2L_BIAS_GRAD_KERNELS)
#undef D2L_BIAS_GRAD_KERNELS

}  // namespace d2l::cpu
