// Pooling over windows that lie side by side.
//
// Gradients: each input pixel belongs to one window at most, so that a window writes the gradients of its pixels and
// nothing is gathered.
//
//   grad_input[p * R + r, q * S + s] = grad_output[p,q] where offsets[p,q] = r * S + s, else 0     (maximum)
//   grad_input[p * R + r, q * S + s] = grad_output[p,q] / (R * S)                                  (average)
//
// Bytes: each tensor once. Threads share rows of windows. With many channels vectors run over them; with few (one, in
// NCHW) over whole rows of the input, for which a table says where each lane's window is among a register of windows.
//
// Forward with few channels: the pixels of a block of windows are two registers, from which a table picks those of one
// tap. Maxima and sums are made in the order of the taps, as elsewhere.
#include "kernels/cpu/pool2d_tiles_kernel.h"
#include "kernels/cpu/pool2d_pack.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

namespace {

template <typename T, int kCount>
D2L_INLINE pack_t<T, kCount> where_equal(pack_t<lane_t<T>, kCount> codes, pack_t<lane_t<T>, kCount> code,
                                         pack_t<T, kCount> value) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4 && kCount == 16) {
    const __mmask16 matches = _mm512_cmpeq_epi32_mask((__m512i)codes, (__m512i)code);
    return (pack_t<T, kCount>)_mm512_maskz_mov_ps(matches, (__m512)value);
  }
#endif
  return codes == code ? value : pack_t<T, kCount>{};
}

template <typename T>
D2L_INLINE void clear(T* to, int64_t count) {
  __builtin_memset(to, 0, static_cast<size_t>(count) * sizeof(T));
}

// What lies below the last window and to the right of it.
template <typename T>
D2L_INLINE void clear_rest(const Pool2dTiles& work, bool is_last, T* rows) {
  const int64_t pitch = work.source_columns * work.channels, used = work.columns * work.S * work.channels;
  if (used < pitch) {
    for (int64_t r = 0; r < work.R; ++r) clear(rows + r * pitch + used, pitch - used);
  }
  if (is_last) clear(rows + work.R * pitch, (work.source_rows - work.rows * work.R) * pitch);
}

// kCount channels at a time. `size` is 0 for a maximum.
template <bool kMaximum, typename T, typename Offset>
D2L_INLINE void write_pixels(const Pool2dTiles& work, T size, const T* gradients, const Offset* offsets, T* rows) {
  const int64_t pitch = work.source_columns * work.channels;
  for (int64_t q = 0; q < work.columns; ++q) {
    for_each_pack<T>(work.channels, [&](auto count, auto blocks, int64_t i) {
      constexpr int kCount = count.value;
      constexpr int kBlocks = blocks.value;
      const int64_t from = q * work.channels + i;
      pack_t<T, kCount> gradient[kBlocks];
      pack_t<lane_t<T>, kCount> codes[kBlocks] = {};
      for (int b = 0; b < kBlocks; ++b) {
        gradient[b] = load_pack<kCount>(gradients + from + b * kCount);
        if constexpr (kMaximum) {
          codes[b] = load_codes<lane_t<T>, kCount>(offsets + from + b * kCount);
        } else {
          gradient[b] /= size;
        }
      }
      lane_t<T> code = 0;
      for (int64_t r = 0; r < work.R; ++r) {
        T* to = rows + r * pitch + q * work.S * work.channels + i;
        for (int64_t s = 0; s < work.S; ++s, ++code, to += work.channels) {
          for (int b = 0; b < kBlocks; ++b) {
            if constexpr (kCount == kLanes<T>) prefetch_stores(to + b * kCount);
            const auto value =
                kMaximum ? where_equal<T, kCount>(codes[b], spread<kCount>(code), gradient[b]) : gradient[b];
            store_pack(to + b * kCount, value);
          }
        }
      }
    });
  }
}

#if defined(__AVX2__)
// A register of the input's row at a time. There are `left` windows from the first on, in all of the tensor.
template <bool kMaximum, typename T, typename Offset>
D2L_INLINE void write_lanes(const Pool2dTiles& work, T size, const T* gradients, const Offset* offsets, int64_t left,
                            T* rows) {
  using Code = lane_t<T>;
  constexpr int kCount = kLanes<T>;
  const int64_t pitch = work.source_columns * work.channels, used = work.columns * work.S * work.channels;
  for (int64_t i = 0, vector = 0; i < used; i += kCount, ++vector) {
    const int64_t from = work.first[vector], available = min(left - from, kCount);
    Offset padded[kCount] = {};
    const Offset* places = nullptr;
    if constexpr (kMaximum) places = offsets + from;
    if (kMaximum && available < kCount) {
      for (int64_t lane = 0; lane < available; ++lane) padded[lane] = places[lane];
      places = padded;
    }
    const auto sources = load_codes<Code, kCount>(work.sources + i);
    const auto windows = available < kCount ? load_partial(gradients + from, available) : load(gradients + from);
    auto gradient = __builtin_shuffle(windows, sources);
    pack_t<Code, kCount> codes{}, code{};
    if constexpr (kMaximum) {
      codes = __builtin_shuffle(load_codes<Code, kCount>(places), sources);
      code = load_codes<Code, kCount>(work.taps + i);
    } else {
      gradient /= size;
    }
    for (int64_t r = 0; r < work.R; ++r, code += static_cast<Code>(work.S)) {
      const auto value = kMaximum ? where_equal<T, kCount>(codes, code, gradient) : gradient;
      T* to = rows + r * pitch + i;
      prefetch_stores(to);
      if (i + kCount <= used) {
        store(to, value);
      } else {
        store_partial(to, value, used - i);
      }
    }
  }
}
#endif

template <bool kMaximum, typename T, typename Offset>
D2L_INLINE void write_tiles(const Pool2dTiles& work, T size, const T* grad_output, const Offset* offsets, T* grad_input,
                            Span units) {
  const int64_t pitch = work.source_columns * work.channels, windows = work.columns * work.channels;
  for (int64_t unit = units.begin; unit < units.end; ++unit) {
    const int64_t image = unit / work.rows, p = unit % work.rows;
    T* rows = grad_input + (image * work.source_rows + p * work.R) * pitch;
    const T* gradients = grad_output + unit * windows;
    const Offset* places = kMaximum ? offsets + unit * windows : nullptr;
#if defined(__AVX2__)
    if (work.first != nullptr) {
      write_lanes<kMaximum>(work, size, gradients, places, (work.units - unit) * windows, rows);
      clear_rest(work, p == work.rows - 1, rows);
      continue;
    }
#endif
    write_pixels<kMaximum>(work, size, gradients, places, rows);
    clear_rest(work, p == work.rows - 1, rows);
  }
}

#if defined(__AVX2__)
// Calls start(), tap(pixels, code) for each tap of a block of windows, and finish(first output, outputs, whole): where
// `whole` is set, a whole register may be written, since what it holds too much is written again later. Loads and
// stores of parts of registers take much longer. Windows of kTaps x kTaps pixels, or of any size for 0: with a known
// number of taps their places stay in registers.
template <int kTaps, typename T, typename Start, typename OnTap, typename Finish>
D2L_INLINE void for_each_block_of(const Pool2dTileBlocks& work, const T* input, Span units, Start&& start, OnTap&& tap,
                                  Finish&& finish) {
  using Code = lane_t<T>;
  constexpr int64_t kCount = kLanes<T>;
  const int64_t R = kTaps > 0 ? kTaps : work.R, S = kTaps > 0 ? kTaps : work.S;
  const int64_t channels = work.channels, pitch = work.source_columns * channels, span = work.block * S * channels;
  const int64_t low = min(span, kCount), high = span - low, last = units.end - 1;
  const int64_t written = units.end * work.columns * channels;
  const T* const end = input + (last / work.rows * work.source_rows + (last % work.rows + 1) * R) * pitch;
  const auto places_of = [&](int64_t s) { return load_codes<Code, kCount>(work.places + s * kCount); };
  vec_t<Code> places[max(kTaps, 1)];
  for (int s = 0; s < kTaps; ++s) places[s] = places_of(s);
  for (int64_t unit = units.begin; unit < units.end; ++unit) {
    const T* const rows = input + (unit / work.rows * work.source_rows + unit % work.rows * R) * pitch;
    for (int64_t q = 0; q < work.columns; q += work.block) {
      const int64_t first = min(q, work.columns - work.block);  // the last block may repeat some windows
      start();
      Code code = 0;
      for (int64_t r = 0; r < R; ++r) {
        const T* const from = rows + r * pitch + first * S * channels;
        prefetch_ahead(from);
        const bool inside = end - from >= 2 * kCount;
        const auto near = inside ? load(from) : load_partial(from, low);
        const auto far = inside ? load(from + kCount) : high > 0 ? load_partial(from + kCount, high) : vec_t<T>{};
        for (int64_t s = 0; s < S; ++s, ++code) {
          if constexpr (kTaps > 0) {
            tap(__builtin_shuffle(near, far, places[s]), code);
          } else {
            tap(__builtin_shuffle(near, far, places_of(s)), code);
          }
        }
      }
      const int64_t at = (unit * work.columns + first) * channels;
      finish(at, work.block * channels, at + kCount <= written);
    }
  }
}

template <typename T, typename Start, typename OnTap, typename Finish>
D2L_INLINE void for_each_block(const Pool2dTileBlocks& work, const T* input, Span units, Start&& start, OnTap&& tap,
                               Finish&& finish) {
  if (work.R == 2 && work.S == 2) return for_each_block_of<2>(work, input, units, start, tap, finish);
  if (work.R == 3 && work.S == 3) return for_each_block_of<3>(work, input, units, start, tap, finish);
  for_each_block_of<0>(work, input, units, start, tap, finish);
}
#endif

}  // namespace

template <typename T, typename Offset>
void max_pool2d_tiles(const Pool2dTileBlocks& work, const T* input, T* output, Offset* offsets, Span units) {
#if defined(__AVX2__)
  using Code = lane_t<T>;
  vec_t<T> best{};
  vec_t<Code> codes{};
  for_each_block(
      work, input, units,
      [&] {
        best = broadcast(-static_cast<T>(__builtin_inf()));
        codes = vec_t<Code>{};
      },
      [&](vec_t<T> pixels, Code code) { replace_where_greater_or_nan(pixels, broadcast(code), best, codes); },
      [&](int64_t at, int64_t count, bool whole) {
        if (whole) {
          store(output + at, best);
          if (offsets != nullptr) store_codes<Code, kLanes<T>>(offsets + at, codes);
        } else {
          store_partial(output + at, best, count);
          if (offsets != nullptr) store_first_codes<Code>(offsets + at, codes, count);
        }
      });
#endif
}

template <typename T>
void avg_pool2d_tiles(const Pool2dTileBlocks& work, T size, const T* input, T* output, Span units) {
#if defined(__AVX2__)
  vec_t<T> sum{};
  for_each_block(
      work, input, units, [&] { sum = vec_t<T>{}; }, [&](vec_t<T> pixels, lane_t<T>) { sum += pixels; },
      [&](int64_t at, int64_t count, bool whole) {
        if (whole) {
          store(output + at, sum / size);
        } else {
          store_partial(output + at, sum / size, count);
        }
      });
#endif
}

template <typename T, typename Offset>
void max_pool2d_input_grad_tiles(const Pool2dTiles& work, const T* grad_output, const Offset* offsets, T* grad_input,
                                 Span units) {
  write_tiles<true>(work, T(0), grad_output, offsets, grad_input, units);
}

template <typename T>
void avg_pool2d_input_grad_tiles(const Pool2dTiles& work, T size, const T* grad_output, T* grad_input, Span units) {
  write_tiles<false, T, uint8_t>(work, size, grad_output, nullptr, grad_input, units);
}

#define D2L_INSTANTIATE(T, Offset)                                                                  \
  template void max_pool2d_input_grad_tiles(const Pool2dTiles&, const T*, const Offset*, T*, Span); \
  template void max_pool2d_tiles(const Pool2dTileBlocks&, const T*, T*, Offset*, Span);

D2L_INSTANTIATE(float, uint8_t)
D2L_INSTANTIATE(float, int32_t)
D2L_INSTANTIATE(double, uint8_t)
D2L_INSTANTIATE(double, int32_t)

template void avg_pool2d_input_grad_tiles(const Pool2dTiles&, float, const float*, float*, Span);
template void avg_pool2d_input_grad_tiles(const Pool2dTiles&, double, const double*, double*, Span);
template void avg_pool2d_tiles(const Pool2dTileBlocks&, float, const float*, float*, Span);
template void avg_pool2d_tiles(const Pool2dTileBlocks&, double, const double*, double*, Span);

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
