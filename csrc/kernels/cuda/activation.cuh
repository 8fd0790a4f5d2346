// Activations of one value, computed in float (float64: double), for the epilogues of other kernels.
#pragma once

#include "kernels/cuda/common.cuh"

namespace d2l::cuda {

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
// Of a number of at least 1. IEEE division of floats has a slow path, whose call costs registers.
__device__ __forceinline__ float reciprocal(float x) { return __fdividef(1.0f, x); }
__device__ __forceinline__ double reciprocal(double x) { return 1.0 / x; }
__device__ __forceinline__ float hyperbolic_tangent(float x) { return tanhf(x); }
__device__ __forceinline__ double hyperbolic_tangent(double x) { return tanh(x); }

// NaN stays NaN.
template <typename Sum>
__device__ __forceinline__ Sum activated(Sum x, Activation activation) {
  switch (activation) {
    case Activation::none:
      break;
    case Activation::relu:
      return x < Sum(0) ? Sum(0) : x;
    case Activation::sigmoid:
      return reciprocal(Sum(1) + exponential(-x));
    case Activation::tanh:
      return hyperbolic_tangent(x);
  }
  return x;
}

}  // namespace d2l::cuda
