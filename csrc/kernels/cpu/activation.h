// Activations over vectors and runs of memory. Only for kernel sources.
#pragma once

#include "kernels/cpu/integers.h"
#include "kernels/cpu/vec_math.h"
#include "kernels/shapes.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// max(x, 0); NaN stays NaN.
template <typename T>
D2L_INLINE vec_t<T> relu(vec_t<T> x) {
  return larger<T>(vec_t<T>{}, x);
}

template <typename T, typename Function>
D2L_INLINE void map_run(T* values, int64_t count, Function&& function) {
  int64_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) store(values + i, function(load(values + i)));
  if (i < count) store_partial(values + i, function(load_partial(values + i, count - i)), count - i);
}

// In place.
template <typename T>
void activate(T* values, int64_t count, Activation activation) {
  switch (activation) {
    case Activation::none:
      break;
    case Activation::relu:
      map_run(values, count, [](vec_t<T> x) D2L_INLINE_LAMBDA { return relu<T>(x); });
      break;
    case Activation::sigmoid:
      map_run(values, count, [](vec_t<T> x) D2L_INLINE_LAMBDA { return sigmoid<T>(x); });
      break;
    case Activation::tanh:
      map_run(values, count, [](vec_t<T> x) D2L_INLINE_LAMBDA { return tanh<T>(x); });
      break;
  }
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
