// Vectors of any power-of-two length for the pooling kernels, and the loops that cover a run of elements with them.
// Only for *_kernel.cpp (see capability.h).
#pragma once

#include <type_traits>
#include <utility>

#include "kernels/cpu/integers.h"
#include "kernels/cpu/pool2d_kernel.h"
#include "kernels/cpu/vec_element.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// The taps of one item along one axis.
struct TapRange {
  const Tap* begin;
  const Tap* end;
};

D2L_INLINE TapRange taps_of(AxisTaps axis, int64_t item) {
  return {axis.taps + axis.first[item], axis.taps + axis.first[item + 1]};
}

template <typename T, int kCount>
struct Pack {
  typedef T type __attribute__((vector_size(kCount * sizeof(T))));
};
template <typename T, int kCount>
using pack_t = typename Pack<T, kCount>::type;

// Signed integer as wide as T: what a comparison of T gives in each lane.
template <typename T>
struct Lane;
template <>
struct Lane<float> {
  using type = int32_t;
};
template <>
struct Lane<double> {
  using type = int64_t;
};
template <typename T>
using lane_t = typename Lane<T>::type;

template <int kValue>
struct Int {
  static constexpr int value = kValue;
};

// Elements of E are widened on the way from memory, and rounded on the way back (see vec_element.h).
template <int kCount, typename E>
D2L_INLINE pack_t<computed_t<E>, kCount> load_pack(const E* from) {
  if constexpr (std::is_same_v<E, BFloat16>) {
    typename bfloat16::Packs<kCount>::Half half;
    __builtin_memcpy(&half, from, sizeof(half));
    return bfloat16::widened<kCount>(half);
  } else {
    pack_t<E, kCount> value;
    __builtin_memcpy(&value, from, sizeof(value));
    return value;
  }
}

template <typename To, typename Value>
D2L_INLINE void store_pack(To* to, Value value) {
  if constexpr (std::is_same_v<To, BFloat16>) {
    const auto half = bfloat16::rounded<sizeof(value) / sizeof(float)>(value);
    __builtin_memcpy(to, &half, sizeof(half));
  } else {
    __builtin_memcpy(to, &value, sizeof(value));
  }
}

// Whether 0 <= place < size. Offsets come from a tensor, which may hold anything: no gradient is written by one unseen.
D2L_INLINE bool is_within(int64_t place, int64_t size) {
  return static_cast<uint64_t>(place) < static_cast<uint64_t>(size);
}

// Windows jump between the rows of a map, and the hardware does not look far enough ahead for that. Any address will
// do.
template <int64_t kBytes = 4096, typename T>
D2L_INLINE void prefetch_ahead(const T* from) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(from) + kBytes));
}

// Results go to memory that was last used long ago: a store waits for its line as a load does, and comes after it.
template <typename T>
D2L_INLINE void prefetch_stores(const T* to) {
  prefetch_ahead<8192>(to);
}

template <int kCount, typename T>
D2L_INLINE pack_t<T, kCount> spread(T value) {
  return value - pack_t<T, kCount>{};
}

// Offsets are computed in lanes as wide as T. The compiler converts bytes one by one, hence the instructions.
template <typename Code, int kCount, typename Offset>
D2L_INLINE pack_t<Code, kCount> load_codes(const Offset* from) {
#if defined(__AVX512F__)
  if constexpr (sizeof(Offset) == 1 && sizeof(Code) == 4 && kCount == 16) {
    return (pack_t<Code, kCount>)_mm512_maskz_cvtepu8_epi32(0xffff, (__m128i)load_pack<16>(from));
  }
  if constexpr (sizeof(Offset) == 1 && sizeof(Code) == 8 && kCount == 8) {
    return (pack_t<Code, kCount>)_mm512_maskz_cvtepu8_epi64(0xff,
                                                            _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  }
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(Offset) == 1 && sizeof(Code) == 4 && kCount == 8) {
    return (pack_t<Code, kCount>)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  }
#endif
#if defined(__SSE2__)
  if constexpr (sizeof(Offset) == 1 && sizeof(Code) == 4 && kCount == 4) {
    int32_t bytes;
    __builtin_memcpy(&bytes, from, sizeof(bytes));
    const __m128i words = _mm_unpacklo_epi8(_mm_cvtsi32_si128(bytes), _mm_setzero_si128());
    return (pack_t<Code, kCount>)_mm_unpacklo_epi16(words, _mm_setzero_si128());
  }
#endif
  return __builtin_convertvector(load_pack<kCount>(from), pack_t<Code, kCount>);
}

template <typename Code, int kCount, typename Offset>
D2L_INLINE void store_codes(Offset* to, pack_t<Code, kCount> codes) {
#if defined(__AVX512F__)
  if constexpr (sizeof(Offset) == 1 && sizeof(Code) == 4 && kCount == 16) {
    store_pack(to, _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)codes));
    return;
  }
  if constexpr (sizeof(Offset) == 1 && sizeof(Code) == 8 && kCount == 8) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm512_maskz_cvtepi64_epi8(0xff, (__m512i)codes));
    return;
  }
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(Offset) == 1 && sizeof(Code) == 4 && kCount == 8) {
    const __m256i all = (__m256i)codes;
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(words, words));
    return;
  }
#endif
#if defined(__SSE2__)
  if constexpr (sizeof(Offset) == 1 && sizeof(Code) == 4 && kCount == 4) {
    const __m128i words = _mm_packs_epi32((__m128i)codes, (__m128i)codes);
    const int32_t bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    __builtin_memcpy(to, &bytes, sizeof(bytes));
    return;
  }
#endif
  store_pack(to, __builtin_convertvector(codes, pack_t<Offset, kCount>));
}

// Offsets as they are compared with a place in the window: in lanes as wide as T, or as they are where a comparison of
// bytes makes a mask for lanes of T.
template <typename T, typename Offset, int kCount>
struct Places {
  using type = pack_t<lane_t<T>, kCount>;
};
#if defined(__AVX512BW__) && defined(__AVX512VL__)
template <>
struct Places<float, uint8_t, 16> {
  using type = pack_t<uint8_t, 16>;
};
#endif
template <typename T, typename Offset, int kCount>
using places_t = typename Places<T, Offset, kCount>::type;

template <typename T, int kCount, typename Offset>
D2L_INLINE places_t<T, Offset, kCount> load_places(const Offset* from) {
  if constexpr (sizeof(places_t<T, Offset, kCount>) == kCount) {
    return load_pack<kCount>(from);
  } else {
    return load_codes<lane_t<T>, kCount>(from);
  }
}

template <typename Places>
D2L_INLINE Places spread_place(int64_t place) {
  using Place = std::remove_reference_t<decltype(Places{}[0])>;
  return spread<sizeof(Places) / sizeof(Place)>(static_cast<Place>(place));
}

template <typename Values, typename Places>
D2L_INLINE void add_where_equal(Values value, Places places, Places here, Values& sum) {
  if constexpr (sizeof(Places) * sizeof(value[0]) == sizeof(Values)) {  // a byte a lane
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    const __mmask16 matches = _mm_cmpeq_epi8_mask((__m128i)places, (__m128i)here);
    sum = (Values)_mm512_mask_add_ps((__m512)sum, matches, (__m512)sum, (__m512)value);
#endif
  } else {
    sum += places == here ? value : Values{};
  }
}

// The codes of the first `count` lanes.
template <typename Code, typename Offset>
D2L_INLINE void store_first_codes(Offset* to, vec_t<Code> codes, int64_t count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(Offset) == 1 && sizeof(Code) == 4) {
    _mm512_mask_cvtepi32_storeu_epi8(to, static_cast<__mmask16>((1u << count) - 1), (__m512i)codes);
    return;
  }
#endif
  Offset all[kLanes<Code>];
  store_codes<Code, kLanes<Code>>(all, codes);
  for (int64_t i = 0; i < count; ++i) to[i] = all[i];
}

// A NaN is greater than all before it.
template <typename Values, typename Codes>
D2L_INLINE void replace_where_greater_or_nan(Values value, Codes code, Values& best, Codes& best_code) {
#if defined(__AVX512F__)
  if constexpr (sizeof(Values) == 64 && sizeof(best[0]) == 4) {
    const __m512 v = (__m512)value;
    const __mmask16 wins = static_cast<__mmask16>(_mm512_cmp_ps_mask(v, (__m512)best, _CMP_GT_OQ) |
                                                  _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q));
    best = (Values)_mm512_mask_mov_ps((__m512)best, wins, v);
    best_code = (Codes)_mm512_mask_mov_epi32((__m512i)best_code, wins, (__m512i)code);
    return;
  }
#endif
  const auto wins = (value > best) | (value != value);
  best = wins ? value : best;
  best_code = wins ? code : best_code;
}

// The same for values that are no NaNs: a single comparison, or none where the codes are not wanted.
template <typename Values, typename Codes>
D2L_INLINE void replace_where_greater(Values value, Codes code, Values& best, Codes& best_code) {
#if defined(__AVX512F__)
  if constexpr (sizeof(Values) == 64 && sizeof(best[0]) == 4) {
    const __mmask16 wins = _mm512_cmp_ps_mask((__m512)value, (__m512)best, _CMP_GT_OQ);
    best = (Values)larger<float>((vec_t<float>)value, (vec_t<float>)best);
    best_code = (Codes)_mm512_mask_mov_epi32((__m512i)best_code, wins, (__m512i)code);
    return;
  }
#endif
  const auto wins = value > best;
  best = value > best ? value : best;
  best_code = wins ? code : best_code;
}

// Looks out for NaNs among packs of Values, two at a time.
template <typename Values>
class NanWatch {
 public:
  D2L_INLINE void see(Values a, Values b) {
#if defined(__AVX512F__)
    if constexpr (sizeof(Values) == 64 && sizeof(a[0]) == 4) {
      ordered_ = _mm512_mask_cmp_ps_mask(ordered_, (__m512)a, (__m512)b, _CMP_ORD_Q);
      return;
    }
#endif
    unordered_ |= (a != a) | (b != b);
  }

  D2L_INLINE bool saw_any() const {
    if (ordered_ != 0xffff) return true;
    bool any = false;
    for (size_t i = 0; i < sizeof(unordered_) / sizeof(unordered_[0]); ++i) any |= unordered_[i] != 0;
    return any;
  }

 private:
  uint16_t ordered_ = 0xffff;
  decltype(Values{} != Values{}) unordered_{};
};

// Calls body(Int<count>, Int<blocks>, i) so that [i, i + count * blocks) cover [0, n). The last call may cover elements
// that were covered before: body must give the same results again, and must not accumulate in memory.
template <int kCount, int kBlocks, typename Body>
D2L_INLINE void for_each_pack(int64_t n, Body&& body) {
  int64_t i = 0;
  if constexpr (kBlocks > 1) {
    for (; i + kCount * kBlocks <= n; i += kCount * kBlocks) body(Int<kCount>{}, Int<kBlocks>{}, i);
    if (n - i > kCount && n >= 2 * kCount) {
      body(Int<kCount>{}, Int<2>{}, min(i, n - 2 * kCount));
      i += 2 * kCount;
    }
  }
  for (; i < n; i += kCount) body(Int<kCount>{}, Int<1>{}, i + kCount <= n ? i : n - kCount);
}

// The same, with the longest packs that fit into n elements of T.
template <typename T, int kMostBlocks = 4, typename Body>
D2L_INLINE void for_each_pack(int64_t n, Body&& body) {
  constexpr int kLongest = kLanes<T>;
  constexpr int kShortest = 16 / static_cast<int>(sizeof(T));
  if (n >= kLongest) return for_each_pack<kLongest, kMostBlocks>(n, body);
  if constexpr (kLongest > 2 * kShortest) {
    if (n >= 2 * kShortest) return for_each_pack<2 * kShortest, 1>(n, body);
  }
  if constexpr (kLongest > kShortest) {
    if (n >= kShortest) return for_each_pack<kShortest, 1>(n, body);
  }
  for_each_pack<1, 1>(n, body);
}

template <typename Value, int... kIndices>
D2L_INLINE Value every_other(Value a, Value b, std::integer_sequence<int, kIndices...>, bool odd) {
  return odd ? __builtin_shufflevector(a, b, (2 * kIndices + 1)...) : __builtin_shufflevector(a, b, (2 * kIndices)...);
}

template <typename Value, int... kIndices>
D2L_INLINE Value zip(Value a, Value b, std::integer_sequence<int, kIndices...>, int first) {
  constexpr int kCount = sizeof...(kIndices);
  return first == 0 ? __builtin_shufflevector(a, b, (kIndices / 2 + kCount * (kIndices % 2))...)
                    : __builtin_shufflevector(a, b, ((kCount + kIndices) / 2 + kCount * (kIndices % 2))...);
}

// first[0], second[0], first[1], ...
template <typename E, typename Value>
D2L_INLINE void store_zipped(E* to, Value first, Value second) {
  constexpr int kCount = sizeof(Value) / sizeof(computed_t<E>);
  if constexpr (kCount == 1) {
    to[0] = rounded_one<E>(first[0]);
    to[1] = rounded_one<E>(second[0]);
  } else {
    constexpr auto kIndices = std::make_integer_sequence<int, kCount>{};
    store_pack(to, zip(first, second, kIndices, 0));
    store_pack(to + kCount, zip(first, second, kIndices, 1));
  }
}

template <typename E>
D2L_INLINE void fill_run(E* to, int64_t n, computed_t<E> value) {
  for_each_pack<computed_t<E>>(n, [&](auto count, auto blocks, int64_t i) D2L_INLINE_LAMBDA {
    for (int b = 0; b < blocks.value; ++b) store_pack(to + i + b * count.value, spread<count.value>(value));
  });
}

template <typename From, typename To>
D2L_INLINE void copy_row(const From* from, int64_t n, To* to) {
  for_each_pack<computed_t<From>>(n, [&](auto count, auto blocks, int64_t i) {
    for (int b = 0; b < blocks.value; ++b) {
      store_pack(to + i + b * count.value, load_pack<count.value>(from + i + b * count.value));
    }
  });
}

// Where the elements of a row are in its phases: a walk from the first one on.
struct PhaseCursor {
  int64_t stride, phase, at;

  D2L_INLINE PhaseCursor(int64_t stride, int64_t pad) : stride(stride), phase(pad % stride), at(pad / stride) {}
  D2L_INLINE void step() {
    if (++phase == stride) phase = 0, ++at;
  }
};

// Elements 2 i and 2 i + 1 of a row, for the i below `count`, lie at first + i and second + i of the phases of
// stride 2. A last element is without a partner where has_lone().
struct Pairs {
  int64_t first_phase, second_phase, first, second, count;

  D2L_INLINE Pairs(int64_t width, int64_t pad, int64_t length)
      : first_phase(pad % 2),
        second_phase(1 - first_phase),
        first(pad / 2),
        second((pad + 1) / 2),
        count(max(0, min(width / 2, length - second))) {}
  D2L_INLINE bool has_lone(int64_t width, int64_t length) const { return 2 * count < width && first + count < length; }
};

// Writes a row as its phases, each `length` long, leaving alone what lies outside the row.
template <typename E, typename T>
D2L_INLINE void split_row(const E* row, int64_t width, int64_t stride, int64_t pad, int64_t length, T* phases) {
  if (stride == 1) return copy_row(row, min(width, length - pad), phases + pad);
  if (stride != 2) {
    PhaseCursor cursor(stride, pad);
    for (int64_t w = 0; w < width && cursor.at < length; ++w, cursor.step()) {
      phases[cursor.phase * length + cursor.at] = read_one(row[w]);
    }
    return;
  }
  const Pairs pairs(width, pad, length);
  T* first = phases + pairs.first_phase * length + pairs.first;
  T* second = phases + pairs.second_phase * length + pairs.second;
  if (pairs.has_lone(width, length)) first[pairs.count] = read_one(row[2 * pairs.count]);
  for_each_pack<T>(pairs.count, [&](auto count, auto blocks, int64_t i) {
    constexpr int kCount = count.value;
    for (int b = 0; b < blocks.value; ++b, i += kCount) {
      if constexpr (kCount == 1) {
        first[i] = read_one(row[2 * i]);
        second[i] = read_one(row[2 * i + 1]);
      } else {
        const auto low = load_pack<kCount>(row + 2 * i);
        const auto high = load_pack<kCount>(row + 2 * i + kCount);
        constexpr auto kIndices = std::make_integer_sequence<int, kCount>{};
        store_pack(first + i, every_other(low, high, kIndices, false));
        store_pack(second + i, every_other(low, high, kIndices, true));
      }
    }
  });
}

// The inverse, for phases that hold all of the row.
template <typename T, typename E>
D2L_INLINE void merge_row(const T* phases, int64_t width, int64_t stride, int64_t pad, int64_t length, E* row) {
  if (stride != 2) {
    PhaseCursor cursor(stride, pad);
    for (int64_t w = 0; w < width; ++w, cursor.step()) {
      row[w] = rounded_one<E>(phases[cursor.phase * length + cursor.at]);
    }
    return;
  }
  const Pairs pairs(width, pad, length);
  const T* first = phases + pairs.first_phase * length + pairs.first;
  const T* second = phases + pairs.second_phase * length + pairs.second;
  if (pairs.has_lone(width, length)) row[2 * pairs.count] = rounded_one<E>(first[pairs.count]);
  for_each_pack<T>(pairs.count, [&](auto count, auto blocks, int64_t i) {
    constexpr int kCount = count.value;
    for (int b = 0; b < blocks.value; ++b, i += kCount) {
      store_zipped(row + 2 * i, load_pack<kCount>(first + i), load_pack<kCount>(second + i));
    }
  });
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
