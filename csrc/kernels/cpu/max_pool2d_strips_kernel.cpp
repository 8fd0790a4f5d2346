// Maximum over overlapping windows of 3 x 3 pixels in NHWC, and its gradient.
//
//   output[p,q] = max over r of row[p * stride - pad + r, q],  row[h,q] = max over taps s of input[h, column(q, s)]
//
// Windows of a strip share the maxima of their rows: 3 or 6 loads a window instead of 9. Among equal values the first
// in the window wins, since taps are compared within a row first and rows from the top. Bytes: each tensor once.
//
//   grad_input[h,w] = sum over windows (p, q) that cover (h, w) of grad_output[p,q] where offsets[p,q] points at (h, w)
//
// There a row of windows is read once a strip and adds to the three rows of pixels below it, whose sums stay in
// registers: in the order of the windows, as elsewhere.
#include "kernels/cpu/pool2d_strips.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

namespace {

// Maxima of kBlocks registers of channels. The code of tap (r, s) is 3 r + s.
template <typename T, int kCount, int kBlocks>
struct Maxima {
  using Code = lane_t<T>;

  pack_t<T, kCount> values[kBlocks];
  pack_t<Code, kCount> codes[kBlocks];

  D2L_INLINE void fill(T value, int64_t code) {
    for (int b = 0; b < kBlocks; ++b) {
      values[b] = spread<kCount>(value);
      codes[b] = spread<kCount>(static_cast<Code>(code));
    }
  }

  // Takes the maxima of the r-th row of a window, which come after these.
  D2L_INLINE void merge(const Maxima& row, int r) {
    const auto step = static_cast<Code>(r * kTaps);
    for (int b = 0; b < kBlocks; ++b) replace_where_greater(row.values[b], row.codes[b] + step, values[b], codes[b]);
  }
};

template <typename T, int kCount, int kBlocks>
class NanWatches {
 public:
  D2L_INLINE void see(const pack_t<T, kCount>* values) {
    for (int b = 0; b < kBlocks; b += 2) watches_[b / 2].see(values[b], values[min(b + 1, kBlocks - 1)]);
  }

  D2L_INLINE bool saw_any() const {
    bool any = false;
    for (const auto& watch : watches_) any |= watch.saw_any();
    return any;
  }

 private:
  NanWatch<pack_t<T, kCount>> watches_[(kBlocks + 1) / 2];
};

// The taps of a row of a window. Where the edge cuts some off the last one comes again, which changes nothing.
struct RowTaps {
  Tap taps[kTaps];

  D2L_INLINE explicit RowTaps(TapRange columns) {
    for (int s = 0; s < kTaps; ++s) taps[s] = columns.begin[min(s, columns.end - columns.begin - 1)];
  }
};

template <int kStride, typename E, typename T, int kCount, int kBlocks>
D2L_INLINE Maxima<T, kCount, kBlocks> max_of_row(const E* row, const RowTaps& columns,
                                                 NanWatches<T, kCount, kBlocks>& nans) {
  Maxima<T, kCount, kBlocks> maxima;
  for (int s = 0; s < kTaps; ++s) {
    const Tap& tap = columns.taps[s];
    const auto code = spread<kCount>(static_cast<lane_t<T>>(tap.code));
    pack_t<T, kCount> values[kBlocks];
    for (int b = 0; b < kBlocks; ++b) {
      const E* const from = row + tap.place + b * kCount;
      // The other taps were in the strip before.
      if (kCount == kLanes<T> && s >= kTaps - kStride) prefetch_ahead<kAheadBytes>(from);
      values[b] = load_pack<kCount>(from);
      if (s == 0) {
        maxima.values[b] = values[b];
        maxima.codes[b] = code;
      } else {
        replace_where_greater(values[b], code, maxima.values[b], maxima.codes[b]);
      }
    }
    nans.see(values);
  }
  return maxima;
}

// Writes a strip, whose first window lies at `output`. Returns whether it came across a NaN.
template <int kStride, bool kOffsets, typename E>
D2L_INLINE bool max_of_strip(const Pool2dStrips& work, const E* image, const RowTaps& columns, Span windows, E* output,
                             uint8_t* offsets) {
  using T = computed_t<E>;
  const int64_t row_pitch = work.map.source_columns * work.map.channels;
  const int64_t output_pitch = work.map.columns * work.map.channels;
  bool any_nan = false;
  for_each_pack<T, kMostBlocks>(work.map.channels, [&](auto count, auto blocks, int64_t i) D2L_INLINE_LAMBDA {
    constexpr int kCount = count.value;
    constexpr int kBlocks = blocks.value;
    using Row = Maxima<T, kCount, kBlocks>;
    NanWatches<T, kCount, kBlocks> nans;
    const auto row_at = [&](int64_t h) D2L_INLINE_LAMBDA {
      if (is_within(h, work.map.source_rows)) return max_of_row<kStride>(image + h * row_pitch + i, columns, nans);
      Row nothing;  // above the map its code counts: where all is -infinity the first tap wins, one row further down
      nothing.fill(-static_cast<T>(__builtin_inf()), kTaps + columns.taps[0].code);
      return nothing;
    };
    const auto write = [&](int64_t p, Row maxima, const Row& second, const Row& third) D2L_INLINE_LAMBDA {
      const int64_t at = (p - windows.begin) * output_pitch + i;
      maxima.merge(second, 1);
      maxima.merge(third, 2);
      for (int b = 0; b < kBlocks; ++b) {
        store_pack(output + at + b * kCount, maxima.values[b]);
        if constexpr (kOffsets) store_codes<lane_t<T>, kCount>(offsets + at + b * kCount, maxima.codes[b]);
      }
    };
    go_down_windows<kStride>(work, windows, row_at, write);
    any_nan |= nans.saw_any();
  });
  return any_nan;
}

template <int kStride, bool kOffsets, typename E>
D2L_INLINE void max_of_bands(const Pool2dStrips& work, const E* input, E* output, uint8_t* offsets, Span units) {
  for_each_band(work, units, [&](const Band& band) D2L_INLINE_LAMBDA {
    bool any_nan = false;
    for_each_strip(work.map, band, [&](TapRange columns, int64_t at) D2L_INLINE_LAMBDA {
      any_nan |= max_of_strip<kStride, kOffsets>(work, input + band.source, RowTaps(columns), band.rows, output + at,
                                                 kOffsets ? offsets + at : nullptr);
    });
    if (__builtin_expect(any_nan, false)) {  // they are rare: the band is gone over again, tap by tap
      const Span rows{band.first_row, band.first_row + band.rows.end - band.rows.begin};
      max_pool2d_nhwc(work.map, input, output, offsets, rows);
    }
  });
}

// What the windows in one row, of which kColumns lie over a column of pixels, pass on to the rows of their taps.
template <int kColumns, typename T, int kCount>
class RowOfWindows {
 public:
  D2L_INLINE explicit RowOfWindows(const Tap* columns) {
    for (int s = 0; s < kColumns; ++s) {
      steps_[s] = columns[s].place;
      for (int r = 0; r < kTaps; ++r) here_[s][r] = spread_place<Places>(r * kTaps + columns[s].code);
    }
  }

  template <typename E, int kBlocks>
  D2L_INLINE void add(const E* gradients, const uint8_t* offsets, Sums<T, kCount, kBlocks>* rows) const {
    for (int s = 0; s < kColumns; ++s) {
      const E* const from = gradients + steps_[s];
      const uint8_t* const places_from = offsets + steps_[s];
      const bool is_fresh = s == kColumns - 1;  // the others were read by the strip before
      if (kCount == kLanes<T> && is_fresh) prefetch_ahead<kGradAheadBytes / sizeof(E)>(places_from);
      for (int b = 0; b < kBlocks; ++b) {
        if (kCount == kLanes<T> && is_fresh) prefetch_ahead<kGradAheadBytes>(from + b * kCount);
        const auto gradient = load_pack<kCount>(from + b * kCount);
        const auto places = load_places<T, kCount>(places_from + b * kCount);
        for (int r = 0; r < kTaps; ++r) add_where_equal(gradient, places, here_[s][r], rows[r].values[b]);
      }
    }
  }

 private:
  using Places = places_t<T, uint8_t, kCount>;

  int64_t steps_[kTaps];
  Places here_[kTaps][kTaps];
};

// Writes a strip, whose first pixel lies at `grad_input`.
template <int kStride, int kColumns, typename E>
D2L_INLINE void write_gradients(const Pool2dStrips& work, const E* grad_output, const uint8_t* offsets,
                                const Tap* columns, Span pixels, E* grad_input) {
  using T = computed_t<E>;
  const int64_t window_pitch = work.map.source_columns * work.map.channels;
  const int64_t pixel_pitch = work.map.columns * work.map.channels;
  for_each_pack<T, kMostBlocks>(work.map.channels, [&](auto count, auto blocks, int64_t i) D2L_INLINE_LAMBDA {
    constexpr int kCount = count.value;
    constexpr int kBlocks = blocks.value;
    using Row = Sums<T, kCount, kBlocks>;
    const RowOfWindows<kColumns, T, kCount> windows(columns);
    const auto add = [&](int64_t p, Row* rows) D2L_INLINE_LAMBDA {
      windows.add(grad_output + p * window_pitch + i, offsets + p * window_pitch + i, rows);
    };
    const auto store = [&](int64_t h, const Row& row) D2L_INLINE_LAMBDA {
      E* const to = grad_input + (h - pixels.begin) * pixel_pitch + i;
      for (int b = 0; b < kBlocks; ++b) {
        if (kCount == kLanes<T>) prefetch_ahead<kGradAheadBytes>(to + b * kCount);
        store_pack(to + b * kCount, row.values[b]);
      }
    };
    go_down_pixels<kStride, Row>(work, pixels, add, store);
  });
}

template <int kStride, typename E>
D2L_INLINE void write_bands(const Pool2dStrips& work, const E* grad_output, const uint8_t* offsets, E* grad_input,
                            Span units) {
  for_each_band(work, units, [&](const Band& band) D2L_INLINE_LAMBDA {
    for_each_strip(work.map, band, [&](TapRange columns, int64_t at) D2L_INLINE_LAMBDA {
      with_count(columns, [&](auto count) {
        write_gradients<kStride, count.value>(work, grad_output + band.source, offsets + band.source, columns.begin,
                                              band.rows, grad_input + at);
      });
    });
  });
}

}  // namespace

template <typename E>
void max_pool2d_strips(const Pool2dStrips& work, const E* input, E* output, uint8_t* offsets, Span units) {
  if (offsets != nullptr) {
    if (work.stride == 1) return max_of_bands<1, true>(work, input, output, offsets, units);
    return max_of_bands<2, true>(work, input, output, offsets, units);
  }
  if (work.stride == 1) return max_of_bands<1, false>(work, input, output, offsets, units);
  max_of_bands<2, false>(work, input, output, offsets, units);
}

template <typename E>
void max_pool2d_input_grad_strips(const Pool2dStrips& work, const E* grad_output, const uint8_t* offsets, E* grad_input,
                                  Span units) {
  if (work.stride == 1) return write_bands<1>(work, grad_output, offsets, grad_input, units);
  write_bands<2>(work, grad_output, offsets, grad_input, units);
}

#define D2L_INSTANTIATE(E)                                                            \
  template void max_pool2d_strips(const Pool2dStrips&, const E*, E*, uint8_t*, Span); \
  template void max_pool2d_input_grad_strips(const Pool2dStrips&, const E*, const uint8_t*, E*, Span);

D2L_INSTANTIATE(float)
D2L_INSTANTIATE(double)
D2L_INSTANTIATE(BFloat16)

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
