// One SIMD register of T, as wide as the capability the file is compiled for. Only for *_kernel.cpp (see capability.h).
//
// Vec<T>::type is a compiler vector type: + - * / and comparisons work per lane on every architecture, and a * b + c
// becomes a fused multiply-add where the machine has one. Loads and stores need no alignment.
#pragma once

#include <cstdint>
#include <cstring>

#if !defined(D2L_CPU_CAPABILITY)
#error "compile kernel sources once per capability, with -DD2L_CPU_CAPABILITY=baseline|avx2|avx512|..."
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define D2L_INLINE inline __attribute__((always_inline))
#define D2L_INLINE_LAMBDA __attribute__((always_inline))

namespace d2l::cpu::D2L_CPU_CAPABILITY {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

constexpr int64_t kLineBytes = 64;  // of a cache line

// Lanes of a register of T.
template <typename T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <typename T>
struct Vec {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <typename T>
using vec_t = typename Vec<T>::type;

template <typename T>
D2L_INLINE vec_t<T> load(const T* from) {
  vec_t<T> value;
  __builtin_memcpy(&value, from, sizeof(value));
  return value;
}

template <typename T>
D2L_INLINE void store(T* to, vec_t<T> value) {
  __builtin_memcpy(to, &value, sizeof(value));
}

template <typename T>
D2L_INLINE vec_t<T> broadcast(T value) {
  return value - vec_t<T>{};  // x - 0 keeps every x, -0 and NaN included
}

// Keeps g++ from loading a value anew for each of its uses, as part of other instructions.
template <typename V>
D2L_INLINE void keep_in_register([[maybe_unused]] V& value) {
#if defined(__x86_64__)
  asm("" : "+v"(value));
#endif
}

// a > b ? a : b, which is b where either is NaN: one instruction, of which g++ makes two or three by itself. It warns
// of AVX-512's intrinsics without masks.
template <typename T>
D2L_INLINE vec_t<T> larger(vec_t<T> a, vec_t<T> b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return _mm512_maskz_max_ps(0xffff, a, b);
  } else {
    return _mm512_maskz_max_pd(0xff, a, b);
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    return _mm256_max_ps(a, b);
  } else {
    return _mm256_max_pd(a, b);
  }
#else
  return a > b ? a : b;
#endif
}

// a < b ? a : b, likewise.
template <typename T>
D2L_INLINE vec_t<T> smaller(vec_t<T> a, vec_t<T> b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return _mm512_maskz_min_ps(0xffff, a, b);
  } else {
    return _mm512_maskz_min_pd(0xff, a, b);
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    return _mm256_min_ps(a, b);
  } else {
    return _mm256_min_pd(a, b);
  }
#else
  return a < b ? a : b;
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// The mask of the first `count` lanes of 32 bits.
D2L_INLINE __m256i first_lanes(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif

// The first `count` lanes (0 <= count <= lanes); the others read as 0 and stay unwritten. Memory beyond is not touched.
template <typename T>
D2L_INLINE vec_t<T> load_partial(const T* from, int64_t count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return (vec_t<T>)_mm512_maskz_loadu_epi32(static_cast<__mmask16>((1u << count) - 1), from);
  } else if constexpr (sizeof(T) == 8) {
    return (vec_t<T>)_mm512_maskz_loadu_epi64(static_cast<__mmask8>((1u << count) - 1), from);
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    return (vec_t<T>)_mm256_maskload_epi32(reinterpret_cast<const int*>(from), first_lanes(count));
  } else if constexpr (sizeof(T) == 8) {
    return (vec_t<T>)_mm256_maskload_epi32(reinterpret_cast<const int*>(from), first_lanes(2 * count));
  }
#endif
  vec_t<T> value{};
  __builtin_memcpy(&value, from, static_cast<size_t>(count) * sizeof(T));
  return value;
}

template <typename T>
D2L_INLINE void store_partial(T* to, vec_t<T> value, int64_t count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    _mm512_mask_storeu_epi32(to, static_cast<__mmask16>((1u << count) - 1), (__m512i)value);
    return;
  } else if constexpr (sizeof(T) == 8) {
    _mm512_mask_storeu_epi64(to, static_cast<__mmask8>((1u << count) - 1), (__m512i)value);
    return;
  }
#elif defined(__AVX2__)
  if (count == kLanes<T>) {  // AMD's cores take 18 cycles and more for a store with a mask
    store<T>(to, value);
    return;
  }
  if constexpr (sizeof(T) == 4) {
    _mm256_maskstore_epi32(reinterpret_cast<int*>(to), first_lanes(count), (__m256i)value);
    return;
  } else if constexpr (sizeof(T) == 8) {
    _mm256_maskstore_epi32(reinterpret_cast<int*>(to), first_lanes(2 * count), (__m256i)value);
    return;
  }
#endif
  __builtin_memcpy(to, &value, static_cast<size_t>(count) * sizeof(T));
}

// Several operands at once, or one with jumps to the next plane, lie in memory or the last cache: the hardware alone
// does not stream them at full speed. Any address will do.
template <typename T>
D2L_INLINE void prefetch(const T* from, int64_t ahead) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(from) + static_cast<uintptr_t>(ahead) * sizeof(T);
  __builtin_prefetch(reinterpret_cast<const void*>(address));
}
template <typename T>
constexpr int64_t kAhead = 2048 / static_cast<int64_t>(sizeof(T));

// Past the cache; `to` is aligned to a register.
template <typename T>
D2L_INLINE void store_streaming(T* to, vec_t<T> value) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(to), (__m512i)value);
#elif defined(__AVX2__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), (__m256i)value);
#else
  store(to, value);
#endif
}

// What streamed becomes visible to other threads in order with what follows.
D2L_INLINE void finish_streaming() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
