// The activations and their derivatives in the type that an element is computed in, for the kernels that apply them.
#pragma once

#include <type_traits>

#include "kernels/cuda/common.cuh"

namespace d2l::cuda {

template <Activation kActivation, typename Value>
__device__ __forceinline__ Value activate(Value x) {
  if constexpr (kActivation == Activation::relu) {
    return x < Value{0} ? Value{0} : x;  // NaN compares as false and stays
  } else if constexpr (kActivation == Activation::sigmoid) {
    return Value{1} / (Value{1} + exp(-x));
  } else if constexpr (kActivation == Activation::tanh) {
    return tanh(x);
  } else {
    return x;
  }
}

// gradient * activation'(x), where y = activation(x).
template <Activation kActivation, typename Value>
__device__ __forceinline__ Value activation_gradient(Value gradient, Value y) {
  if constexpr (kActivation == Activation::relu) {
    return y <= Value{0} ? Value{0} : gradient;
  } else if constexpr (kActivation == Activation::sigmoid) {
    return gradient * ((Value{1} - y) * y);
  } else if constexpr (kActivation == Activation::tanh) {
    return gradient * (Value{1} - y * y);
  } else {
    return gradient;
  }
}

// function(std::integral_constant<Activation, activation>{}).
template <typename Function>
LaunchStatus visit_activation(Activation activation, Function&& function) {
  switch (activation) {
    case Activation::relu:
      return function(std::integral_constant<Activation, Activation::relu>{});
    case Activation::sigmoid:
      return function(std::integral_constant<Activation, Activation::sigmoid>{});
    case Activation::tanh:
      return function(std::integral_constant<Activation, Activation::tanh>{});
    case Activation::none:
      break;
  }
  return function(std::integral_constant<Activation, Activation::none>{});
}

}  // namespace d2l::cuda
