// Launchers of the 2-D cross-correlation on the CPU and of its two derivatives. T is float or double, and E, of the
// elements of maps, BFloat16 as well.
//
// Maps (input, output and their gradients) are in `layout`, dense but for the pixel strides of the shape. A weight has
// its own element strides, so that both memory formats of torch are read and written in place; it is logically [K,
// C/groups, R, S]. conv2d_algorithm.h says how they compute, and with what error. Results are the same for every run
// with the same number of threads. Nothing is read before it is written: outputs may hold anything on entry.
#pragma once

#include "kernels/cpu/conv2d_algorithm.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/progress.h"
#include "kernels/shapes.h"

namespace d2l::cpu {

// Element strides of the axes k, c, r, s.
struct WeightStrides {
  int64_t k, c, r, s;
};

// Whether a pass over maps of BFloat16, which is no matrix product (see conv2d_bfloat16.h), is faster than over copies.
bool conv2d_takes_elements(const Conv2dShape& shape, Conv2dPass pass);

template <typename E>
void conv2d(const Conv2dShape& shape, Layout layout, const E* input, const computed_t<E>* weight,
            WeightStrides weight_strides, const computed_t<E>* bias /* [K] or null */, E* output,
            Activation activation = Activation::none, const Progress& progress = {});

// The same (into a dense map), and the mean and the variance of each output channel, which are those of
// batch_norm_moments to the last bit: what is summed is still in a cache.
template <typename T>
void conv2d_moments(const Conv2dShape& shape, Layout layout, const T* input, const T* weight,
                    WeightStrides weight_strides, const T* bias, T* output, double* mean, double* var);

template <typename E>
void conv2d_input_grad(const Conv2dShape& shape, Layout layout, const E* grad_output, const computed_t<E>* weight,
                       WeightStrides weight_strides, E* grad_input);

template <typename E>
void conv2d_weight_grad(const Conv2dShape& shape, Layout layout, const E* grad_output, const E* input, E* grad_weight,
                        WeightStrides grad_weight_strides);

}  // namespace d2l::cpu
