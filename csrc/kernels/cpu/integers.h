// Integer arithmetic for kernel sources: std::min and the like are inline functions of another namespace (see
// capability.h).
#pragma once

#include "kernels/cpu/vec.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

D2L_INLINE constexpr int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
D2L_INLINE constexpr int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
D2L_INLINE constexpr int64_t clamp(int64_t value, int64_t low, int64_t high) { return max(low, min(value, high)); }

// For positive divisors; rounds towards plus infinity.
D2L_INLINE constexpr int64_t ceil_div(int64_t a, int64_t b) { return a > 0 ? (a + b - 1) / b : -(-a / b); }

D2L_INLINE constexpr int64_t gcd(int64_t a, int64_t b) {
  while (b != 0) {
    const int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
