// Correlations with few result channels fill few lanes of a vector. Where the taps of a row read neighbouring source
// columns, all of them are computed for each source column at once, side by side in the lanes (tap, channel), and
// added up along diagonals afterwards:
//   folded[column][s * width + k] = sum_{r, d} source[r, column, d] * weight[d, k, r, s]
//   result[q][k] = bias[k] + sum_s folded[q + s * step][s * width + k]
// The input gradient of a convolution with a stride adds up whole groups of lanes: those of the result columns i *
// phases ... i * phases + phases - 1, which lie side by side.
//   result[i * phases + b][k] = sum_t folded[i + t][(t * phases + b) * width + k]
// Only for kernel sources.
#pragma once

#include "kernels/cpu/conv2d_pack.h"
#include "kernels/cpu/conv2d_strip.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// The sum over diagonals, along the columns.
struct Fold {
  int64_t terms, phases, step;
  int64_t shift;  // result columns of the first group that no tap of its source column meets
  bool reversed;

  // The group of lanes of a tap.
  D2L_INLINE int64_t position(int64_t tap) const {
    const int64_t term = (tap + shift) / phases, phase = (tap + shift) % phases;
    return (reversed ? terms - 1 - term : term) * phases + phase;
  }
};

inline Fold plan_fold(const CorrelationAxis& axis, const AxisPlan& plan, bool transposed) {
  const int64_t shift = transposed ? (axis.stride - axis.pad % axis.stride) % axis.stride : 0;
  return {ceil_div(axis.taps + shift, plan.phases), plan.phases, plan.step, shift, transposed};
}

// Whether folding saves more multiply-adds than the additions afterwards cost, all counted in vectors per group. An
// addition takes as long as so many multiply-adds.
template <typename T>
D2L_INLINE bool is_worth_folding(const CorrelationAxis& axis, const AxisPlan& plan, const Fold& fold,
                                 const PackedLayout<T>& layout, int64_t addition) {
  if (plan.stride != 1 || axis.taps == 1 || fold.terms * fold.phases * layout.width > kBlockWidth<T>) return false;
  if (fold.phases > 1 && (axis.dilation > 1 || axis.result < fold.phases || fold.phases * layout.width > kLanes<T>)) {
    return false;
  }
  const int64_t products = layout.rows.taps * layout.depth / layout.rows.period;
  const int64_t saved = products * (axis.taps - ceil_div(fold.terms * fold.phases * layout.width, kLanes<T>));
  return saved > addition * fold.terms;
}

// The layout whose one block holds a row of taps in its lanes. Its column order has one tap.
template <typename T>
D2L_INLINE PackedLayout<T> folded_layout(PackedLayout<T> layout, const Fold& fold) {
  layout.width *= fold.terms * fold.phases;
  layout.columns = {1, 1, false};
  return layout;
}

template <typename T>
void pack_folded(const PackedLayout<T>& layout, const PackedLayout<T>& folded, const Fold& fold, const T* weight,
                 T* packed) {
  const int64_t block_width = folded.block_width(0);
  zero(packed, folded.group_size());
  for (int64_t r = 0; r < layout.rows.taps; ++r) {
    for (int64_t s = 0; s < layout.columns.taps; ++s) {
      for (int64_t d = 0; d < layout.depth; ++d) {
        const int64_t from = r * layout.weight_row + s * layout.weight_column + d * layout.weight_depth;
        T* to = packed + folded.row(d, r, 0) * block_width + fold.position(s) * layout.width;
        for (int64_t k = 0; k < layout.width; ++k)
          to[k] = weight_element(weight, from + k * layout.weight_width, layout.weight_pair);
      }
    }
  }
}

// One row of pixels of `width` channels. `result` may be the same memory as `folded`: a pixel is written when none to
// come reads it. Full vectors are loaded: kLanes elements after the row must be readable.
template <typename T>
void unfold_row(const T* folded, int64_t folded_pixel, const Fold& fold, int64_t width, int64_t columns, const T* bias,
                T* result, int64_t result_pixel) {
  const vec_t<T> first = load(bias);
  const int64_t diagonal = fold.step * folded_pixel + fold.phases * width;
  for (int64_t q = 0; q < columns; q += fold.phases) {
    vec_t<T> sum = first;
    for (int64_t t = 0; t < fold.terms; ++t) sum += load(folded + t * diagonal);
    store_partial(result + q * result_pixel, sum, min(fold.phases, columns - q) * width);
    folded += folded_pixel;
  }
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
