// Strips of pairs, for products of bfloat16 (see gemm_product.h): an element holds, in the bits of a float, those of
// two images that follow one another, the first in the lower half. Only for kernel sources.
#pragma once

#include "kernels/cpu/conv2d_strip.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

#if defined(__AVX512BF16__)
constexpr bool kPairs = true;
#else
constexpr bool kPairs = false;
#endif

// low = pairs of the bfloat16 that the floats of low and high came from.
D2L_INLINE void join_pairs(float* low, const float* high, int64_t count) {
  typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));
  const auto joined = [](vec_t<float> first, vec_t<float> second) {
    return (vec_t<float>)(((Bits)first >> 16) | (Bits)second);
  };
  const float* from = low;
  int64_t i = 0;
  for (; i + kLanes<float> <= count; i += kLanes<float>) store(low + i, joined(load(from + i), load(high + i)));
  const int64_t rest = count - i;
  store_partial(low + i, joined(load_partial(from + i, rest), load_partial(high + i, rest)), rest);
}

// copy_strip() of images 2 n and 2 n + 1 for each image n of the box; a last one without a partner is joined by zeros.
// `row` takes a row of the strip and kLanes elements.
template <typename E>
Strip<const float> copy_pairs(const Map<const E>& map, const Box& box, int64_t images, float* to, int64_t pixel_stride,
                              float* row) {
  const int64_t row_stride = box.columns * pixel_stride;
  float* low = to;
  for (int64_t n = box.image; n < box.image + box.images; ++n) {
    for (int64_t r = 0; r < box.rows; ++r, low += row_stride) {
      Box one{2 * n, 1, box.row + r * box.row_grid, 1, 1, box.column, box.columns, box.column_grid};
      copy_strip(map, one, low, pixel_stride);
      if (++one.image < images) {
        copy_strip(map, one, row, pixel_stride);
      } else {
        zero(row, row_stride);
      }
      join_pairs(low, row, row_stride);
    }
  }
  return {to, box.rows * row_stride, row_stride, pixel_stride};
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
