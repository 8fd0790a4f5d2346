// Maximum over overlapping windows of 3 x 3 pixels in NHWC, and its gradient.
//
//   output[p,q] = max over r of row[p * stride - pad + r, q],  row[h,q] = max over taps s of input[h, column(q, s)]
//
// A strip is a column of windows, of a few registers' channels. It goes down the map, so that neighbouring windows
// share the maxima of their rows, which stay in registers: 3 or 6 loads a window instead of 9. Among equal values the
// first in the window wins, since taps are compared within a row first and rows from the top. Bytes: each tensor once;
// strips are as short as a band, whose pixels the nearest cache keeps for the next strip.
//
//   grad_input[h,w] = sum over windows (p, q) that cover (h, w) of grad_output[p,q] where offsets[p,q] points at (h, w)
//
// There a strip is a column of pixels. A row of windows is read once a strip and adds to the three rows of pixels below
// it, whose sums stay in registers: in the order of the windows, as elsewhere.
#include "kernels/cpu/max_pool2d_strips_kernel.h"

#include "kernels/cpu/pool2d_pack.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

namespace {

constexpr int kTaps = 3;                                 // of a window along each axis
constexpr int kMostBlocks = kVectorBytes == 64 ? 4 : 2;  // registers of channels; three rows of each have to fit
constexpr int64_t kAheadBytes = 1024;     // prefetched: what one of the next strips reads in the same row
constexpr int64_t kGradAheadBytes = 512;  // likewise; and what it writes

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

template <int kStride, typename T, int kCount, int kBlocks>
D2L_INLINE Maxima<T, kCount, kBlocks> max_of_row(const T* row, const RowTaps& columns,
                                                 NanWatches<T, kCount, kBlocks>& nans) {
  Maxima<T, kCount, kBlocks> maxima;
  for (int s = 0; s < kTaps; ++s) {
    const Tap& tap = columns.taps[s];
    const auto code = spread<kCount>(static_cast<lane_t<T>>(tap.code));
    pack_t<T, kCount> values[kBlocks];
    for (int b = 0; b < kBlocks; ++b) {
      const T* const from = row + tap.place + b * kCount;
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

// Writes a strip for the rows of windows in `band`, the first one at `output`. Returns whether it came across a NaN.
template <int kStride, bool kOffsets, typename T>
D2L_INLINE bool max_of_strip(const Pool2dStrips& work, const T* image, const RowTaps& columns, Span band, T* output,
                             uint8_t* offsets) {
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
    int64_t h = band.begin * kStride - work.pad, at = i;
    Row first = row_at(h), second;
    if constexpr (kStride == 1) second = row_at(h + 1);
    for (int64_t p = band.begin; p < band.end; ++p, h += kStride, at += output_pitch) {
      if constexpr (kStride == 2) second = row_at(h + 1);
      const Row third = row_at(h + 2);
      first.merge(second, 1);
      first.merge(third, 2);
      for (int b = 0; b < kBlocks; ++b) {
        store_pack(output + at + b * kCount, first.values[b]);
        if constexpr (kOffsets) store_codes<lane_t<T>, kCount>(offsets + at + b * kCount, first.codes[b]);
      }
      first = kStride == 1 ? second : third;
      second = third;
    }
    any_nan |= nans.saw_any();
  });
  return any_nan;
}

template <int kStride, bool kOffsets, typename T>
D2L_INLINE void max_of_bands(const Pool2dStrips& work, const T* input, T* output, uint8_t* offsets, Span units) {
  const Pool2dNhwc& map = work.map;
  for (int64_t unit = units.begin; unit < units.end; ++unit) {
    const int64_t first_row = unit / work.bands * map.rows, begin = unit % work.bands * work.band_rows;
    const Span band{begin, min(begin + work.band_rows, map.rows)};
    const T* const image = input + unit / work.bands * map.source_rows * map.source_columns * map.channels;
    bool any_nan = false;
    for (int64_t q = 0; q < map.columns; ++q) {
      const int64_t at = ((first_row + begin) * map.columns + q) * map.channels;
      any_nan |= max_of_strip<kStride, kOffsets>(work, image, RowTaps(taps_of(map.column_taps, q)), band, output + at,
                                                 kOffsets ? offsets + at : nullptr);
    }
    if (__builtin_expect(any_nan, false)) {  // they are rare: the band is gone over again, tap by tap
      max_pool2d_nhwc(map, input, output, offsets, Span{first_row + band.begin, first_row + band.end});
    }
  }
}

// Sums for kBlocks registers of channels.
template <typename T, int kCount, int kBlocks>
struct Sums {
  pack_t<T, kCount> values[kBlocks];
};

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

  template <int kBlocks>
  D2L_INLINE void add(const T* gradients, const uint8_t* offsets, Sums<T, kCount, kBlocks>* rows) const {
    for (int s = 0; s < kColumns; ++s) {
      const T* const from = gradients + steps_[s];
      const uint8_t* const places_from = offsets + steps_[s];
      const bool is_fresh = s == kColumns - 1;  // the others were read by the strip before
      if (kCount == kLanes<T> && is_fresh) prefetch_ahead<kGradAheadBytes / sizeof(T)>(places_from);
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

// Writes a strip for the rows of pixels in `band`, the first one at `grad_input`.
template <int kStride, int kColumns, typename T>
D2L_INLINE void write_gradients(const Pool2dStrips& work, const T* grad_output, const uint8_t* offsets,
                                const Tap* columns, Span band, T* grad_input) {
  const int64_t window_pitch = work.map.source_columns * work.map.channels;
  const int64_t pixel_pitch = work.map.columns * work.map.channels;
  for_each_pack<T, kMostBlocks>(work.map.channels, [&](auto count, auto blocks, int64_t i) D2L_INLINE_LAMBDA {
    constexpr int kCount = count.value;
    constexpr int kBlocks = blocks.value;
    const RowOfWindows<kColumns, T, kCount> windows(columns);
    Sums<T, kCount, kBlocks> rows[kTaps] = {};
    int64_t p = (band.begin + work.pad) / kStride - (kTaps - kStride);  // the first row that reaches into the band
    int64_t h = p * kStride - work.pad, from = p * window_pitch + i;
    T* to = grad_input + (h - band.begin) * pixel_pitch + i;
    for (; h < band.end; ++p, from += window_pitch) {
      if (is_within(p, work.map.source_rows)) windows.add(grad_output + from, offsets + from, rows);
      for (int r = 0; r < kStride; ++r, ++h, to += pixel_pitch) {  // no later window covers these
        if (h < band.begin || h >= band.end) continue;
        for (int b = 0; b < kBlocks; ++b) {
          if (kCount == kLanes<T>) prefetch_ahead<kGradAheadBytes>(to + b * kCount);
          store_pack(to + b * kCount, rows[r].values[b]);
        }
      }
      for (int r = 0; r < kTaps; ++r) rows[r] = r + kStride < kTaps ? rows[r + kStride] : Sums<T, kCount, kBlocks>{};
    }
  });
}

template <int kStride, typename T>
D2L_INLINE void write_bands(const Pool2dStrips& work, const T* grad_output, const uint8_t* offsets, T* grad_input,
                            Span units) {
  const Pool2dNhwc& map = work.map;
  for (int64_t unit = units.begin; unit < units.end; ++unit) {
    const int64_t image = unit / work.bands, begin = unit % work.bands * work.band_rows;
    const Span band{begin, min(begin + work.band_rows, map.rows)};
    const int64_t from = image * map.source_rows * map.source_columns * map.channels;
    for (int64_t w = 0; w < map.columns; ++w) {
      const TapRange columns = taps_of(map.column_taps, w);
      T* const to = grad_input + ((image * map.rows + begin) * map.columns + w) * map.channels;
      const auto write = [&](auto count) {
        write_gradients<kStride, count.value>(work, grad_output + from, offsets + from, columns.begin, band, to);
      };
      switch (columns.end - columns.begin) {
        case 0:
          write(Int<0>{});
          break;
        case 1:
          write(Int<1>{});
          break;
        case 2:
          write(Int<2>{});
          break;
        default:
          write(Int<3>{});
      }
    }
  }
}

}  // namespace

template <typename T>
void max_pool2d_strips(const Pool2dStrips& work, const T* input, T* output, uint8_t* offsets, Span units) {
  if (offsets != nullptr) {
    if (work.stride == 1) return max_of_bands<1, true>(work, input, output, offsets, units);
    return max_of_bands<2, true>(work, input, output, offsets, units);
  }
  if (work.stride == 1) return max_of_bands<1, false>(work, input, output, offsets, units);
  max_of_bands<2, false>(work, input, output, offsets, units);
}

template <typename T>
void max_pool2d_input_grad_strips(const Pool2dStrips& work, const T* grad_output, const uint8_t* offsets, T* grad_input,
                                  Span units) {
  if (work.stride == 1) return write_bands<1>(work, grad_output, offsets, grad_input, units);
  write_bands<2>(work, grad_output, offsets, grad_input, units);
}

template void max_pool2d_input_grad_strips(const Pool2dStrips&, const float*, const uint8_t*, float*, Span);
template void max_pool2d_input_grad_strips(const Pool2dStrips&, const double*, const uint8_t*, double*, Span);
template void max_pool2d_strips(const Pool2dStrips&, const float*, float*, uint8_t*, Span);
template void max_pool2d_strips(const Pool2dStrips&, const double*, double*, uint8_t*, Span);

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
