// Pixels of two bfloat16 maps side by side: an element holds, in the bits of a float, those of an image in the lower
// half and of the next in the upper one. Only for kernel sources.
#pragma once

#include "kernels/cpu/conv2d_strip.h"
#include "kernels/cpu/gemm_product.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// Columns first, first + grid, ... of a row; they may lie outside of it and are zero there.
struct RowColumns {
  int64_t first, count, grid;
};

template <bool kTwoVectors>
D2L_INLINE void copy_pair_pixels(Neighbours<float> from, int64_t step, int64_t count, int64_t channels, float* to,
                                 int64_t pixel_stride) {
  constexpr int64_t kVector = kLanes<float>;
  const int64_t last = kTwoVectors ? channels - kVector : channels;
  for (int64_t q = 0; q < count; ++q, to += pixel_stride) {
    from.prefetch(kPixelsAhead * step);
    if (kTwoVectors) store(to, from.at(0));
    float* const rest = kTwoVectors ? to + kVector : to;
    store(rest, from.at(kTwoVectors ? kVector : 0, last));
    from.first += step;
    from.second += step;
  }
}

// Of channels that are planes.
inline void transpose_pair_pixels(const Neighbours<float>& from, int64_t plane, int64_t grid, int64_t count,
                                  int64_t channels, float* to, int64_t pixel_stride) {
  constexpr int64_t kVector = kLanes<float>;
  uint16_t gathered[2][kVector];
  for (int64_t q = 0; q < count; q += kVector) {
    const int64_t pixels = min(kVector, count - q);
    vec_t<float> block[kVector];
#pragma GCC unroll 16
    for (int c = 0; c < kVector; ++c) {
      block[c] = vec_t<float>{};
      if (c >= channels) continue;
      const int64_t first = c * plane + q * grid;
      if (grid == 1) {
        block[c] = from.at(first, pixels);
        continue;
      }
      for (int64_t i = 0; i < pixels; ++i) {
        gathered[0][i] = from.first[first + i * grid];
        gathered[1][i] = from.second[first + i * grid];
      }
      block[c] = Neighbours<float>{gathered[0], gathered[1], from.has_second}.at(0, pixels);
    }
    transpose_registers<float>(block);
#pragma GCC unroll 16
    for (int i = 0; i < kVector; ++i) {
      if (i < pixels) store(to + (q + i) * pixel_stride, block[i]);
    }
  }
}

// A row of images `image` and `image` + 1, which is zero where there is none. Pixels are one vector wide or two, with
// zeros for the channels that the map lacks.
inline void copy_pair_row(const Map<const BFloat16>& map, int64_t images, int64_t image, int64_t row,
                          const RowColumns& columns, float* to, int64_t pixel_stride, int64_t width) {
  const auto zero_pixels = [&](int64_t begin, int64_t end) {
    for (int64_t q = begin; q < end; ++q) zero(to + q * pixel_stride, width);
  };
  const int64_t grid = columns.grid;
  const bool is_inside = row >= 0 && row < map.rows;
  const int64_t begin = is_inside ? clamp(ceil_div(-columns.first, grid), 0, columns.count) : columns.count;
  const int64_t end = clamp(ceil_div(map.columns - columns.first, grid), begin, columns.count);
  zero_pixels(0, begin);
  zero_pixels(end, columns.count);
  if (begin == end) return;
  float* const first = to + begin * pixel_stride;
  const int64_t plane = map.rows * map.columns, pixel = row * map.columns + columns.first + begin * grid;
  const bool is_nchw = map.layout == Layout::nchw;
  const int64_t place = is_nchw ? map.first_channel * plane + pixel : map.first_channel + pixel * map.channels;
  const auto* data = reinterpret_cast<const uint16_t*>(map.data) + image * plane * map.channels + place;
  const bool is_pair = image + 1 < images;
  const Neighbours<float> from{data, is_pair ? data + plane * map.channels : data,
                               static_cast<__mmask16>(is_pair ? 0xffff : 0)};
  if (is_nchw) {
    for (int64_t c = 0; c < map.depth; c += kLanes<float>) {
      const Neighbours<float> planes{from.first + c * plane, from.second + c * plane, from.has_second};
      transpose_pair_pixels(planes, plane, grid, end - begin, map.depth - c, first + c, pixel_stride);
    }
  } else if (width > kLanes<float>) {
    copy_pair_pixels<true>(from, grid * map.channels, end - begin, map.depth, first, pixel_stride);
  } else {
    copy_pair_pixels<false>(from, grid * map.channels, end - begin, map.depth, first, pixel_stride);
  }
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
