// How the kernels of conv2d_groups.h read and write vectors of channels that lie side by side. Only for kernel sources.
#pragma once

#include <utility>

#include "kernels/cpu/integers.h"
#include "kernels/cpu/vec_element.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// One of several vectors is whole; one alone may not be.
template <int kVectors, typename S>
D2L_INLINE element_vec_t<S> read_lanes(const S* from, int64_t count) {
  return kVectors > 1 || count == kElements<S> ? read(from) : read_partial(from, count);
}

// Two vectors of bfloat16 are read as one register: channels 0, 2, ... and 1, 3, ... are the halves of its lanes,
// which takes one instruction for each, in place of two.
template <int kVectors, typename S>
constexpr bool kAlternates = kIsRounded<S> && kVectors == 2;

template <typename S, int kVectors>
D2L_INLINE void read_vectors(const S* from, int64_t count, element_vec_t<S> (&values)[kVectors]) {
  if constexpr (kAlternates<kVectors, S>) {
    using Bits = bfloat16::Packs<kElements<S>>::Bits;
    Bits bits;
    __builtin_memcpy(&bits, from, sizeof(bits));
    values[0] = (element_vec_t<S>)(bits << 16);
    values[1] = (element_vec_t<S>)(bits & 0xffff0000);
  } else {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) values[v] = read_lanes<kVectors>(from + v * kElements<S>, count);
  }
}

template <typename S, int kVectors>
D2L_INLINE void write_vectors(S* to, const element_vec_t<S> (&values)[kVectors], int64_t count) {
  if constexpr (kAlternates<kVectors, S>) {
    const auto bits = bfloat16::rounded_bits(values[0]) >> 16 | (bfloat16::rounded_bits(values[1]) & 0xffff0000);
    __builtin_memcpy(to, &bits, sizeof(bits));
  } else if (kVectors > 1 || count == kElements<S>) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) write(to + v * kElements<S>, values[v]);
  } else {
    write_partial(to, values[0], count);
  }
}

template <typename T, int... I>
D2L_INLINE void alternate(vec_t<T> (&values)[2], std::integer_sequence<int, I...>) {
  const vec_t<T> even = __builtin_shufflevector(values[0], values[1], (2 * I)...);
  values[1] = __builtin_shufflevector(values[0], values[1], (2 * I + 1)...);
  values[0] = even;
}

// Factors of what read_vectors reads, `step` apart.
template <typename S, int kVectors>
D2L_INLINE void load_factors(const computed_t<S>* from, int64_t step, element_vec_t<S> (&values)[kVectors]) {
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) values[v] = load(from + v * step);
  if constexpr (kAlternates<kVectors, S>) {
    alternate<computed_t<S>>(values, std::make_integer_sequence<int, kElements<S>>{});
  }
}

// The lines of the cache that hold the vectors `ahead` elements behind.
template <int kVectors, typename S>
D2L_INLINE void prefetch_vectors(const S* from, int64_t ahead) {
  for (int v = 0; v < kVectors; v += kAlternates<kVectors, S> ? 2 : 1) prefetch(from + v * kElements<S>, ahead);
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
