// Types of the elements in memory. Kernels that come for more than float and double are written for an element type E
// and compute in computed_t<E>.
#pragma once

#include <cstdint>

namespace d2l::cpu {

// The upper half of a float.
struct BFloat16 {
  uint16_t bits;
};

template <typename E>
struct ComputedIn {
  using type = E;
};
template <>
struct ComputedIn<BFloat16> {
  using type = float;
};
template <typename E>
using computed_t = typename ComputedIn<E>::type;

}  // namespace d2l::cpu
