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

// Where pixels are copied to: channels in blocks of one vector or two.
struct PairPixels {
  int64_t stride, width, block_stride;
};

constexpr int64_t kLeastAhead = 2048;  // to prefetch: a page, where the machine's own prefetch ends

template <bool kTwoVectors>
D2L_INLINE void copy_pair_pixels(Neighbours<float> from, int64_t step, int64_t count, int64_t channels, float* to,
                                 const PairPixels& pixels) {
  constexpr int64_t kVector = kLanes<float>, kWidth = kTwoVectors ? 2 * kVector : kVector;
  const int64_t ahead = max(kPixelsAhead * step, kLeastAhead);
  for (int64_t q = 0; q < count; ++q) {
    float* block = to + q * pixels.stride;
    int64_t c = 0;
    for (; c + kWidth <= channels; c += kWidth, block += pixels.block_stride) {
      from.prefetch(ahead + c);
      store(block, from.at(c));
      if (kTwoVectors) store(block + kVector, from.at(c + kVector));
    }
    if (c < channels) {
      const int64_t rest = channels - c;
      store(block, from.at(c, min(rest, kVector)));
      if (kTwoVectors) store(block + kVector, from.at(c + kVector, max(rest - kVector, 0)));
    }
    from.first += step;
    from.second += step;
  }
}

// Pixels i, i + 2, ... of a plane.
D2L_INLINE vec_t<float> every_second(const Neighbours<float>& from, int64_t i, int64_t count) {
  const auto values = static_cast<__mmask32>((uint64_t{1} << (2 * count - 1)) - 1);
  const __m512i low = _mm512_maskz_loadu_epi16(values, from.first + i);
  const __m512i high = _mm512_maskz_loadu_epi16(values, from.second + i);
  const __m512i first = _mm512_maskz_mov_epi16(0x55555555, low);
  return (vec_t<float>)_mm512_maskz_or_epi32(0xffff, first, _mm512_maskz_slli_epi32(from.has_second, high, 16));
}

D2L_INLINE vec_t<float> pixels_of_plane(const Neighbours<float>& from, int64_t i, int64_t grid, int64_t count) {
  if (grid == 1) return from.at(i, count);
  if (grid == 2) return every_second(from, i, count);
  uint16_t gathered[2][kLanes<float>];
  for (int64_t j = 0; j < count; ++j) {
    gathered[0][j] = from.first[i + j * grid];
    gathered[1][j] = from.second[i + j * grid];
  }
  return Neighbours<float>{gathered[0], gathered[1], from.has_second}.at(0, count);
}

// Of channels that are planes.
inline void transpose_pair_pixels(const Neighbours<float>& from, int64_t plane, int64_t grid, int64_t count,
                                  int64_t channels, float* to, int64_t pixel_stride) {
  constexpr int64_t kVector = kLanes<float>;
  for (int64_t q = 0; q < count; q += kVector) {
    const int64_t pixels = min(kVector, count - q);
    vec_t<float> block[kVector];
#pragma GCC unroll 16
    for (int c = 0; c < kVector; ++c) {
      block[c] = c < channels ? pixels_of_plane(from, c * plane + q * grid, grid, pixels) : vec_t<float>{};
    }
    transpose_registers<float>(block);
#pragma GCC unroll 16
    for (int i = 0; i < kVector; ++i) {
      if (i < pixels) store(to + (q + i) * pixel_stride, block[i]);
    }
  }
}

// The part of a row of images `image` and `image` + 1 that lies inside of the map; zeros take the place of an image
// that there is not.
struct InsidePixels {
  int64_t begin, end;  // of the columns
  Neighbours<float> from;
};

D2L_INLINE InsidePixels inside_pixels(const Map<const BFloat16>& map, int64_t images, int64_t image, int64_t row,
                                      const RowColumns& columns) {
  const bool is_inside = row >= 0 && row < map.rows;
  const int64_t begin = is_inside ? clamp(ceil_div(-columns.first, columns.grid), 0, columns.count) : columns.count;
  const int64_t end = clamp(ceil_div(map.columns - columns.first, columns.grid), begin, columns.count);
  if (begin == end) return {begin, end, {nullptr, nullptr, 0}};
  const int64_t plane = map.rows * map.columns;
  const int64_t pixel = row * map.columns + columns.first + begin * columns.grid;
  const int64_t place =
      map.layout == Layout::nchw ? map.first_channel * plane + pixel : map.first_channel + pixel * map.channels;
  const auto* data = reinterpret_cast<const uint16_t*>(map.data) + image * plane * map.channels + place;
  const bool is_pair = image + 1 < images;
  return {begin, end, {data, is_pair ? data + plane * map.channels : data, static_cast<__mmask16>(is_pair ? -1 : 0)}};
}

// Pixels are one vector wide or two, with zeros for the channels that the map lacks.
inline void copy_pair_row(const Map<const BFloat16>& map, int64_t images, int64_t image, int64_t row,
                          const RowColumns& columns, float* to, const PairPixels& pixels) {
  const auto zero_pixels = [&](int64_t begin, int64_t end) {
    for (int64_t c = 0; c < map.depth; c += pixels.width) {
      float* const block = to + c / pixels.width * pixels.block_stride;
      for (int64_t q = begin; q < end; ++q) zero(block + q * pixels.stride, pixels.width);
    }
  };
  const auto [begin, end, from] = inside_pixels(map, images, image, row, columns);
  zero_pixels(0, begin);
  zero_pixels(end, columns.count);
  if (begin == end) return;
  float* const first = to + begin * pixels.stride;
  if (map.layout == Layout::nchw) {
    const int64_t plane = map.rows * map.columns;
    for (int64_t c = 0; c < map.depth; c += kLanes<float>) {
      const Neighbours<float> planes{from.first + c * plane, from.second + c * plane, from.has_second};
      transpose_pair_pixels(planes, plane, columns.grid, end - begin, map.depth - c,
                            first + c / pixels.width * pixels.block_stride + c % pixels.width, pixels.stride);
    }
  } else if (pixels.width > kLanes<float>) {
    copy_pair_pixels<true>(from, columns.grid * map.channels, end - begin, map.depth, first, pixels);
  } else {
    copy_pair_pixels<false>(from, columns.grid * map.channels, end - begin, map.depth, first, pixels);
  }
}

// One channel of a map of planes, side by side.
inline void copy_pair_plane(const Map<const BFloat16>& map, int64_t images, int64_t image, int64_t row,
                            const RowColumns& columns, float* to) {
  constexpr int64_t kVector = kLanes<float>;
  const auto [begin, end, from] = inside_pixels(map, images, image, row, columns);
  zero(to, begin);
  zero(to + end, columns.count - end);
  const int64_t count = end - begin;
  int64_t i = 0;
  for (; i + kVector <= count; i += kVector) store(to + begin + i, from.at(i));
  if (i < count) store_partial(to + begin + i, from.at(i, count - i), count - i);
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
