#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/shapes.h"

namespace d2l::test {

// Whether `got` is the activation of `linear`, which was rounded the same way.
template <typename T>
bool is_activated(const std::vector<T>& got, const std::vector<T>& linear, Activation activation) {
  for (size_t i = 0; i < got.size(); ++i) {
    const double x = static_cast<double>(linear[i]);
    const double expected = activation == Activation::relu      ? std::max(x, 0.0)
                            : activation == Activation::sigmoid ? 1 / (1 + std::exp(-x))
                                                                : std::tanh(x);
    // 4 units in the last place, of subnormal results too.
    const double bound = 4 * std::max(static_cast<double>(std::numeric_limits<T>::epsilon()) * std::fabs(expected),
                                      static_cast<double>(std::numeric_limits<T>::denorm_min()));
    if (!(std::fabs(static_cast<double>(got[i]) - expected) <= bound)) return false;
  }
  return true;
}

}  // namespace d2l::test
