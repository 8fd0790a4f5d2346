// Pooling over windows that lie side by side: each pixel belongs to one window at most.
//
//   output[p,q] = max or average over r, s of input[p * R + r, q * S + s]
//
// Bytes: each tensor once. Threads share rows of windows. Maxima and sums are made in the order of the taps, as
// elsewhere.
//
// With many channels vectors run over them. With few (one, in NCHW) a block of windows fills a register: its pixels of
// a row are two registers, from which a table picks those of one tap. Where a row of windows fills less than half of a
// register, a block is two rows of windows, and each of the two registers holds a row of pixels.
#include "kernels/cpu/pool2d_tiles_kernel.h"

#include "kernels/cpu/pool2d_pack.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

namespace {

// What is made of windows, a pack of them at a time, whose taps come in order.
template <bool kOffsets, typename E, typename Offset>
struct Maximum {
  using Element = E;
  using T = computed_t<E>;
  using Code = lane_t<T>;

  // With kNans a NaN is greater than what came before it; without them `watch` tells whether there were any.
  template <int kCount, bool kNans>
  struct Windows {
    using Watch = NanWatch<pack_t<T, kCount>>;

    pack_t<T, kCount> best{};
    pack_t<Code, kCount> codes{};

    // Takes the taps from `code` on.
    template <int kTaps>
    D2L_INLINE void take(const pack_t<T, kCount> (&taps)[kTaps], Code code, Watch& watch) {
      int s = 0;
      if (code == 0) best = taps[s++];
      for (; s < kTaps; ++s) {
        const auto codes_here = spread<kCount>(static_cast<Code>(code + s));
        if constexpr (kNans) {
          replace_where_greater_or_nan(taps[s], codes_here, best, codes);
        } else {
          replace_where_greater(taps[s], codes_here, best, codes);
        }
      }
      if constexpr (!kNans) {
        for (s = 0; s < kTaps; s += 2) watch.see(taps[s], taps[min(s + 1, kTaps - 1)]);
      }
    }
  };

  E* output;
  Offset* offsets;

  template <typename Result>
  D2L_INLINE void write(const Result& windows, int64_t at) const {
    store_pack(output + at, windows.best);
    constexpr int kCount = sizeof(windows.best) / sizeof(T);
    if constexpr (kOffsets) store_codes<Code, kCount>(offsets + at, windows.codes);
  }
  template <typename Result>
  D2L_INLINE void write_first(const Result& windows, int64_t at, int64_t count) const {
    write_partial(output + at, windows.best, count);
    if constexpr (kOffsets) store_first_codes<Code>(offsets + at, windows.codes, count);
  }
};

template <typename E>
struct Average {
  using Element = E;
  using T = computed_t<E>;

  template <int kCount, bool>
  struct Windows {
    struct Watch {
      D2L_INLINE bool saw_any() const { return false; }
    };

    pack_t<T, kCount> sum{};

    template <int kTaps>
    D2L_INLINE void take(const pack_t<T, kCount> (&taps)[kTaps], int64_t code, Watch&) {
      int s = 0;
      if (code == 0) sum = taps[s++];
      for (; s < kTaps; ++s) sum += taps[s];
    }
  };

  E* output;
  T size;

  template <typename Result>
  D2L_INLINE void write(const Result& windows, int64_t at) const {
    store_pack(output + at, windows.sum / size);
  }
  template <typename Result>
  D2L_INLINE void write_first(const Result& windows, int64_t at, int64_t count) const {
    write_partial(output + at, windows.sum / size, count);
  }
};

// Where the pixels of rows of windows begin: a walk from `unit` on.
template <typename E>
struct RowCursor {
  const Pool2dTileBlocks& work;
  const E* rows;
  int64_t pitch, p;

  D2L_INLINE RowCursor(const Pool2dTileBlocks& work, const E* input, int64_t unit)
      : work(work), pitch(work.source_columns * work.channels), p(unit % work.rows) {
    rows = input + (unit / work.rows * work.source_rows + p * work.R) * pitch;
  }
  D2L_INLINE void step() {
    rows += work.R * pitch;
    if (++p == work.rows) p = 0, rows += (work.source_rows - work.rows * work.R) * pitch;
  }
};

// A row of windows of 2 x 2 pixels, by channels. Returns whether it came across a NaN.
template <bool kNans, typename Pool, typename E = typename Pool::Element>
D2L_INLINE bool pool_pixels(const Pool& pool, const Pool2dTileBlocks& work, const E* rows, int64_t at) {
  using T = typename Pool::T;
  constexpr int kTaps = 2;
  const int64_t columns = work.columns, channels = work.channels, pitch = work.source_columns * channels;
  bool any_nan = false;
  typename Pool::template Windows<kLanes<T>, kNans>::Watch nans;
  for (int64_t q = 0; q < columns; ++q, rows += kTaps * channels, at += channels) {
    for_each_pack<T, 1>(channels, [&](auto count, auto, int64_t i) D2L_INLINE_LAMBDA {
      constexpr int kCount = count.value;
      using Windows = typename Pool::template Windows<kCount, kNans>;
      Windows windows;
      typename Windows::Watch few_nans;
      for (int r = 0; r < kTaps; ++r) {
        pack_t<T, kCount> taps[kTaps];
        for (int s = 0; s < kTaps; ++s) {
          const E* const from = rows + r * pitch + s * channels + i;
          if constexpr (kCount == kLanes<T>) prefetch_ahead(from);
          taps[s] = load_pack<kCount>(from);
        }
        if constexpr (kCount == kLanes<T>) {
          windows.take(taps, r * kTaps, nans);
        } else {
          windows.take(taps, r * kTaps, few_nans);
        }
      }
      if constexpr (kCount != kLanes<T>) any_nan |= few_nans.saw_any();
      pool.write(windows, at + i);
    });
  }
  return any_nan | nans.saw_any();
}

#if defined(__AVX2__)
// One or two rows of windows by blocks, for windows of kTaps x kTaps pixels, or of any size for 0: with a known number
// of taps their places stay in registers. Where kWhole is set whole registers may be read and written, since what they
// hold too much is written again later: loads and stores of parts take much longer.
template <int kTaps, bool kWhole, bool kNans, typename Pool, typename T = typename Pool::T,
          typename E = typename Pool::Element>
D2L_INLINE bool pool_blocks(const Pool& pool, const Pool2dTileBlocks& work, const vec_t<lane_t<T>>* places,
                            const E* rows, int64_t distance, int64_t at, int64_t row_count) {
  using Code = lane_t<T>;
  using Windows = typename Pool::template Windows<kLanes<T>, kNans>;
  constexpr int64_t kCount = kLanes<T>;
  const int64_t R = kTaps > 0 ? kTaps : work.R, S = kTaps > 0 ? kTaps : work.S;
  const int64_t channels = work.channels, pitch = work.source_columns * channels;
  typename Windows::Watch nans;
  for (int64_t q = 0; q < work.columns; q += work.block) {
    const int64_t first = min(q, work.columns - work.block);  // the last block may repeat some windows
    const E* from = rows + first * S * channels;
    Windows windows;
    for (int64_t r = 0; r < R; ++r, from += pitch) {
      prefetch_ahead(from);
      const auto near = kWhole ? read(from) : read_partial(from, work.near);
      const auto far = kWhole ? read(from + distance) : read_partial(from + distance, work.far);
      if constexpr (kTaps > 0) {
        vec_t<T> taps[max(kTaps, 1)];
        for (int s = 0; s < kTaps; ++s) taps[s] = __builtin_shuffle(near, far, places[s]);
        windows.take(taps, static_cast<Code>(r * kTaps), nans);
      } else {
        for (int64_t s = 0; s < S; ++s) {
          const vec_t<T> taps[1] = {__builtin_shuffle(near, far, load_codes<Code, kCount>(work.places + s * kCount))};
          windows.take(taps, static_cast<Code>(r * S + s), nans);
        }
      }
    }
    if constexpr (kWhole) {
      pool.write(windows, at + first * channels);
    } else {
      pool.write_first(windows, at + first * channels, row_count * work.block * channels);
    }
  }
  return nans.saw_any();
}

template <int kTaps, typename Pool, typename E = typename Pool::Element>
D2L_INLINE void pool_in_blocks(const Pool& pool, const Pool2dTileBlocks& work, const E* input, Span units) {
  using T = typename Pool::T;
  using Code = lane_t<T>;
  constexpr int64_t kCount = kLanes<T>;
  const int64_t R = kTaps > 0 ? kTaps : work.R, S = kTaps > 0 ? kTaps : work.S;
  const int64_t channels = work.channels, pitch = work.source_columns * channels;
  vec_t<Code> places[max(kTaps, 1)];
  for (int s = 0; s < kTaps; ++s) places[s] = load_codes<Code, kCount>(work.places + s * kCount);
  const int64_t last_block = work.columns - work.block;
  const E* const end = RowCursor<E>(work, input, units.end - 1).rows + R * pitch;
  const int64_t written = units.end * work.columns * channels;
  RowCursor<E> cursor(work, input, units.begin);
  for (int64_t unit = units.begin; unit < units.end; unit += work.rows_per_block) {
    const E* const rows = cursor.rows;
    const int64_t count = min(work.rows_per_block, units.end - unit);
    if (count == 2) cursor.step();
    const int64_t distance = work.rows_per_block == 1 ? kCount : cursor.rows - rows;
    cursor.step();
    const int64_t at = unit * work.columns * channels;
    const bool whole = end - (rows + (R - 1) * pitch + last_block * S * channels + distance) >= kCount &&
                       at + last_block * channels + kCount <= written;
    bool any_nan;
    if (whole) {
      any_nan = pool_blocks<kTaps, true, false>(pool, work, places, rows, distance, at, count);
    } else {
      any_nan = pool_blocks<kTaps, false, false>(pool, work, places, rows, distance, at, count);
    }
    if (__builtin_expect(any_nan, false)) {  // they are rare: the windows are gone over again
      pool_blocks<kTaps, false, true>(pool, work, places, rows, distance, at, count);
    }
  }
}
#endif

template <typename Pool, typename E = typename Pool::Element>
D2L_INLINE void pool_tiles(const Pool& pool, const Pool2dTileBlocks& work, const E* input, Span units) {
#if defined(__AVX2__)
  if (work.places != nullptr) {
    if (work.R == 2 && work.S == 2) return pool_in_blocks<2>(pool, work, input, units);
    if (work.R == 3 && work.S == 3) return pool_in_blocks<3>(pool, work, input, units);
    return pool_in_blocks<0>(pool, work, input, units);
  }
#endif
  RowCursor<E> cursor(work, input, units.begin);
  for (int64_t unit = units.begin; unit < units.end; ++unit, cursor.step()) {
    const int64_t at = unit * work.columns * work.channels;
    if (__builtin_expect(pool_pixels<false>(pool, work, cursor.rows, at), false)) {
      pool_pixels<true>(pool, work, cursor.rows, at);
    }
  }
}

}  // namespace

template <typename E, typename Offset>
void max_pool2d_tiles(const Pool2dTileBlocks& work, const E* input, E* output, Offset* offsets, Span units) {
  if (offsets != nullptr) return pool_tiles(Maximum<true, E, Offset>{output, offsets}, work, input, units);
  pool_tiles(Maximum<false, E, Offset>{output, offsets}, work, input, units);
}

template <typename E>
void avg_pool2d_tiles(const Pool2dTileBlocks& work, computed_t<E> size, const E* input, E* output, Span units) {
  pool_tiles(Average<E>{output, size}, work, input, units);
}

#define D2L_INSTANTIATE(E, Offset) template void max_pool2d_tiles(const Pool2dTileBlocks&, const E*, E*, Offset*, Span);

D2L_INSTANTIATE(float, uint8_t)
D2L_INSTANTIATE(float, int32_t)
D2L_INSTANTIATE(double, uint8_t)
D2L_INSTANTIATE(double, int32_t)
D2L_INSTANTIATE(BFloat16, uint8_t)
D2L_INSTANTIATE(BFloat16, int32_t)

template void avg_pool2d_tiles(const Pool2dTileBlocks&, float, const float*, float*, Span);
template void avg_pool2d_tiles(const Pool2dTileBlocks&, double, const double*, double*, Span);
template void avg_pool2d_tiles(const Pool2dTileBlocks&, float, const BFloat16*, BFloat16*, Span);

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
