// Types of the elements in memory. Kernels that come for more than float and double are written for an element type E
// and compute in computed_t<E>.
#pragma once

#include <cstdint>
#include <type_traits>

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

// Whether elements are widened and rounded on their way.
template <typename E>
constexpr bool kIsRounded = !std::is_same_v<E, computed_t<E>>;

constexpr uint16_t kBFloat16NaN = 0x7fc0;

// One element, widened, and rounded to nearest (ties to even). Inlined everywhere: see capability.h.
template <typename E>
inline __attribute__((always_inline)) computed_t<E> read_one(E from) {
  if constexpr (std::is_same_v<E, BFloat16>) {
    const uint32_t bits = static_cast<uint32_t>(from.bits) << 16;
    float value;
    __builtin_memcpy(&value, &bits, sizeof(value));
    return value;
  } else {
    return from;
  }
}

template <typename E>
inline __attribute__((always_inline)) E rounded_one(computed_t<E> value) {
  if constexpr (std::is_same_v<E, BFloat16>) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof(bits));
    if (value != value) return {kBFloat16NaN};
    return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
  } else {
    return value;
  }
}

}  // namespace d2l::cpu
