// What the launchers of batch_norm.cpp hand to the kernels that are compiled once per capability. No inline function
// here: launchers and kernels are compiled for different instruction sets.
//
// The maps are seen as a matrix whose columns each belong to one channel (NHWC, and NCHW with very small planes), or as
// the planes of one channel (NCHW).
#pragma once

#include <cstdint>

#include "kernels/cpu/capability.h"

namespace d2l::cpu {

// `rows` neighbouring rows of `width` columns each.
struct NormColumns {
  int64_t rows, width;
};

// `images` planes of `pixels` neighbouring elements each, `pitch` elements from one to the next.
struct NormPlanes {
  int64_t images, pixels, pitch;
};

// Normalises: output = (input - center) * scale + shift.
template <typename T>
struct NormCoefficients {
  const T* center;
  const T* scale;
  const T* shift;
};

// Differentiates: grad_input = grad_output * scale - (input - center) * slope - shift.
template <typename T>
struct NormGradCoefficients {
  const T* center;
  const T* scale;
  const T* slope;
  const T* shift;
};

// Results and coefficients: one for each column, or one for all planes. `squares` is the sum of the squared deviations
// from the mean; `sum` that of grad_output, `product` that of grad_output * (input - center).
#define D2L_BATCH_NORM_KERNELS(capability)                                                                    \
  namespace capability {                                                                                      \
  template <typename T>                                                                                       \
  void column_moments(NormColumns work, const T* input, double* mean, double* squares);                       \
  template <typename T>                                                                                       \
  void column_grad_sums(NormColumns work, const T* grad_output, const T* input, const T* center, double* sum, \
                        double* product);                                                                     \
  template <typename T>                                                                                       \
  void column_normalize(NormColumns work, NormCoefficients<T> by, const T* input, T* output);                 \
  template <typename T>                                                                                       \
  void column_input_grad(NormColumns work, NormGradCoefficients<T> by, const T* grad_output, const T* input,  \
                         T* grad_input);                                                                      \
  template <typename T>                                                                                       \
  void plane_moments(NormPlanes work, const T* input, double* mean, double* squares);                         \
  template <typename T>                                                                                       \
  void plane_grad_sums(NormPlanes work, const T* grad_output, const T* input, const T* center, double* sum,   \
                       double* product);                                                                      \
  template <typename T>                                                                                       \
  void plane_normalize(NormPlanes work, NormCoefficients<T> by, const T* input, T* output);                   \
  template <typename T>                                                                                       \
  void plane_input_grad(NormPlanes work, NormGradCoefficients<T> by, const T* grad_output, const T* input,    \
                        T* grad_input);                                                                       \
  }

D2L_FOR_EACH_CAPABILITY(D2L_BATCH_NORM_KERNELS)

#undef D2L_BATCH_NORM_KERNELS

}  // namespace d2l::cpu
