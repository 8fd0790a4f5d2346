// Correlations with few result channels fill few lanes of a vector. Where the taps of a row read neighbouring source
// columns, all of them are computed for each source column at once, side by side in the lanes (tap, channel), and
// added up along diagonals afterwards:
//   folded[column][s * width + k] = sum_{r, d} source[r, column, d] * weight[d, k, r, s]
//   result[q][k] = bias[k] + sum_s folded[q + s * step][s * width + k]
// Only for kernel sources.
#pragma once

#include "kernels/cpu/conv2d_pack.h"
#include "kernels/cpu/conv2d_strip.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// Whether folding saves more multiply-adds than the additions afterwards cost, all counted in vectors per pixel.
template <typename T>
D2L_INLINE bool is_worth_folding(const AxisPlan& columns, const PackedLayout<T>& layout) {
  const int64_t taps = layout.columns.taps;
  if (columns.phases != 1 || columns.stride != 1 || taps == 1 || taps * layout.width > kBlockWidth<T>) return false;
  const int64_t products = layout.rows.taps * layout.depth;
  const int64_t saved = products * (taps - ceil_div(taps * layout.width, kLanes<T>));
  return saved > 3 * taps;
}

// The layout whose one block holds a row of taps in its lanes. Its column order has one tap.
template <typename T>
D2L_INLINE PackedLayout<T> folded_layout(PackedLayout<T> layout) {
  layout.width *= layout.columns.taps;
  layout.columns = {1, 1, false};
  return layout;
}

template <typename T>
void pack_folded(const PackedLayout<T>& layout, const T* weight, T* packed) {
  const PackedLayout<T> folded = folded_layout(layout);
  const int64_t block_width = folded.block_width(0);
  zero(packed, folded.group_size());
  for (int64_t r = 0; r < layout.rows.taps; ++r) {
    for (int64_t s = 0; s < layout.columns.taps; ++s) {
      for (int64_t d = 0; d < layout.depth; ++d) {
        const T* from = weight + r * layout.weight_row + s * layout.weight_column + d * layout.weight_depth;
        T* to = packed + folded.row(d, r, 0) * block_width + layout.columns.position(s) * layout.width;
        for (int64_t k = 0; k < layout.width; ++k) to[k] = from[k * layout.weight_width];
      }
    }
  }
}

// One row. `result` may be the same memory as `folded`: a pixel is written when none to come reads it. Full vectors are
// loaded: kLanes elements after the row must be readable. Writes `lanes` elements per pixel.
template <typename T>
void unfold_row(const T* folded, int64_t folded_pixel, int64_t step, int64_t taps, int64_t width, int64_t columns,
                const T* bias, T* result, int64_t result_pixel, int64_t lanes) {
  const vec_t<T> first = load(bias);
  const int64_t diagonal = step * folded_pixel + width;
  for (int64_t q = 0; q < columns; ++q) {
    vec_t<T> sum = first;
    for (int64_t s = 0; s < taps; ++s) sum += load(folded + q * folded_pixel + s * diagonal);
    store_partial(result + q * result_pixel, sum, lanes);
  }
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
