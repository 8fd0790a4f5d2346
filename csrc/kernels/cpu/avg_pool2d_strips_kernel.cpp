// Average over overlapping windows of 3 x 3 pixels in NHWC, and its gradient.
//
//   output[p,q] = sum over r of row[p * stride - pad + r, q] / size(p, q),
//   row[h,q] = sum over taps s of input[h, column(q, s)],  size(p, q) = rows[p] * columns[q]
//
// Windows of a strip share the sums of their rows: 3 or 6 loads a window instead of 9.
//
//   grad_input[h,w] = sum over p that cover h of row[p,w],
//   row[p,w] = sum over q that cover w of grad_output[p,q] / size(p, q)
//
// There a row of windows is read once a strip, and its sum goes to the three rows of pixels below it. Where all sizes
// are equal pixels are divided instead. Bytes: each tensor once. Sums are kept in computed_t<E>: along a row
// first, then from the top, wherever bands begin.
#include "kernels/cpu/pool2d_strips.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

namespace {

// The sum of value * weight(tap) over a row's taps, of which the last kFresh are new to the strip.
template <int kColumns, int kFresh, int64_t kAhead, int kCount, int kBlocks, typename E, typename Weight>
D2L_INLINE auto sum_of_row(const E* row, const Tap* columns, Weight&& weight) {
  using T = computed_t<E>;
  Sums<T, kCount, kBlocks> sums = {};
  for (int s = 0; s < kColumns; ++s) {
    const E* const from = row + columns[s].place;
    const T factor = weight(columns[s]);
    for (int b = 0; b < kBlocks; ++b) {
      if (kCount == kLanes<T> && s >= kColumns - kFresh) prefetch_ahead<kAhead>(from + b * kCount);
      sums.values[b] += load_pack<kCount>(from + b * kCount) * factor;
    }
  }
  return sums;
}

// Writes a strip, whose first window lies at `output`.
template <int kStride, int kColumns, typename T, typename E>
D2L_INLINE void write_averages(const Pool2dStrips& work, const T* row_sizes, T column_size, const E* image,
                               const Tap* columns, Span windows, E* output) {
  const int64_t row_pitch = work.map.source_columns * work.map.channels;
  const int64_t output_pitch = work.map.columns * work.map.channels;
  for_each_pack<T, kMostBlocks>(work.map.channels, [&](auto count, auto blocks, int64_t i) D2L_INLINE_LAMBDA {
    constexpr int kCount = count.value;
    constexpr int kBlocks = blocks.value;
    using Row = Sums<T, kCount, kBlocks>;
    const auto row_at = [&](int64_t h) D2L_INLINE_LAMBDA {
      if (!is_within(h, work.map.source_rows)) return Row{};
      return sum_of_row<kColumns, kStride, kAheadBytes, kCount, kBlocks>(image + h * row_pitch + i, columns,
                                                                         [](const Tap&) { return T(1); });
    };
    const auto write = [&](int64_t p, const Row& first, const Row& second, const Row& third) D2L_INLINE_LAMBDA {
      E* const to = output + (p - windows.begin) * output_pitch + i;
      const T size = row_sizes[p] * column_size;
      for (int b = 0; b < kBlocks; ++b) {
        store_pack(to + b * kCount, (first.values[b] + second.values[b] + third.values[b]) / size);
      }
    };
    go_down_windows<kStride>(work, windows, row_at, write);
  });
}

// Writes a strip, whose first pixel lies at `grad_input`.
template <int kStride, bool kUniform, int kColumns, typename T, typename E>
D2L_INLINE void write_gradients(const Pool2dStrips& work, const WindowSizes<T>& sizes, const E* grad_output,
                                const Tap* columns, Span pixels, E* grad_input) {
  const int64_t window_pitch = work.map.source_columns * work.map.channels;
  const int64_t pixel_pitch = work.map.columns * work.map.channels;
  for_each_pack<T, kMostBlocks>(work.map.channels, [&](auto count, auto blocks, int64_t i) D2L_INLINE_LAMBDA {
    constexpr int kCount = count.value;
    constexpr int kBlocks = blocks.value;
    using Row = Sums<T, kCount, kBlocks>;
    const auto add = [&](int64_t p, Row* rows) D2L_INLINE_LAMBDA {
      const Row sums = sum_of_row<kColumns, 1, kGradAheadBytes, kCount, kBlocks>(
          grad_output + p * window_pitch + i, columns,
          [&](const Tap& column) { return kUniform ? T(1) : 1 / (sizes.rows[p] * static_cast<T>(column.code)); });
      for (int r = 0; r < kTaps; ++r) {
        for (int b = 0; b < kBlocks; ++b) rows[r].values[b] += sums.values[b];
      }
    };
    const auto store = [&](int64_t h, const Row& row) D2L_INLINE_LAMBDA {
      E* const to = grad_input + (h - pixels.begin) * pixel_pitch + i;
      for (int b = 0; b < kBlocks; ++b) {
        if (kCount == kLanes<T>) prefetch_ahead<kGradAheadBytes>(to + b * kCount);
        store_pack(to + b * kCount, kUniform ? row.values[b] / sizes.uniform : row.values[b]);
      }
    };
    go_down_pixels<kStride, Row>(work, pixels, add, store);
  });
}

template <int kStride, typename T, typename E>
D2L_INLINE void write_bands_of_averages(const Pool2dStrips& work, const WindowSizes<T>& sizes, const E* input,
                                        E* output, Span units) {
  for_each_band(work, units, [&](const Band& band) D2L_INLINE_LAMBDA {
    const T* column_size = sizes.columns;
    for_each_strip(work.map, band, [&](TapRange columns, int64_t at) D2L_INLINE_LAMBDA {
      with_count(columns, [&](auto count) {
        write_averages<kStride, count.value>(work, sizes.rows, *column_size, input + band.source, columns.begin,
                                             band.rows, output + at);
      });
      ++column_size;
    });
  });
}

template <int kStride, bool kUniform, typename T, typename E>
D2L_INLINE void write_bands_of_gradients(const Pool2dStrips& work, const WindowSizes<T>& sizes, const E* grad_output,
                                         E* grad_input, Span units) {
  for_each_band(work, units, [&](const Band& band) D2L_INLINE_LAMBDA {
    for_each_strip(work.map, band, [&](TapRange columns, int64_t at) D2L_INLINE_LAMBDA {
      with_count(columns, [&](auto count) {
        write_gradients<kStride, kUniform, count.value>(work, sizes, grad_output + band.source, columns.begin,
                                                        band.rows, grad_input + at);
      });
    });
  });
}

}  // namespace

template <typename E>
void avg_pool2d_strips(const Pool2dStrips& work, const WindowSizes<computed_t<E>>& sizes, const E* input, E* output,
                       Span units) {
  if (work.stride == 1) return write_bands_of_averages<1>(work, sizes, input, output, units);
  write_bands_of_averages<2>(work, sizes, input, output, units);
}

template <typename E>
void avg_pool2d_input_grad_strips(const Pool2dStrips& work, const WindowSizes<computed_t<E>>& sizes,
                                  const E* grad_output, E* grad_input, Span units) {
  if (sizes.uniform != 0) {
    if (work.stride == 1) return write_bands_of_gradients<1, true>(work, sizes, grad_output, grad_input, units);
    return write_bands_of_gradients<2, true>(work, sizes, grad_output, grad_input, units);
  }
  if (work.stride == 1) return write_bands_of_gradients<1, false>(work, sizes, grad_output, grad_input, units);
  write_bands_of_gradients<2, false>(work, sizes, grad_output, grad_input, units);
}

#define D2L_INSTANTIATE(E)                                                                                         \
  template void avg_pool2d_strips(const Pool2dStrips&, const WindowSizes<computed_t<E>>&, const E*, E*, Span);     \
  template void avg_pool2d_input_grad_strips(const Pool2dStrips&, const WindowSizes<computed_t<E>>&, const E*, E*, \
                                             Span);

D2L_INSTANTIATE(float)
D2L_INSTANTIATE(double)
D2L_INSTANTIATE(BFloat16)

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
