// Rows of C elements, several of them in the lanes of registers: what softmax and cross-entropy share. Only for
// *_kernel.cpp (see vec.h).
//
// Rows whose neighbours lie side by side (inner > 1) are read as they are. Short rows that are contiguous themselves
// are transposed in a small buffer of what they are computed in, so that no register needs to be summed across.
#pragma once

#include <algorithm>

#include "kernels/cpu/vec_element.h"
#include "kernels/cpu/vec_math.h"
#include "kernels/shapes.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// Longer rows fill registers by themselves.
constexpr int64_t kShortRow = 64;

template <typename T>
D2L_INLINE T max_of_lanes(vec_t<T> values) {
  T result = values[0];
  for (int lane = 1; lane < kLanes<T>; ++lane) result = values[lane] > result ? values[lane] : result;
  return result;
}

template <typename T>
D2L_INLINE T sum_across(vec_t<T> values) {
  T parts[kLanes<T>];
  store(parts, values);
  for (int half = kLanes<T> / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) parts[lane] += parts[lane + half];
  }
  return parts[0];
}

// The first `count` elements, and `rest` in the other lanes.
template <typename E>
D2L_INLINE element_vec_t<E> read_padded(const E* from, int64_t count, computed_t<E> rest) {
  using T = computed_t<E>;
  T buffer[kLanes<T>];
  store(buffer, broadcast<T>(rest));
  for (int64_t i = 0; i < count; ++i) buffer[i] = read_one(from[i]);
  return load(buffer);
}

// to[c][r] = from[r][c], for up to kLanes rows; lanes without a row are zero.
template <typename E>
D2L_INLINE void transpose_rows(int64_t C, int64_t rows, const E* from, computed_t<E>* to) {
  using T = computed_t<E>;
  for (int64_t c = 0; c < C; ++c) {
    T* const column = to + c * kLanes<T>;
    for (int64_t r = 0; r < rows; ++r) column[r] = read_one(from[r * C + c]);
    for (int64_t r = rows; r < kLanes<T>; ++r) column[r] = 0;
  }
}

template <typename E>
D2L_INLINE void transpose_back(int64_t C, int64_t rows, const computed_t<E>* from, E* to) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < C; ++c) to[r * C + c] = rounded_one<E>(from[c * kElements<E> + r]);
  }
}

// Calls block(first_row, rows, offset) for blocks of up to kLanes rows that lie side by side, which do not cross the
// end of an inner axis.
template <typename T, typename Function>
D2L_INLINE void for_blocks(int64_t C, int64_t inner, int64_t begin, int64_t end, Function&& block) {
  for (int64_t row = begin; row < end;) {
    const int64_t place = row % inner, rows = std::min({int64_t{kLanes<T>}, inner - place, end - row});
    block(row, rows, (row / inner) * C * inner + place);
    row += rows;
  }
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
