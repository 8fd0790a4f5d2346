// Rows of C elements, several of them in the lanes of registers: what softmax and cross-entropy share. Only for
// *_kernel.cpp (see vec.h).
//
// Rows whose neighbours lie side by side (inner > 1) are read as they are. Short rows that are contiguous themselves
// are transposed in a small buffer of what they are computed in, so that no register needs to be summed across.
#pragma once

#include <algorithm>
#include <utility>

#include "kernels/cpu/transpose.h"
#include "kernels/cpu/vec_math.h"
#include "kernels/shapes.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// Longer rows fill registers by themselves.
constexpr int64_t kShortRow = 64;

template <int kDistance, typename V, int... I>
D2L_INLINE V exchanged(V values, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(values, values, (I ^ kDistance)...);
}

// What `join` makes of all lanes, in each of them. Halves are joined first, then quarters.
template <typename T, int kDistance = kLanes<T> / 2, typename Join>
D2L_INLINE vec_t<T> across(vec_t<T> values, Join&& join) {
  values = join(values, exchanged<kDistance>(values, std::make_integer_sequence<int, kLanes<T>>{}));
  if constexpr (kDistance > 1) values = across<T, kDistance / 2>(values, join);
  return values;
}

template <typename T>
D2L_INLINE vec_t<T> max_across(vec_t<T> values) {
  return across<T>(values, [](vec_t<T> a, vec_t<T> b) D2L_INLINE_LAMBDA { return larger<T>(a, b); });
}

template <typename T>
D2L_INLINE vec_t<T> sum_across(vec_t<T> values) {
  return across<T>(values, [](vec_t<T> a, vec_t<T> b) D2L_INLINE_LAMBDA { return a + b; });
}

template <typename T, int... I>
D2L_INLINE vec_math::vec_bits_t<T> numbered_lanes(std::integer_sequence<int, I...>) {
  return vec_math::vec_bits_t<T>{I...};
}

// The last elements of a long row, as many as a register has or fewer. Lanes without one repeat the first element of
// the row, which leaves its maximum as it is, and whose exponential is no subnormal number (150 cycles) as that of
// -infinity. Not by way of memory: a load of what several stores wrote waits for all that was stored before.
template <typename E, typename T = computed_t<E>>
struct Tail {
  int64_t begin, count;
  vec_math::vec_bits_t<T> is_there;
  vec_t<T> values;

  D2L_INLINE Tail(const E* row, int64_t C)
      : begin((C - 1) / kLanes<T> * kLanes<T>),
        count(C - begin),
        is_there(numbered_lanes<T>(std::make_integer_sequence<int, kLanes<T>>{}) <
                 static_cast<vec_math::bits_t<T>>(count)),
        values(is_there ? read_partial(row + begin, count) : broadcast<T>(read_one(*row))) {}

  // Those of the lanes with an element, and zero.
  D2L_INLINE vec_t<T> only(vec_t<T> results) const { return is_there ? results : vec_t<T>{}; }
};

// result = step(result, c) for the registers of a row from 0 to `end`, in two chains that do not wait for each other:
// the second one is left in `other`.
template <typename T, typename Step>
D2L_INLINE void fold_row(int64_t end, vec_t<T>& result, vec_t<T>& other, Step&& step) {
  int64_t c = 0;
  for (; c + 2 * kLanes<T> <= end; c += 2 * kLanes<T>) {
    result = step(result, c);
    other = step(other, c + kLanes<T>);
  }
  if (c < end) result = step(result, c);
}

// The largest element of a row, in all lanes.
template <typename E, typename T = computed_t<E>>
D2L_INLINE vec_t<T> max_of_row(const E* row, const Tail<E>& tail) {
  vec_t<T> maxima = tail.values, others = tail.values;
  fold_row<T>(tail.begin, maxima, others,
              [&](vec_t<T> result, int64_t c) D2L_INLINE_LAMBDA { return larger<T>(read(row + c), result); });
  return max_across<T>(larger<T>(maxima, others));
}

// to[c][r] = from[r][c], for up to kLanes rows; lanes without a row are zero.
template <typename E>
D2L_INLINE void transpose_rows(int64_t C, int64_t rows, const E* from, computed_t<E>* to) {
  using T = computed_t<E>;
  if (rows < kLanes<T>) {
    for (int64_t c = 0; c < C; ++c) store(to + c * kLanes<T>, vec_t<T>{});
  }
  transpose<T>(from, C, rows, C, to, kLanes<T>);
}

template <typename E>
D2L_INLINE void transpose_back(int64_t C, int64_t rows, const computed_t<E>* from, E* to) {
  transpose<computed_t<E>>(from, kElements<E>, C, rows, to, C);
}

// Rows side by side, `lanes` of them: as many as a register has, or fewer.
template <typename E>
D2L_INLINE element_vec_t<E> read_lanes(const E* from, int64_t lanes) {
  return lanes == kElements<E> ? read(from) : read_partial(from, lanes);
}

template <typename E>
D2L_INLINE void write_lanes(E* to, element_vec_t<E> value, int64_t lanes) {
  if (lanes == kElements<E>) {
    write(to, value);
  } else {
    write_partial(to, value, lanes);
  }
}

// Calls block(first_row, rows, offset) for blocks of up to kRows rows that lie side by side, which do not cross the end
// of an inner axis.
template <int kRows, typename Function>
D2L_INLINE void for_blocks(int64_t C, int64_t inner, int64_t begin, int64_t end, Function&& block) {
  for (int64_t row = begin; row < end;) {
    const int64_t place = row % inner, rows = std::min({int64_t{kRows}, inner - place, end - row});
    block(row, rows, (row / inner) * C * inner + place);
    row += rows;
  }
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
