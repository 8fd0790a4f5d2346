// The product that all matrix kernels are made of. Only for kernel sources.
#pragma once

#include "kernels/cpu/vec.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// sum + a * b per lane. Compiled for bfloat16, a and b are pairs of bfloat16 in the bits of a float each, and the sum
// of both products is added.
template <typename T>
D2L_INLINE vec_t<T> multiply_add(vec_t<T> a, vec_t<T> b, vec_t<T> sum) {
#if defined(__AVX512BF16__)
  static_assert(sizeof(T) == 4);
  return (vec_t<T>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
  return sum + a * b;
#endif
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
