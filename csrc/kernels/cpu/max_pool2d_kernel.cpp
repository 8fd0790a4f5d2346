// Maximum over windows, and its gradient.
//
//   output[p,q] = max over taps (r, s) in the map of input[row(p, r), column(q, s)];  offsets[p,q] = r * S + s of it
//   grad_input[h,w] = sum over windows (p, q) that cover (h, w) of grad_output[p,q] where offsets[p,q] points at (h, w)
//
// Bytes: each tensor once (an offset is one byte); the taps that windows share come from the nearest cache.
// FLOPs: a comparison (backward: an addition) per tap. Threads share rows of items (NHWC), bands of planes (NCHW
// forward) or planes (NCHW backward).
// Vectors run over the channels (NHWC) or over a row of windows (NCHW); maximum, offset and sum stay in registers.
// In NHWC the gradient is a gather: each element compares the remembered offsets of the windows above it with its own
// place in them. In NCHW, where few lanes would share a place, each window adds to its plane. Either way an element
// is the sum in computed_t<E> of its windows in their order, whatever the threads.
#include "kernels/cpu/pool2d_pack.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

namespace {

// Calls visit(from, code) for each tap of a window.
template <typename E, typename Visit>
D2L_INLINE void for_each_tap(const E* source, int64_t row_pitch, TapRange rows, TapRange columns, Visit&& visit) {
  for (const Tap* row = rows.begin; row != rows.end; ++row) {
    const E* const from = source + row->place * row_pitch;
    for (const Tap* column = columns.begin; column != columns.end; ++column) {
      visit(from + column->place, static_cast<lane_t<computed_t<E>>>(row->code + column->code));
    }
  }
}

// The maxima of n neighbouring windows; store_codes_at(i, codes) gets what first_codes(i) and the taps make of the
// offsets. A NaN wins over everything before it; a window of -infinity keeps its first tap. NaNs are rare: a first run
// over the taps only looks out for them, and where there are some a second one starts afresh.
template <typename From, typename To, typename FirstCodes, typename StoreCodes>
D2L_INLINE void max_of_taps(const From* source, int64_t row_pitch, TapRange rows, TapRange columns, int64_t n,
                            To* output, FirstCodes&& first_codes, StoreCodes&& store_codes_at) {
  using T = computed_t<From>;
  using Code = lane_t<T>;
  for_each_pack<T>(n, [&](auto count, auto blocks, int64_t i) {
    constexpr int kCount = count.value;
    constexpr int kBlocks = blocks.value;
    pack_t<T, kCount> best[kBlocks];
    pack_t<Code, kCount> codes[kBlocks];
    const auto start = [&]() D2L_INLINE_LAMBDA {
      for (int b = 0; b < kBlocks; ++b) {
        best[b] = spread<kCount>(-static_cast<T>(__builtin_inf()));
        codes[b] = first_codes(count, i + b * kCount);
      }
    };
    NanWatch<pack_t<T, kCount>> nans[(kBlocks + 1) / 2];
    start();
    for_each_tap(source + i, row_pitch, rows, columns, [&](const From* from, Code tap) D2L_INLINE_LAMBDA {
      pack_t<T, kCount> values[kBlocks];
      for (int b = 0; b < kBlocks; ++b) {
        if constexpr (kCount == kLanes<T>) prefetch_ahead(from + b * kCount);
        values[b] = load_pack<kCount>(from + b * kCount);
        replace_where_greater(values[b], spread<kCount>(tap), best[b], codes[b]);
      }
      for (int b = 0; b < kBlocks; b += 2) nans[b / 2].see(values[b], values[min(b + 1, kBlocks - 1)]);
    });
    bool any_nan = false;
    for (const auto& watch : nans) any_nan |= watch.saw_any();
    if (__builtin_expect(any_nan, false)) {
      start();
      for_each_tap(source + i, row_pitch, rows, columns, [&](const From* from, Code tap) D2L_INLINE_LAMBDA {
        for (int b = 0; b < kBlocks; ++b) {
          replace_where_greater_or_nan(load_pack<kCount>(from + b * kCount), spread<kCount>(tap), best[b], codes[b]);
        }
      });
    }
    for (int b = 0; b < kBlocks; ++b) {
      store_pack(output + i + b * kCount, best[b]);
      store_codes_at(count, i + b * kCount, codes[b]);
    }
  });
}

// The same for fewer windows than a register has lanes, of a source that may be read beyond them.
template <typename T, typename E, typename Offset>
D2L_INLINE void max_of_few(const T* source, int64_t row_pitch, TapRange rows, TapRange columns, int64_t n,
                           vec_t<lane_t<T>> codes, E* output, Offset* offsets) {
  vec_t<T> best = broadcast(-static_cast<T>(__builtin_inf()));
  for (const Tap* row = rows.begin; row != rows.end; ++row) {
    for (const Tap* column = columns.begin; column != columns.end; ++column) {
      const auto code = broadcast(static_cast<lane_t<T>>(row->code + column->code));
      replace_where_greater_or_nan(load(source + row->place * row_pitch + column->place), code, best, codes);
    }
  }
  write_partial(output, best, n);
  if (offsets != nullptr) store_first_codes<lane_t<T>>(offsets, codes, n);
}

// Adds to kCount * kBlocks neighbouring inputs, from the i-th, what the windows in one row pass on to them.
template <int kCount, int kBlocks, typename E, typename Offset, typename T = computed_t<E>>
D2L_INLINE void add_matching_taps(const E* grad_output, const Offset* offsets, int64_t row_pitch, const Tap& row,
                                  TapRange columns, int64_t i, pack_t<T, kCount>* sum) {
  const int64_t from = row.place * row_pitch + i;
  for (const Tap* column = columns.begin; column != columns.end; ++column) {
    const auto here = spread_place<places_t<T, Offset, kCount>>(row.code + column->code);
    for (int b = 0; b < kBlocks; ++b) {
      const int64_t at = from + column->place + b * kCount;
      add_where_equal(load_pack<kCount>(grad_output + at), load_places<T, kCount>(offsets + at), here, sum[b]);
    }
  }
}

template <typename E, typename Offset>
D2L_INLINE void write_gradients(const E* grad_output, const Offset* offsets, int64_t row_pitch, TapRange rows,
                                TapRange columns, int64_t n, E* grad_input) {
  using T = computed_t<E>;
  for_each_pack<T>(n, [&](auto count, auto blocks, int64_t i) {
    constexpr int kCount = count.value;
    constexpr int kBlocks = blocks.value;
    pack_t<T, kCount> sum[kBlocks] = {};
    if (rows.begin != rows.end && columns.begin != columns.end) {  // the rows before the last one were read before
      const int64_t last = rows.end[-1].place * row_pitch + columns.end[-1].place + i;
      prefetch_ahead<1024>(offsets + last);
      for (int b = 0; b < kBlocks; ++b) prefetch_ahead(grad_output + last + b * kCount);
    }
    for (int b = 0; b < kBlocks; ++b) prefetch_stores(grad_input + i + b * kCount);
    for (const Tap* row = rows.begin; row != rows.end; ++row) {
      add_matching_taps<kCount, kBlocks>(grad_output, offsets, row_pitch, *row, columns, i, sum);
    }
    for (int b = 0; b < kBlocks; ++b) store_pack(grad_input + i + b * kCount, sum[b]);
  });
}

D2L_INLINE int64_t first_code(TapRange taps) { return taps.begin == taps.end ? 0 : taps.begin->code; }

// The source rows [begin, end) that a band of items reads.
D2L_INLINE Span rows_read(AxisTaps axis, Span items) {
  if (axis.first[items.begin] == axis.first[items.end]) return {0, 0};
  Span rows{INT64_MAX, 0};
  for (int64_t i = axis.first[items.begin]; i < axis.first[items.end]; ++i) {
    rows.begin = min(rows.begin, axis.taps[i].place);
    rows.end = max(rows.end, axis.taps[i].place + 1);
  }
  return rows;
}

D2L_INLINE Span rows_of_band(const Pool2dNchw& work, int64_t unit) {
  const int64_t begin = unit % work.bands * work.band_rows;
  return {begin, min(begin + work.band_rows, work.rows)};
}

}  // namespace

template <typename E, typename Offset>
void max_pool2d_nhwc(const Pool2dNhwc& work, const E* input, E* output, Offset* offsets, Span units) {
  using T = computed_t<E>;
  const int64_t row_pitch = work.source_columns * work.channels;
  for (int64_t unit = units.begin; unit < units.end; ++unit) {
    const E* image = input + unit / work.rows * work.source_rows * row_pitch;
    const TapRange rows = taps_of(work.row_taps, unit % work.rows);
    for (int64_t q = 0; q < work.columns; ++q) {
      const TapRange columns = taps_of(work.column_taps, q);
      const int64_t at = (unit * work.columns + q) * work.channels;
      const auto first = static_cast<lane_t<T>>(first_code(rows) + first_code(columns));
      const auto first_codes = [&](auto count, int64_t) { return spread<count.value>(first); };
      if (offsets != nullptr) {
        max_of_taps(
            image, row_pitch, rows, columns, work.channels, output + at, first_codes,
            [&](auto count, int64_t i, auto codes) { store_codes<lane_t<T>, count.value>(offsets + at + i, codes); });
      } else {
        max_of_taps(image, row_pitch, rows, columns, work.channels, output + at, first_codes,
                    [](auto, int64_t, auto) {});
      }
    }
  }
}

template <typename E, typename Offset>
void max_pool2d_input_grad_nhwc(const Pool2dNhwc& work, const E* grad_output, const Offset* offsets, E* grad_input,
                                Span units) {
  const int64_t row_pitch = work.source_columns * work.channels;
  for (int64_t unit = units.begin; unit < units.end; ++unit) {
    const int64_t image = unit / work.rows * work.source_rows * row_pitch;
    const TapRange rows = taps_of(work.row_taps, unit % work.rows);
    for (int64_t w = 0; w < work.columns; ++w) {
      write_gradients(grad_output + image, offsets + image, row_pitch, rows, taps_of(work.column_taps, w),
                      work.channels, grad_input + (unit * work.columns + w) * work.channels);
    }
  }
}

template <typename E, typename Offset>
void max_pool2d_nchw(const Pool2dNchw& work, const E* input, const Offset* first_columns, E* output, Offset* offsets,
                     computed_t<E>* scratch, Span units) {
  using T = computed_t<E>;
  const int64_t scratch_pitch = work.stride * work.phase_length;
  const TapRange columns = taps_of(work.column_taps, 0);
  for (int64_t unit = units.begin; unit < units.end; ++unit) {
    const int64_t plane = unit / work.bands;
    const E* const rows_from = input + plane * work.source_rows * work.source_columns;
    const Span band = rows_of_band(work, unit);
    Span filled{0, 0};
    const T* source = scratch;
    if (work.copies_rows) {
      filled = rows_read(work.row_taps, band);
      for (int64_t h = filled.begin; h < filled.end; ++h) {
        split_row(rows_from + h * work.source_columns, work.source_columns, work.stride, work.pad, work.phase_length,
                  scratch + (h - filled.begin) * scratch_pitch);
      }
    } else if constexpr (!kIsRounded<E>) {
      source = rows_from;
    }
    const int64_t row_pitch = work.copies_rows ? scratch_pitch : work.source_columns;
    source -= filled.begin * row_pitch;
    for (int64_t p = band.begin; p < band.end; ++p) {
      const TapRange rows = taps_of(work.row_taps, p);
      const auto first_row = static_cast<lane_t<T>>(first_code(rows));
      const int64_t at = (plane * work.rows + p) * work.columns;
      if (work.copies_rows && work.columns < kLanes<T>) {
        const auto codes = load_codes<lane_t<T>, kLanes<T>>(first_columns) + first_row;
        max_of_few(source, row_pitch, rows, columns, work.columns, codes, output + at,
                   offsets == nullptr ? nullptr : offsets + at);
        continue;
      }
      const auto first_codes = [&](auto count, int64_t i) {
        return load_codes<lane_t<T>, count.value>(first_columns + i) + first_row;
      };
      if (offsets != nullptr) {
        max_of_taps(
            source, row_pitch, rows, columns, work.columns, output + at, first_codes,
            [&](auto count, int64_t i, auto codes) { store_codes<lane_t<T>, count.value>(offsets + at + i, codes); });
      } else {
        max_of_taps(source, row_pitch, rows, columns, work.columns, output + at, first_codes,
                    [](auto, int64_t, auto) {});
      }
    }
  }
}

template <typename E, typename Offset>
void max_pool2d_input_grad_scatter(const Pool2dScatter& work, const E* grad_output, const Offset* offsets,
                                   E* grad_input, computed_t<E>* scratch, Span planes) {
  using T = computed_t<E>;
  int64_t window = planes.begin * work.windows_down * work.windows_across;
  for (int64_t begin = planes.begin; begin < planes.end; begin += work.planes) {
    const int64_t end = min(begin + work.planes, planes.end), elements = (end - begin) * work.plane;
    E* const to = grad_input + begin * work.plane;
    T* all = scratch;
    if constexpr (!kIsRounded<E>) all = to;
    fill_run(all, elements, T(0));
    for (int64_t plane = begin; plane < end; ++plane) {
      T* const sums = all + (plane - begin) * work.plane;
      for (int64_t p = 0; p < work.windows_down; ++p, window += work.windows_across) {
        const int64_t row = work.window_rows[p];
        for (int64_t q = 0; q < work.windows_across; ++q) {
          const auto offset = static_cast<int64_t>(offsets[window + q]);
          if (sizeof(Offset) > 1 && !is_within(offset, work.taps)) continue;  // the table has a step for every byte
          const int64_t place = row + work.window_columns[q] + work.steps[offset];
          if (is_within(place, work.plane)) sums[place] += read_one(grad_output[window + q]);
        }
      }
    }
    if constexpr (kIsRounded<E>) copy_row(scratch, elements, to);
  }
}

#define D2L_INSTANTIATE(E, Offset)                                                                              \
  template void max_pool2d_nhwc(const Pool2dNhwc&, const E*, E*, Offset*, Span);                                \
  template void max_pool2d_input_grad_nhwc(const Pool2dNhwc&, const E*, const Offset*, E*, Span);               \
  template void max_pool2d_nchw(const Pool2dNchw&, const E*, const Offset*, E*, Offset*, computed_t<E>*, Span); \
  template void max_pool2d_input_grad_scatter(const Pool2dScatter&, const E*, const Offset*, E*, computed_t<E>*, Span);

D2L_INSTANTIATE(float, uint8_t)
D2L_INSTANTIATE(float, int32_t)
D2L_INSTANTIATE(double, uint8_t)
D2L_INSTANTIATE(double, int32_t)
D2L_INSTANTIATE(BFloat16, uint8_t)
D2L_INSTANTIATE(BFloat16, int32_t)

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
