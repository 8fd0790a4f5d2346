// The activations and their derivatives for a register. Only for *_kernel.cpp (see vec.h).
#pragma once

#include <type_traits>

#include "kernels/cpu/vec_math.h"
#include "kernels/shapes.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

template <Activation kActivation, typename T>
D2L_INLINE vec_t<T> activate(vec_t<T> x) {
  if constexpr (kActivation == Activation::relu) {
    return larger<T>(vec_t<T>{}, x);  // NaN stays
  } else if constexpr (kActivation == Activation::sigmoid) {
    return sigmoid<T>(x);
  } else if constexpr (kActivation == Activation::tanh) {
    return tanh<T>(x);
  } else {
    return x;
  }
}

// gradient * activation'(x), where y = activation(x).
template <Activation kActivation, typename T>
D2L_INLINE vec_t<T> activation_gradient(vec_t<T> gradient, vec_t<T> y) {
  if constexpr (kActivation == Activation::relu) {
    return y <= 0 ? vec_t<T>{} : gradient;
  } else if constexpr (kActivation == Activation::sigmoid) {
    return gradient * ((1 - y) * y);
  } else if constexpr (kActivation == Activation::tanh) {
    return gradient * (1 - y * y);
  } else {
    return gradient;
  }
}

// function(std::integral_constant<Activation, activation>{}).
template <typename Function>
D2L_INLINE void visit_activation(Activation activation, Function&& function) {
  switch (activation) {
    case Activation::none:
      return function(std::integral_constant<Activation, Activation::none>{});
    case Activation::relu:
      return function(std::integral_constant<Activation, Activation::relu>{});
    case Activation::sigmoid:
      return function(std::integral_constant<Activation, Activation::sigmoid>{});
    case Activation::tanh:
      return function(std::integral_constant<Activation, Activation::tanh>{});
  }
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
