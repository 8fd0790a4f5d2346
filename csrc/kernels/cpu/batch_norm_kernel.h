// What the launchers of batch_norm.cpp hand to the kernels that are compiled once per capability. No inline function
// here: launchers and kernels are compiled for different instruction sets.
//
// The maps are seen as a matrix whose columns each belong to one channel (NHWC, and NCHW with very small planes), or as
// the planes of one channel (NCHW), which are the rows of a matrix.
#pragma once

#include <cstdint>

#include "kernels/cpu/capability.h"
#include "kernels/cpu/element.h"
#include "kernels/shapes.h"

namespace d2l::cpu {

// A matrix of `rows` x `width`.
struct NormExtent {
  int64_t rows, width;
};

// One matrix, with `pitch` elements from one row to the next; null if not given.
template <typename T>
struct NormRows {
  T* data;
  int64_t pitch;
};

// Normalises: output = activation((input - center) * scale + shift + residual).
template <typename T>
struct NormCoefficients {
  const T* center;
  const T* scale;
  const T* shift;
};

// Differentiates: grad_input = grad_output * scale - (input - center) * slope - offset. If `masked`, grad_output counts
// only where (input - center) * scale + shift is positive.
template <typename T>
struct NormGradCoefficients {
  NormCoefficients<T> forward;
  const T* slope;
  const T* offset;
  bool masked;
};

// What grad_output is taken through before it is summed: nothing, or an activation, by its output, or without one by
// what the input is normalised to. That leaves the result in `through`; of a ReLU without it, the sign is asked again.
template <typename E>
struct NormActivationGrad {
  Activation activation;
  NormRows<const E> output;
  NormRows<E> through;
};

// Coefficients and sums: one for each column, or one for the planes. Sums are added to what is there. `sum` and
// `squares` are those of input - center, where norm_centers chooses the center among the input's values; `sum` and
// `product` those of grad_output and of grad_output * (input - center).
#define D2L_BATCH_NORM_KERNELS(capability)                                                                \
  namespace capability {                                                                                  \
  template <typename E>                                                                                   \
  void column_centers(NormExtent work, NormRows<const E> input, computed_t<E>* center);                   \
  template <typename E>                                                                                   \
  void column_moments(NormExtent work, NormRows<const E> input, const computed_t<E>* center, double* sum, \
                      double* squares);                                                                   \
  template <typename E>                                                                                   \
  void column_grad_sums(NormExtent work, NormRows<const E> grad_output, NormRows<const E> input,          \
                        NormCoefficients<computed_t<E>> by, NormActivationGrad<E> before, double* sum,    \
                        double* product);                                                                 \
  template <typename E>                                                                                   \
  void column_normalize(NormExtent work, NormCoefficients<computed_t<E>> by, Activation activation,       \
                        NormRows<const E> input, NormRows<const E> residual, NormRows<E> output);         \
  template <typename E>                                                                                   \
  void column_input_grad(NormExtent work, NormGradCoefficients<computed_t<E>> by, bool accumulate,        \
                         NormRows<const E> grad_output, NormRows<const E> input, NormRows<E> grad_input); \
  template <typename E>                                                                                   \
  void plane_center(NormExtent work, NormRows<const E> input, computed_t<E>* center);                     \
  template <typename E>                                                                                   \
  void plane_moments(NormExtent work, NormRows<const E> input, const computed_t<E>* center, double* sum,  \
                     double* squares);                                                                    \
  template <typename E>                                                                                   \
  void plane_grad_sums(NormExtent work, NormRows<const E> grad_output, NormRows<const E> input,           \
                       NormCoefficients<computed_t<E>> by, NormActivationGrad<E> before, double* sum,     \
                       double* product);                                                                  \
  template <typename E>                                                                                   \
  void plane_normalize(NormExtent work, NormCoefficients<computed_t<E>> by, Activation activation,        \
                       NormRows<const E> input, NormRows<const E> residual, NormRows<E> output);          \
  template <typename E>                                                                                   \
  void plane_input_grad(NormExtent work, NormGradCoefficients<computed_t<E>> by, bool accumulate,         \
                        NormRows<const E> grad_output, NormRows<const E> input, NormRows<E> grad_input);  \
  }

D2L_FOR_EACH_CAPABILITY(D2L_BATCH_NORM_KERNELS)

#undef D2L_BATCH_NORM_KERNELS

}  // namespace d2l::cpu
