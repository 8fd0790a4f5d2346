// Launchers of batch normalisation on the CPU (see BatchNormShape), for E = float, double and BFloat16, alone or fused
// with a residual and an activation: output = activation(normalised + residual).
//
// Statistics and the sums of gradients are double, whatever E: a mean in float32 would be off by a part of the standard
// deviation where the mean is much larger. Results do not depend on the number of threads.
#pragma once

#include "kernels/cpu/element.h"
#include "kernels/cpu/short_array.h"
#include "kernels/shapes.h"

namespace d2l::cpu {

// An array of numbers of channels, or of some for each.
template <typename T>
using ChannelArray = ShortArray<T, 128>;

// Maps in memory: dense in the layout, or in NHWC a range of the channels of wider maps, whose pixels are `pixel`
// elements apart (0: dense). Without data: not given, or not wanted.
template <typename T>
struct NormMaps {
  T* data = nullptr;
  int64_t pixel = 0;
};

// What the channels are normalised with.
template <typename T>
struct Normalization {
  double eps;
  const double* mean;
  const double* var;
  const T* weight;  // null: ones
  const T* bias;    // null: zeros
  Activation activation = Activation::none;
};

// Given for a gradient. With an activation, the gradient is first taken through it: by `output` if that is given, else
// (of no residual) by what `input` is normalised to. The result is left in `through`, which may be grad_output; it is
// also the gradient of the residual, and is given to batch_norm_input_grad as grad_output, without activation. A ReLU
// of no residual needs no `through`: both functions ask for the sign of what `input` is normalised to.
template <typename E>
struct NormGradients {
  NormMaps<const E> grad_output, input;
  NormMaps<const E> output = {};
  NormMaps<E> through = {};
};

// The mean and the variance (the mean squared deviation) of each channel; zeros for no values.
template <typename E>
void batch_norm_moments(const BatchNormShape& shape, Layout layout, NormMaps<const E> input, double* mean, double* var);

template <typename E>
void batch_norm_apply(const BatchNormShape& shape, Layout layout, const Normalization<computed_t<E>>& by,
                      NormMaps<const E> input, NormMaps<const E> residual, NormMaps<E> output);

// The gradients of weight and bias.
template <typename E>
void batch_norm_grad_sums(const BatchNormShape& shape, Layout layout, const Normalization<computed_t<E>>& by,
                          const NormGradients<E>& gradients, double* grad_weight, double* grad_bias);

// The gradient of the input whose statistics mean and var are, from the sums of batch_norm_grad_sums; added to
// grad_input if `accumulate`.
template <typename E>
void batch_norm_input_grad(const BatchNormShape& shape, Layout layout, const Normalization<computed_t<E>>& by,
                           NormMaps<const E> grad_output, NormMaps<const E> input, const double* grad_weight,
                           const double* grad_bias, bool accumulate, NormMaps<E> grad_input);

// The first two in one, and the last two: what was summed is still in a cache when it is applied. `by.mean` and
// `by.var` of batch_norm_train are not read: the statistics go to mean and var.
template <typename E>
void batch_norm_train(const BatchNormShape& shape, Layout layout, const Normalization<computed_t<E>>& by,
                      NormMaps<const E> input, NormMaps<const E> residual, NormMaps<E> output, double* mean,
                      double* var);

template <typename E>
void batch_norm_train_grad(const BatchNormShape& shape, Layout layout, const Normalization<computed_t<E>>& by,
                           const NormGradients<E>& gradients, NormMaps<E> grad_input, double* grad_weight,
                           double* grad_bias);

}  // namespace d2l::cpu
