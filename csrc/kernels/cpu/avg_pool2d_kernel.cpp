// Average over windows, and its gradient.
//
//   output[p,q] = sum over taps in the map of input / (rows[p] * columns[q])
//   grad_input[h,w] = sum over windows (p, q) that cover (h, w) of grad_output[p,q] / (rows[p] * columns[q])
//
// where rows[p] * columns[q] is the divisor of the window: its size or the override. Bytes: each tensor once; the taps
// that windows share come from the nearest cache. FLOPs: an addition per tap and a division per window (NHWC), or R + S
// additions per window (NCHW, where sums over rows are made first, then over columns). Threads share rows of items.
// Vectors run over the channels (NHWC) or over rows (NCHW). Sums are kept in computed_t<E> in an order that depends
// on the shape alone.
#include "kernels/cpu/pool2d_pack.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

namespace {

constexpr Tap kOrigin{0, 0};

D2L_INLINE TapRange origin() { return {&kOrigin, &kOrigin + 1}; }

// n neighbouring sums: output[i] = finish(count, i, sum over taps of value * weight(row, column)).
template <typename From, typename To, typename Weight, typename Finish>
D2L_INLINE void sum_of_taps(const From* source, int64_t row_pitch, TapRange rows, TapRange columns, int64_t n,
                            To* output, Weight&& weight, Finish&& finish) {
  using T = computed_t<From>;
  for_each_pack<T>(n, [&](auto count, auto blocks, int64_t i) {
    constexpr int kCount = count.value;
    constexpr int kBlocks = blocks.value;
    pack_t<T, kCount> sum[kBlocks] = {};
    for (const Tap* row = rows.begin; row != rows.end; ++row) {
      for (const Tap* column = columns.begin; column != columns.end; ++column) {
        const From* from = source + (row->place * row_pitch + column->place + i);
        const T factor = weight(*row, *column);
        for (int b = 0; b < kBlocks; ++b) {
          if constexpr (kCount == kLanes<T>) prefetch_ahead(from + b * kCount);
          sum[b] += load_pack<kCount>(from + b * kCount) * factor;
        }
      }
    }
    for (int b = 0; b < kBlocks; ++b) store_pack(output + i + b * kCount, finish(count, i + b * kCount, sum[b]));
  });
}

template <typename E, typename T = computed_t<E>>
D2L_INLINE T sum_of_run(const E* from, int64_t n) {
  constexpr int kCount = kLanes<T>;
  pack_t<T, kCount> sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * kCount <= n; i += 4 * kCount) {
    for (int b = 0; b < 4; ++b) sums[b] += load_pack<kCount>(from + i + b * kCount);
  }
  for (; i + kCount <= n; i += kCount) sums[0] += load_pack<kCount>(from + i);
  const auto lanes = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  T sum = 0;
  for (int lane = 0; lane < kCount; ++lane) sum += lanes[lane];
  for (; i < n; ++i) sum += read_one(from[i]);
  return sum;
}

// The gradient is the same in places under the same windows.
D2L_INLINE bool same_places(TapRange a, TapRange b) {
  if (a.end - a.begin != b.end - b.begin) return false;
  for (int64_t i = 0; i < a.end - a.begin; ++i) {
    if (a.begin[i].place != b.begin[i].place) return false;
  }
  return true;
}

}  // namespace

template <typename E>
void avg_pool2d_nhwc(const Pool2dNhwc& work, const WindowSizes<computed_t<E>>& sizes, const E* input, E* output,
                     Span units) {
  using T = computed_t<E>;
  const int64_t row_pitch = work.source_columns * work.channels;
  for (int64_t unit = units.begin; unit < units.end; ++unit) {
    const E* image = input + unit / work.rows * work.source_rows * row_pitch;
    const int64_t p = unit % work.rows;
    for (int64_t q = 0; q < work.columns; ++q) {
      const T size = sizes.rows[p] * sizes.columns[q];
      sum_of_taps(
          image, row_pitch, taps_of(work.row_taps, p), taps_of(work.column_taps, q), work.channels,
          output + (unit * work.columns + q) * work.channels, [](const Tap&, const Tap&) { return T(1); },
          [&](auto, int64_t, auto sum) { return sum / size; });
    }
  }
}

template <typename E>
void avg_pool2d_input_grad_nhwc(const Pool2dNhwc& work, computed_t<E> uniform_size, const E* grad_output, E* grad_input,
                                Span units) {
  using T = computed_t<E>;
  const int64_t row_pitch = work.source_columns * work.channels;
  for (int64_t unit = units.begin; unit < units.end; ++unit) {
    const E* image = grad_output + unit / work.rows * work.source_rows * row_pitch;
    const int64_t h = unit % work.rows;
    const TapRange rows = taps_of(work.row_taps, h);
    if (unit > units.begin && h > 0 && same_places(rows, taps_of(work.row_taps, h - 1))) {
      E* row = grad_input + unit * work.columns * work.channels;
      copy_row(row - work.columns * work.channels, work.columns * work.channels, row);
      continue;
    }
    for (int64_t w = 0; w < work.columns; ++w) {
      const TapRange columns = taps_of(work.column_taps, w);
      E* to = grad_input + (unit * work.columns + w) * work.channels;
      if (uniform_size != 0) {
        sum_of_taps(
            image, row_pitch, rows, columns, work.channels, to, [](const Tap&, const Tap&) { return T(1); },
            [&](auto, int64_t, auto sum) { return sum / uniform_size; });
      } else {
        sum_of_taps(
            image, row_pitch, rows, columns, work.channels, to,
            [](const Tap& row, const Tap& column) { return 1 / static_cast<T>(row.code * column.code); },
            [](auto, int64_t, auto sum) { return sum; });
      }
    }
  }
}

// Each of the three stages goes over a whole band: the next would wait for stores that are still under way.
template <typename E>
void avg_pool2d_nchw(const Pool2dNchw& work, const WindowSizes<computed_t<E>>& sizes, const E* input, E* output,
                     computed_t<E>* scratch, Span units) {
  using T = computed_t<E>;
  const auto one = [](const Tap&, const Tap&) { return T(1); };
  const int64_t width = work.source_columns;
  const bool whole_rows =
      work.spans != nullptr && work.columns == 1 && work.spans->begin == 0 && work.spans->end == width;
  T* sums = scratch;
  T* phases = scratch + work.band_rows * width;
  const int64_t phases_pitch = work.stride * work.phase_length;
  for (int64_t unit = units.begin; unit < units.end; unit += work.band_rows) {
    const int64_t rows = min(work.band_rows, units.end - unit);
    E* to = output + unit * work.columns;
    if (whole_rows) {  // the taps of a window are neighbours
      for (int64_t row = 0; row < rows; ++row) {
        const E* plane = input + (unit + row) / work.rows * work.source_rows * width;
        const int64_t p = (unit + row) % work.rows;
        const TapRange taps = taps_of(work.row_taps, p);
        const int64_t first = taps.begin == taps.end ? 0 : taps.begin->place;
        const T sum = sum_of_run(plane + first * width, (taps.end - taps.begin) * width);
        to[row] = rounded_one<E>(sum / (sizes.rows[p] * sizes.columns[0]));
      }
      continue;
    }
    for (int64_t row = 0; row < rows; ++row) {
      const E* plane = input + (unit + row) / work.rows * work.source_rows * width;
      sum_of_taps(plane, width, taps_of(work.row_taps, (unit + row) % work.rows), origin(), width, sums + row * width,
                  one, [](auto, int64_t, auto sum) { return sum; });
    }
    if (work.spans != nullptr) {
      for (int64_t row = 0; row < rows; ++row) {
        const T row_size = sizes.rows[(unit + row) % work.rows];
        for (int64_t q = 0; q < work.columns; ++q) {
          const Span span = work.spans[q];
          const T sum = sum_of_run(sums + row * width + span.begin, span.end - span.begin);
          to[row * work.columns + q] = rounded_one<E>(sum / (row_size * sizes.columns[q]));
        }
      }
      continue;
    }
    const int64_t lines = work.rows_in_one ? 1 : rows;
    const int64_t line_width = work.rows_in_one ? rows * width : width;
    const int64_t line_columns = work.rows_in_one ? rows * work.columns : work.columns;
    if (work.copies_rows) {
      for (int64_t line = 0; line < lines; ++line) {
        split_row(sums + line * line_width, line_width, work.stride, work.pad, work.phase_length,
                  phases + line * phases_pitch);
      }
    }
    for (int64_t line = 0; line < lines; ++line) {
      const T* from = work.copies_rows ? phases + line * phases_pitch : sums + line * line_width;
      const TapRange columns = taps_of(work.column_taps, 0);
      if (sizes.uniform != 0) {
        sum_of_taps(from, 0, origin(), columns, line_columns, to + line * line_columns, one,
                    [&](auto, int64_t, auto sum) { return sum / sizes.uniform; });
      } else {
        const T row_size = sizes.rows[(unit + line) % work.rows];
        sum_of_taps(from, 0, origin(), columns, line_columns, to + line * line_columns, one,
                    [&](auto count, int64_t i, auto sum) {
                      return sum / (load_pack<count.value>(sizes.columns + i) * row_size);
                    });
      }
    }
  }
}

template <typename E>
void avg_pool2d_input_grad_nchw(const Pool2dNchw& work, const WindowSizes<computed_t<E>>& sizes, const E* grad_output,
                                E* grad_input, computed_t<E>* scratch, Span units) {
  using T = computed_t<E>;
  const auto one = [](const Tap&, const Tap&) { return T(1); };
  const auto same = [](auto, int64_t, auto sum) { return sum; };
  const int64_t width = work.source_columns;
  const int64_t phases_pitch = work.stride * work.phase_length;
  const int64_t sums_pitch = work.rows_in_one ? width : work.margin + max(work.phase_length, width);
  T* phases = scratch;
  T* sums = scratch + work.band_rows * phases_pitch;
  for (int64_t unit = units.begin; unit < units.end; unit += work.band_rows) {
    const int64_t rows = min(work.band_rows, units.end - unit);
    E* to = grad_input + unit * work.columns;
    for (int64_t row = 0; row < rows; ++row) {
      const E* plane = grad_output + (unit + row) / work.rows * work.source_rows * width;
      const TapRange covering = taps_of(work.row_taps, (unit + row) % work.rows);
      T* sum = sums + row * sums_pitch + work.margin;
      if (sizes.uniform != 0) {
        sum_of_taps(plane, width, covering, origin(), width, sum, one,
                    [&](auto, int64_t, auto value) { return value / sizes.uniform; });
      } else {
        sum_of_taps(
            plane, width, covering, origin(), width, sum,
            [](const Tap& tap, const Tap&) { return 1 / static_cast<T>(tap.code); },
            [&](auto count, int64_t i, auto value) { return value / load_pack<count.value>(sizes.columns + i); });
      }
    }
    if (work.spans != nullptr) {
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t k = 0; k < work.span_count; ++k) {
          const TapRange windows = taps_of(work.column_taps, k);
          const Span span = work.spans[k];
          T sum = 0;
          for (const Tap* window = windows.begin; window != windows.end; ++window) {
            sum += sums[row * sums_pitch + window->place];
          }
          fill_run(to + row * work.columns + span.begin, span.end - span.begin, sum);
        }
      }
      continue;
    }
    const int64_t lines = work.rows_in_one ? 1 : rows;
    const int64_t line_columns = work.rows_in_one ? rows * work.columns : work.columns;
    const int64_t length = work.rows_in_one ? rows * width : work.phase_length;
    for (int64_t line = 0; line < lines; ++line) {
      const T* from = sums + line * sums_pitch;
      if (work.stride == 1) {
        sum_of_taps(from + work.pad, 0, origin(), taps_of(work.column_taps, 0), line_columns, to + line * line_columns,
                    one, same);
        continue;
      }
      for (int64_t phase = 0; phase < work.stride; ++phase) {
        sum_of_taps(from, 0, origin(), taps_of(work.column_taps, phase), length,
                    phases + line * phases_pitch + phase * work.phase_length, one, same);
      }
    }
    if (work.stride == 1) continue;
    for (int64_t line = 0; line < lines; ++line) {
      merge_row(phases + line * phases_pitch, line_columns, work.stride, work.pad, work.phase_length,
                to + line * line_columns);
    }
  }
}

#define D2L_INSTANTIATE(E)                                                                                          \
  template void avg_pool2d_nhwc(const Pool2dNhwc&, const WindowSizes<computed_t<E>>&, const E*, E*, Span);          \
  template void avg_pool2d_input_grad_nhwc(const Pool2dNhwc&, computed_t<E>, const E*, E*, Span);                   \
  template void avg_pool2d_nchw(const Pool2dNchw&, const WindowSizes<computed_t<E>>&, const E*, E*, computed_t<E>*, \
                                Span);                                                                              \
  template void avg_pool2d_input_grad_nchw(const Pool2dNchw&, const WindowSizes<computed_t<E>>&, const E*, E*,      \
                                           computed_t<E>*, Span);

D2L_INSTANTIATE(float)
D2L_INSTANTIATE(double)
D2L_INSTANTIATE(BFloat16)

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
