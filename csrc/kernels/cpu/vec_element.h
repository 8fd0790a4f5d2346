// Registers of what elements of type E are computed in: read() widens elements on their way from memory, write() rounds
// to nearest (ties to even) on the way back, as torch's own conversions do, subnormal values included. For float and
// double they are load() and store(). Only for *_kernel.cpp (see vec.h).
#pragma once

#include <type_traits>

#include "kernels/cpu/element.h"
#include "kernels/cpu/vec.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// Elements of a register, and the register.
template <typename E>
constexpr int kElements = kLanes<computed_t<E>>;
template <typename E>
using element_vec_t = vec_t<computed_t<E>>;

namespace bfloat16 {

template <int kCount>
struct Packs {
  typedef uint16_t Half __attribute__((vector_size(kCount * sizeof(uint16_t))));
  typedef uint32_t Bits __attribute__((vector_size(kCount * sizeof(uint32_t))));
  typedef float Floats __attribute__((vector_size(kCount * sizeof(float))));
};

// For registers, and for packs of any power of two. Of conversions g++ makes three instructions, or a permutation by a
// table. (Of the masks: see larger().)
template <int kCount = kLanes<float>>
D2L_INLINE auto widened(typename Packs<kCount>::Half half) {
  using Bits = typename Packs<kCount>::Bits;
  using Floats = typename Packs<kCount>::Floats;
#if defined(__AVX512F__)
  if constexpr (kCount == 16) {
    return (Floats)((Bits)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)half) << 16);
  }
#endif
  return (Floats)(__builtin_convertvector(half, Bits) << 16);
}

// Rounded in the upper halves, the lower of which are of no meaning.
template <int kCount = kLanes<float>>
D2L_INLINE auto rounded_bits(typename Packs<kCount>::Floats value) {
  using Bits = typename Packs<kCount>::Bits;
  const auto bits = (Bits)value;
  const Bits nearest = bits + 0x7fff + ((bits >> 16) & 1);
  return value == value ? nearest : Bits{} + (uint32_t{kBFloat16NaN} << 16);
}

template <int kCount = kLanes<float>>
D2L_INLINE auto rounded(typename Packs<kCount>::Floats value) {
  using Half = typename Packs<kCount>::Half;
  const typename Packs<kCount>::Bits result = rounded_bits<kCount>(value) >> 16;
#if defined(__AVX512F__)
  if constexpr (kCount == 16) return (Half)_mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)result);
#endif
  return __builtin_convertvector(result, Half);
}

using Half = Packs<kLanes<float>>::Half;

}  // namespace bfloat16

template <typename E>
D2L_INLINE element_vec_t<E> read(const E* from) {
  if constexpr (std::is_same_v<E, BFloat16>) {
    bfloat16::Half half;
    __builtin_memcpy(&half, from, sizeof(half));
    return bfloat16::widened(half);
  } else {
    return load(from);
  }
}

template <typename E>
D2L_INLINE void write(E* to, element_vec_t<E> value) {
  if constexpr (std::is_same_v<E, BFloat16>) {
    const bfloat16::Half half = bfloat16::rounded(value);
    __builtin_memcpy(to, &half, sizeof(half));
  } else {
    store(to, value);
  }
}

// The first `count` elements (0 <= count <= kElements); the others read as 0 and stay unwritten. Memory beyond is not
// touched.
template <typename E>
D2L_INLINE element_vec_t<E> read_partial(const E* from, int64_t count) {
  if constexpr (std::is_same_v<E, BFloat16>) {
#if defined(__AVX512F__)
    return bfloat16::widened((bfloat16::Half)_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << count) - 1), from));
#else
    bfloat16::Half half{};
    __builtin_memcpy(&half, from, static_cast<size_t>(count) * sizeof(E));
    return bfloat16::widened(half);
#endif
  } else {
    return load_partial(from, count);
  }
}

template <typename E>
D2L_INLINE void write_partial(E* to, element_vec_t<E> value, int64_t count) {
  if constexpr (std::is_same_v<E, BFloat16>) {
    const bfloat16::Half half = bfloat16::rounded(value);
#if defined(__AVX512F__)
    _mm256_mask_storeu_epi16(to, static_cast<__mmask16>((1u << count) - 1), (__m256i)half);
#else
    __builtin_memcpy(to, &half, static_cast<size_t>(count) * sizeof(E));
#endif
  } else {
    store_partial(to, value, count);
  }
}

// Past the cache; `to` is aligned to the bytes of kElements elements.
template <typename E>
D2L_INLINE void write_streaming(E* to, element_vec_t<E> value) {
  if constexpr (std::is_same_v<E, BFloat16>) {
#if defined(__AVX512F__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), (__m256i)bfloat16::rounded(value));
#elif defined(__AVX2__)
    _mm_stream_si128(reinterpret_cast<__m128i*>(to), (__m128i)bfloat16::rounded(value));
#else
    write(to, value);
#endif
  } else {
    store_streaming(to, value);
  }
}

// Stores `count` elements: the register whole(i) at to + i, and part(i, n) where fewer are left. With `streams` they go
// past the cache, and the operands, which come from memory then, are fetched ahead.
template <typename E, typename Whole, typename Part, typename... Operands>
D2L_INLINE void write_all(E* to, int64_t count, bool streams, Whole&& whole, Part&& part, const Operands*... operands) {
  constexpr int64_t kStep = kElements<E>;
  int64_t i = 0;
  if (streams) {
    const auto beyond = static_cast<int64_t>(reinterpret_cast<uintptr_t>(to) % (kStep * sizeof(E)) / sizeof(E));
    i = beyond == 0 ? 0 : count < kStep - beyond ? count : kStep - beyond;
    if (i > 0) write_partial(to, part(0, i), i);
    for (; i + kStep <= count; i += kStep) {
      (prefetch(operands + i, kAhead<E>), ...);
      write_streaming(to + i, whole(i));
    }
    finish_streaming();
  }
  for (; i + kStep <= count; i += kStep) write(to + i, whole(i));
  if (i < count) write_partial(to + i, part(i, count - i), count - i);
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
