// How the kernels of *_pool2d_strips_kernel.cpp go down strips of a map. Only for *_kernel.cpp (see capability.h).
//
// A strip is a column of items, windows or the pixels of a gradient, of a few registers' channels. Its neighbours share
// what was made of the rows of the source, which stays in registers. Strips are as short as a band, whose pixels the
// nearest cache keeps for the next strip.
#pragma once

#include "kernels/cpu/pool2d_pack.h"
#include "kernels/cpu/pool2d_strips_kernel.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

constexpr int kTaps = 3;                                 // of a window along each axis
constexpr int kMostBlocks = kVectorBytes == 64 ? 4 : 2;  // registers of channels; three rows of each have to fit
constexpr int64_t kAheadBytes = 1024;     // prefetched: what one of the next strips reads in the same row
constexpr int64_t kGradAheadBytes = 512;  // likewise; and what it writes

// Rows of items of an image.
struct Band {
  Span rows;
  int64_t first_row;  // counted through all images
  int64_t source;     // where the source of the image begins
};

template <typename Body>
D2L_INLINE void for_each_band(const Pool2dStrips& work, Span units, Body&& body) {
  const Pool2dNhwc& map = work.map;
  for (int64_t unit = units.begin; unit < units.end; ++unit) {
    const int64_t image = unit / work.bands, begin = unit % work.bands * work.band_rows;
    body(Band{{begin, min(begin + work.band_rows, map.rows)},
              image * map.rows + begin,
              image * map.source_rows * map.source_columns * map.channels});
  }
}

// Calls body(columns, at) for the strips of a band, of which the first item lies at `at`.
template <typename Body>
D2L_INLINE void for_each_strip(const Pool2dNhwc& map, const Band& band, Body&& body) {
  for (int64_t column = 0; column < map.columns; ++column) {
    body(taps_of(map.column_taps, column), (band.first_row * map.columns + column) * map.channels);
  }
}

// Calls body(Int<how many taps there are>).
template <typename Body>
D2L_INLINE void with_count(TapRange taps, Body&& body) {
  switch (taps.end - taps.begin) {
    case 0:
      return body(Int<0>{});
    case 1:
      return body(Int<1>{});
    case 2:
      return body(Int<2>{});
    default:
      return body(Int<kTaps>{});
  }
}

// Calls write(window, first, second, third) down a strip of windows with what row_at(h) made of their rows of pixels,
// once each. Some of these lie outside the map.
template <int kStride, typename RowAt, typename Write>
D2L_INLINE void go_down_windows(const Pool2dStrips& work, Span windows, RowAt&& row_at, Write&& write) {
  int64_t h = windows.begin * kStride - work.pad;
  auto first = row_at(h);
  decltype(first) second;
  if constexpr (kStride == 1) second = row_at(h + 1);
  for (int64_t p = windows.begin; p < windows.end; ++p, h += kStride) {
    if constexpr (kStride == 2) second = row_at(h + 1);
    const auto third = row_at(h + 2);
    write(p, first, second, third);
    first = kStride == 1 ? second : third;
    second = third;
  }
}

// Sums for kBlocks registers of channels.
template <typename T, int kCount, int kBlocks>
struct Sums {
  pack_t<T, kCount> values[kBlocks];
};

// Calls add(window, rows) for the rows of windows over a strip of pixels, from the top, to add to the sums of the rows
// of pixels that a window covers; and store(pixel, row) with what came together for each pixel.
template <int kStride, typename Row, typename Add, typename Store>
D2L_INLINE void go_down_pixels(const Pool2dStrips& work, Span pixels, Add&& add, Store&& store) {
  Row rows[kTaps] = {};
  int64_t p = (pixels.begin + work.pad) / kStride - (kTaps - kStride);  // the first one that reaches into the band
  for (int64_t h = p * kStride - work.pad; h < pixels.end; ++p) {
    if (is_within(p, work.map.source_rows)) add(p, rows);
    for (int r = 0; r < kStride; ++r, ++h) {  // no later window covers these
      if (h >= pixels.begin && h < pixels.end) store(h, rows[r]);
    }
    for (int r = 0; r < kTaps; ++r) rows[r] = r + kStride < kTaps ? rows[r + kStride] : Row{};
  }
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
