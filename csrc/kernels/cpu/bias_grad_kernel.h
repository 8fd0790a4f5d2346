// What the launchers of bias_grad.cpp call, once per instruction set. With Activation::none, `output` and `grad_pre`
// are not used.
#pragma once

#include "kernels/cpu/capability.h"
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

}  // namespace d2l::cpu

#define D2L_BIAS_GRAD_KERNELS_OF(T)                                                                                \
  /* sums[j] is the sum of column j; `scratch` has room for `width` values. */                                     \
  void bias_grad_columns(Activation activation, const BiasColumns& columns, const T* grad_output, const T* output, \
                         T* grad_pre, T* scratch, double* sums);                                                   \
  /* sum[0] is the sum of all values. */                                                                           \
  void bias_grad_planes(Activation activation, const BiasPlanes& planes, const T* grad_output, const T* output,    \
                        T* grad_pre, double* sum);

#define D2L_BIAS_GRAD_KERNELS(capability) \
  namespace capability {                  \
  D2L_BIAS_GRAD_KERNELS_OF(float)         \
  D2L_BIAS_GRAD_KERNELS_OF(double)        \
  }

namespace d2l::cpu {
D2L_FOR_EACH_CAPABILITY(D2L_BIAS_GRAD_KERNELS)
}  // namespace d2l::cpu
