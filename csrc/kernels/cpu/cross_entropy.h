// Launchers of cross-entropy on the CPU (see CrossEntropyShape), for E = float, double and BFloat16, computed in
// T = computed_t<E>. Tensors are contiguous; `weight` may be null (ones). Results do not depend on the number of
// threads.
#pragma once

#include "kernels/cpu/element.h"
#include "kernels/shapes.h"

namespace d2l::cpu {

struct CrossEntropySums {
  double loss, weight;
  int64_t row_out_of_range;  // of a target that is no class; -1 if there is none
};

// `statistics` [2, N, pixels] holds the maximum of each row and the logarithm of its sum of exp(x - max), for the
// backward pass. `losses` may be null.
template <typename E, typename T = computed_t<E>>
CrossEntropySums cross_entropy(const CrossEntropyShape& shape, const E* input, const int64_t* target, const T* weight,
                               E* losses, T* statistics);

// Row r has the gradient grad_output[r * grad_stride] * scale, where grad_stride is 0 or 1.
template <typename E, typename T = computed_t<E>>
void cross_entropy_input_grad(const CrossEntropyShape& shape, const E* grad_output, int64_t grad_stride, T scale,
                              const E* input, const int64_t* target, const T* weight, const T* statistics,
                              E* grad_input);

}  // namespace d2l::cpu
