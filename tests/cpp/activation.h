// Activations in double, which kernels are compared with.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/shapes.h"

namespace d2l::test {

inline double activated(double x, Activation activation) {
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::relu:
      return x < 0 ? 0 : x;
    case Activation::sigmoid:
      return 1 / (1 + std::exp(-x));
    case Activation::tanh:
      return std::tanh(x);
  }
  return x;
}

// By the activated value.
inline double derivative(double y, Activation activation) {
  switch (activation) {
    case Activation::none:
      return 1;
    case Activation::relu:
      return y > 0 ? 1 : 0;
    case Activation::sigmoid:
      return y * (1 - y);
    case Activation::tanh:
      return 1 - y * y;
  }
  return 1;
}

// Whether `got` is the activation of `linear`, which was rounded the same way.
template <typename T>
bool is_activated(const std::vector<T>& got, const std::vector<T>& linear, Activation activation) {
  for (size_t i = 0; i < got.size(); ++i) {
    const double expected = activated(static_cast<double>(linear[i]), activation);
    // 4 units in the last place, of subnormal results too.
    const double bound = 4 * std::max(static_cast<double>(std::numeric_limits<T>::epsilon()) * std::fabs(expected),
                                      static_cast<double>(std::numeric_limits<T>::denorm_min()));
    if (!(std::fabs(static_cast<double>(got[i]) - expected) <= bound)) return false;
  }
  return true;
}

}  // namespace d2l::test
