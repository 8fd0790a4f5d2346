// Strips: the piece of a map that a task works on, channels innermost. Where the map lies in memory that way and needs
// no zeros around it, a strip is just a view; else it is copied, transposed if need be, and its elements E become the T
// that is computed with. Only for kernel sources.
#pragma once

#include <type_traits>

#include "kernels/cpu/transpose.h"
#include "kernels/shapes.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// To prefetch. Some channels of a pixel are no stream that the machine's own prefetch sees.
constexpr int64_t kPixelsAhead = 32;

// A map of `channels` channels of which a task reads `depth`, from `first_channel` on.
template <typename T>
struct Map {
  T* data;
  Layout layout;
  int64_t rows, columns, channels;
  int64_t first_channel, depth;
};

// Rows row, row + row_grid, ... of a map, and columns likewise; they may lie outside and are zero there.
struct Box {
  int64_t image, images;
  int64_t row, rows, row_grid;
  int64_t column, columns, column_grid;
};

template <typename T>
struct Strip {
  T* data;
  int64_t image_stride, row_stride, pixel_stride;
};

template <typename T>
D2L_INLINE bool is_inside(const Map<T>& map, const Box& box) {
  return box.row >= 0 && box.row + (box.rows - 1) * box.row_grid < map.rows && box.column >= 0 &&
         box.column + (box.columns - 1) * box.column_grid < map.columns;
}

template <typename T>
D2L_INLINE Strip<T> view_of(const Map<T>& map, const Box& box) {
  const int64_t row = map.columns * map.channels;
  return {map.data + (box.image * map.rows + box.row) * row + box.column * map.channels + map.first_channel,
          map.rows * row, box.row_grid * row, box.column_grid * map.channels};
}

// Elements to set aside for a copied strip: what follows it is aligned and out of reach.
template <typename T>
D2L_INLINE int64_t strip_elements(int64_t elements) {
  return (ceil_div(elements, kLanes<T>) + 1) * kLanes<T>;
}

template <typename T>
D2L_INLINE void zero(T* to, int64_t count) {
  if (count > 0) __builtin_memset(to, 0, static_cast<size_t>(count) * sizeof(T));
}

template <typename From, typename To>
D2L_INLINE void copy_elements(const From* from, int64_t count, To* to) {
  int64_t i = 0;
  for (; i + kElements<To> <= count; i += kElements<To>) write(to + i, read(from + i));
  if (i < count) write_partial(to + i, read_partial(from + i, count - i), count - i);
}

// The same, of many.
template <typename T, typename E>
D2L_INLINE void copy_run(const E* from, int64_t count, T* to) {
  if constexpr (std::is_same_v<E, T>) {
    __builtin_memcpy(to, from, static_cast<size_t>(count) * sizeof(T));
  } else {
    copy_elements(from, count, to);
  }
}

// One pixel, and zeros up to the next, which belong to it if the depth is padded.
template <typename T, typename E>
D2L_INLINE void copy_pixel(const E* from, int64_t depth, T* to, int64_t pixel_stride) {
  copy_elements(from, depth, to);
  if (pixel_stride > depth) zero(to + depth, pixel_stride - depth);
}

// `columns` pixels of one row, all inside the map, starting at its element `from` of the first channel. Up to
// kLanes elements after them are overwritten.
template <typename T, typename E>
void copy_pixels(const Map<const E>& map, const E* from, int64_t columns, int64_t grid, T* to, int64_t pixel_stride) {
  if (map.layout == Layout::nchw) {
    const int64_t plane = map.rows * map.columns;
    if (grid == 1) {
      if (map.depth <= kLanes<T>) {
        transpose<T, true>(from, plane, map.depth, columns, to, pixel_stride);
      } else {
        transpose<T>(from, plane, map.depth, columns, to, pixel_stride);
      }
      return;
    }
    for (int64_t c = 0; c < map.depth; ++c) {
      for (int64_t q = 0; q < columns; ++q) to[q * pixel_stride + c] = read_one(from[c * plane + q * grid]);
    }
  } else if (grid == 1 && map.depth == map.channels && map.depth == pixel_stride) {
    copy_run(from, columns * map.depth, to);
  } else {
    const int64_t pixel = grid * map.channels;
    constexpr int64_t kLine = kLineBytes / static_cast<int64_t>(sizeof(E));
    for (int64_t q = 0; q < columns; ++q) {
      for (int64_t c = 0; c < map.depth; c += kLine) __builtin_prefetch(from + (q + kPixelsAhead) * pixel + c);
      copy_pixel(from + q * pixel, map.depth, to + q * pixel_stride, pixel_stride);
    }
  }
}

// Copies the box to `to`, dense but for pixel_stride >= map.depth, in ascending order; up to kLanes elements after it
// are overwritten.
template <typename T, typename E>
Strip<const T> copy_strip(const Map<const E>& map, const Box& box, T* to, int64_t pixel_stride) {
  const int64_t row_stride = box.columns * pixel_stride;
  const int64_t begin = clamp(ceil_div(-box.column, box.column_grid), 0, box.columns);
  const int64_t end = clamp(ceil_div(map.columns - box.column, box.column_grid), begin, box.columns);
  T* row = to;
  for (int64_t image = box.image; image < box.image + box.images; ++image) {
    const E* first = map.layout == Layout::nchw
                         ? map.data + (image * map.channels + map.first_channel) * map.rows * map.columns
                         : map.data + image * map.channels * map.rows * map.columns + map.first_channel;
    const int64_t pixel = map.layout == Layout::nchw ? 1 : map.channels;
    for (int64_t r = 0; r < box.rows; ++r, row += row_stride) {
      const int64_t h = box.row + r * box.row_grid;
      if (h < 0 || h >= map.rows || begin == end) {
        zero(row, row_stride);
        continue;
      }
      zero(row, begin * pixel_stride);
      const E* from = first + (h * map.columns + box.column + begin * box.column_grid) * pixel;
      copy_pixels(map, from, end - begin, box.column_grid, row + begin * pixel_stride, pixel_stride);
      zero(row + end * pixel_stride, (box.columns - end) * pixel_stride);
    }
  }
  return {to, box.rows * row_stride, row_stride, pixel_stride};
}

// The same of a NHWC map, but with the images of each pixel side by side.
template <typename T, typename E>
Strip<const T> copy_interleaved(const Map<const E>& map, const Box& box, T* to, int64_t pixel_stride) {
  const Strip<const T> strip{to, pixel_stride, box.columns * box.images * pixel_stride, box.images * pixel_stride};
  for (int64_t i = 0; i < box.images; ++i) {
    for (int64_t r = 0; r < box.rows; ++r) {
      const int64_t h = box.row + r * box.row_grid;
      T* pixel = to + i * strip.image_stride + r * strip.row_stride;
      for (int64_t q = 0; q < box.columns; ++q, pixel += strip.pixel_stride) {
        const int64_t w = box.column + q * box.column_grid;
        if (h < 0 || h >= map.rows || w < 0 || w >= map.columns) {
          zero(pixel, pixel_stride);
          continue;
        }
        const int64_t from = ((box.image + i) * map.rows + h) * map.columns + w;
        copy_pixel(map.data + from * map.channels + map.first_channel, map.depth, pixel, pixel_stride);
      }
    }
  }
  return strip;
}

#if defined(__AVX512BF16__)
// Values of two rows, or of null for zeros, side by side.
template <typename T>
D2L_INLINE void weave_values(const uint16_t* first, const uint16_t* second, int64_t count, T* to) {
  for (int64_t i = 0; i < count; i += kLanes<T>) {
    const auto lanes = static_cast<__mmask16>((1u << min(count - i, kLanes<T>)) - 1);
    const auto widened = [&](const uint16_t* row) D2L_INLINE_LAMBDA {
      const auto mask = row == nullptr ? __mmask16{0} : lanes;
      return _mm512_maskz_cvtepu16_epi32(mask, _mm256_maskz_loadu_epi16(mask, row + i));
    };
    const __m512i low = widened(first), high = widened(second);
    _mm512_mask_storeu_epi32(to + i, lanes,
                             _mm512_maskz_or_epi32(lanes, low, _mm512_maskz_slli_epi32(lanes, high, 16)));
  }
}

// The box of a NHWC map of bfloat16 as pairs of the values of each row and of the one `step` after it; with two
// `forms`, the pairs of the row and zeros follow them. Of an even stride, odd rows are not read, and are left out.
template <typename T>
Strip<const T> copy_row_pairs(const Map<const T>& map, const Box& box, int64_t step, int64_t stride, int64_t forms,
                              T* to) {
  const int64_t row_size = box.columns * map.depth;
  const int64_t begin = clamp(-box.column, 0, box.columns);
  const int64_t end = clamp(map.columns - box.column, begin, box.columns);
  const bool is_run = map.depth == map.channels;
  const int64_t runs = is_run ? 1 : end - begin, run = is_run ? (end - begin) * map.depth : map.depth;
  for (int64_t i = 0; i < box.images; ++i) {
    const auto row_at = [&](int64_t r) -> const uint16_t* {
      const int64_t h = box.row + r * box.row_grid;
      if (h < 0 || h >= map.rows) return nullptr;
      return reinterpret_cast<const uint16_t*>(map.data) +
             (((box.image + i) * map.rows + h) * map.columns + box.column + begin) * map.channels + map.first_channel;
    };
    for (int64_t r = 0; r < box.rows; r += stride % 2 == 0 ? 2 : 1) {
      for (int64_t form = 0; form < forms; ++form) {
        T* row = to + ((i * box.rows + r) * forms + form) * row_size;
        const uint16_t* const first = row_at(r);
        const uint16_t* const second = form == 0 ? row_at(r + step) : nullptr;
        zero(row, begin * map.depth);
        for (int64_t q = 0; q < runs; ++q) {
          const int64_t from = q * map.channels;
          weave_values(first == nullptr ? first : first + from, second == nullptr ? second : second + from, run,
                       row + begin * map.depth + q * run);
        }
        zero(row + end * map.depth, (box.columns - end) * map.depth);
      }
    }
  }
  return {to, box.rows * forms * row_size, forms * row_size, map.depth};
}
#endif

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
