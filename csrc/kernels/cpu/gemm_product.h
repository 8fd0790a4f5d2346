// What the kernels of matrix products compute, and how they reach their operands. Only for kernel sources.
//
// Compiled for bfloat16, a step of the depth is a pair of values, which travels as the bits of a float: nothing but
// multiply_add looks at it. Pairs lie in memory where the depth is contiguous; else two neighbouring lines are woven
// together on the way into registers. Sums are float and are rounded once.
#pragma once

#include "kernels/cpu/integers.h"
#include "kernels/cpu/progress.h"
#include "kernels/cpu/vec.h"
#include "kernels/shapes.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

#if defined(__AVX512BF16__)
constexpr bool kRounds = true;
constexpr int64_t kStepValues = 2;
template <typename T>
using Value = uint16_t;
#else
constexpr bool kRounds = false;
constexpr int64_t kStepValues = 1;
template <typename T>
using Value = T;
#endif

// sum + a * b per lane; for bfloat16, the sum of both products is added.
template <typename T>
D2L_INLINE vec_t<T> multiply_add(vec_t<T> a, vec_t<T> b, vec_t<T> sum) {
#if defined(__AVX512BF16__)
  static_assert(sizeof(T) == 4);
  return (vec_t<T>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
  return sum + a * b;
#endif
}

#if defined(__AVX512BF16__)
// Two registers of floats that follow one another as a register of pairs.
template <typename T>
D2L_INLINE vec_t<T> rounded_pairs(__m512 first, __m512 second) {
  return (vec_t<T>)(__m512i)_mm512_cvtne2ps_pbh(second, first);
}

// Lines of an operand that are neighbours in memory, at one step of the depth.
template <typename T>
struct Neighbours {
  const uint16_t *first, *second;
  __mmask16 has_second;                                           // none of them where the depth is odd
  const float *first_floats = nullptr, *second_floats = nullptr;  // instead

  D2L_INLINE vec_t<T> at(int64_t i) const { return paired(i, 0xffff); }
  D2L_INLINE vec_t<T> at(int64_t i, int64_t count) const {
    return paired(i, static_cast<__mmask16>((1u << count) - 1));
  }
  // One line of memory of values, two of floats.
  D2L_INLINE void prefetch(int64_t i) const {
    if (first_floats == nullptr) {
      __builtin_prefetch(first + i, 0, 2);
      __builtin_prefetch(second + i, 0, 2);
      return;
    }
#pragma GCC unroll 2
    for (int64_t j = i; j < i + 2 * kLanes<T>; j += kLanes<T>) {
      __builtin_prefetch(first_floats + j, 0, 2);
      __builtin_prefetch(second_floats + j, 0, 2);
    }
  }

 private:
  D2L_INLINE vec_t<T> paired(int64_t i, __mmask16 lanes) const {
    const bool are_floats = first_floats != nullptr;
    const __m512i low = are_floats ? rounded(first_floats + i, lanes) : widened(first + i, lanes);
    const __m512i high = are_floats ? rounded(second_floats + i, lanes) : widened(second + i, lanes);
    return (vec_t<T>)_mm512_maskz_or_epi32(0xffff, low, _mm512_maskz_slli_epi32(has_second, high, 16));
  }
  static D2L_INLINE __m512i widened(const uint16_t* from, __mmask16 lanes) {
    return _mm512_maskz_cvtepu16_epi32(lanes, _mm256_maskz_loadu_epi16(lanes, from));
  }
  static D2L_INLINE __m512i rounded(const float* from, __mmask16 lanes) {
    return _mm512_maskz_cvtepu16_epi32(lanes, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes, from)));
  }
};

// Of results.
template <typename T>
D2L_INLINE void store_value(uint16_t* to, vec_t<T> value) {
  _mm256_storeu_epi16(to, (__m256i)_mm512_cvtneps_pbh((__m512)value));
}
// Of two registers that follow one another: one line of the cache.
template <typename T>
D2L_INLINE void store_values(uint16_t* to, vec_t<T> first, vec_t<T> second) {
  _mm512_storeu_epi16(to, (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first));
}
template <typename T>
D2L_INLINE void store_value(uint16_t* to, vec_t<T> value, int64_t count) {
  const auto lanes = static_cast<__mmask16>((1u << count) - 1);
  _mm256_mask_storeu_epi16(to, lanes, (__m256i)_mm512_cvtneps_pbh((__m512)value));
}
template <typename T>
D2L_INLINE void store_value_streaming(uint16_t* to, vec_t<T> value) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh((__m512)value));
}
#else
template <typename T>
struct Neighbours {
  const T* first;

  D2L_INLINE vec_t<T> at(int64_t i) const { return load(first + i); }
  D2L_INLINE vec_t<T> at(int64_t i, int64_t count) const { return load_partial(first + i, count); }
  D2L_INLINE void prefetch(int64_t i) const { __builtin_prefetch(first + i, 0, 2); }
};
#endif

template <typename T>
D2L_INLINE void store_value(T* to, vec_t<T> value) {
  store(to, value);
}
template <typename T>
D2L_INLINE void store_values(T* to, vec_t<T> first, vec_t<T> second) {
  store(to, first);
  store(to + kLanes<T>, second);
}
template <typename T>
D2L_INLINE void store_value(T* to, vec_t<T> value, int64_t count) {
  store_partial(to, value, count);
}
template <typename T>
D2L_INLINE void store_value_streaming(T* to, vec_t<T> value) {
  store_streaming(to, value);
}

// Steps of one run of the depth.
struct Steps {
  int64_t run, begin, end;
  D2L_INLINE int64_t size() const { return end - begin; }
};

// The rows of a, or the columns of b. Strides are in values.
template <typename T>
struct Operand {
  const Value<T>* data;
  int64_t line, depth, run;
  bool adjacent;                  // whether its lines are neighbours in memory (`line` is 1); else its depth is
  int64_t values;                 // of a run of the depth
  const float* floats = nullptr;  // of b: float32 values instead, rounded on their way

  D2L_INLINE int64_t offset(int64_t i, int64_t step, int64_t of_run) const {
    return of_run * run + i * line + step * kStepValues * depth;
  }

  D2L_INLINE const Value<T>* values_at(int64_t i, int64_t step, int64_t of_run) const {
    return data + offset(i, step, of_run);
  }

  // Where the depth is contiguous: a step of a line, and the distance to the same step of the next.
  D2L_INLINE const T* at(int64_t i, int64_t step, int64_t of_run) const {
    return reinterpret_cast<const T*>(values_at(i, step, of_run));
  }
  D2L_INLINE int64_t distance() const { return line / kStepValues; }

  // Where lines are neighbours: a step of those from `i` on.
  D2L_INLINE Neighbours<T> neighbours(int64_t i, int64_t step, int64_t of_run) const {
#if defined(__AVX512BF16__)
    const bool is_pair = 2 * step + 1 < values;
    const int64_t first = offset(i, step, of_run), second = is_pair ? first + depth : first;
    const auto has_second = static_cast<__mmask16>(is_pair ? 0xffff : 0);
    if (floats != nullptr) return {nullptr, nullptr, has_second, floats + first, floats + second};
    return {data + first, data + second, has_second};
#else
    return {values_at(i, step, of_run)};
#endif
  }

  D2L_INLINE T element(int64_t i, int64_t step) const {
    if constexpr (kStepValues == 1) return data[i * line + step * depth];
    return adjacent ? neighbours(i, step, 0).at(0, 1)[0] : *at(i, step, 0);
  }
};

// Sums in memory, or where they are kept until they are rounded.
template <typename T>
struct Sums {
  T* data;
  int64_t row;
};

// c = activation(bias + a b), as in gemm.h.
template <typename T>
struct Product {
  int64_t rows, columns;
  int64_t depth, runs;  // steps of a run of the depth, and how many runs there are
  Operand<T> a, b;
  const T* bias;  // or null
  bool is_row_bias;
  Value<T>* c;
  int64_t c_row;
  Activation activation;
  Progress progress;
  Sums<T> exact = {};  // with data: where the results go instead of c, not rounded
};

template <typename T>
D2L_INLINE bool is_exact(const Product<T>& problem) {
  return kRounds && problem.exact.data != nullptr;
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
