// Gradients of pooling over windows that lie side by side: each input pixel belongs to one window at most, so that a
// window writes the gradients of its pixels and nothing is gathered.
//
//   grad_input[p * R + r, q * S + s] = grad_output[p,q] where offsets[p,q] = r * S + s, else 0     (maximum)
//   grad_input[p * R + r, q * S + s] = grad_output[p,q] / (R * S)                                  (average)
//
// Bytes: each tensor once. Threads share rows of windows. With many channels vectors run over them; with few (one, in
// NCHW) over whole rows of the input, for which a table says where each lane's window is among a register of windows.
#include "kernels/cpu/pool2d_pack.h"
#include "kernels/cpu/pool2d_tiles_kernel.h"

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

template <typename E>
D2L_INLINE void clear(E* to, int64_t count) {
  __builtin_memset(to, 0, static_cast<size_t>(count) * sizeof(E));
}

// What lies below the last window and to the right of it.
template <typename E>
D2L_INLINE void clear_rest(const Pool2dTiles& work, bool is_last, E* rows) {
  const int64_t pitch = work.source_columns * work.channels, used = work.columns * work.S * work.channels;
  if (used < pitch) {
    for (int64_t r = 0; r < work.R; ++r) clear(rows + r * pitch + used, pitch - used);
  }
  if (is_last) clear(rows + work.R * pitch, (work.source_rows - work.rows * work.R) * pitch);
}

// kCount channels at a time, of windows of kTaps x kTaps pixels, or of any size for 0. `size` is 0 for a maximum.
template <int kTaps, bool kMaximum, typename E, typename Offset, typename T = computed_t<E>>
D2L_INLINE void write_pixels(const Pool2dTiles& work, T size, const E* gradients, const Offset* offsets, E* rows) {
  const int64_t R = kTaps > 0 ? kTaps : work.R, S = kTaps > 0 ? kTaps : work.S;
  const int64_t channels = work.channels, pitch = work.source_columns * channels;
  for (int64_t q = 0; q < work.columns; ++q, gradients += channels, offsets += kMaximum ? channels : 0) {
    E* const first = rows + q * S * channels;
    for_each_pack<T>(channels, [&](auto count, auto blocks, int64_t i) D2L_INLINE_LAMBDA {
      constexpr int kCount = count.value;
      constexpr int kBlocks = blocks.value;
      pack_t<T, kCount> gradient[kBlocks];
      pack_t<lane_t<T>, kCount> codes[kBlocks] = {};
      for (int b = 0; b < kBlocks; ++b) {
        gradient[b] = load_pack<kCount>(gradients + i + b * kCount);
        if constexpr (kMaximum) {
          codes[b] = load_codes<lane_t<T>, kCount>(offsets + i + b * kCount);
        } else {
          gradient[b] /= size;
        }
      }
      lane_t<T> code = 0;
      for (int64_t r = 0; r < R; ++r) {
        E* to = first + r * pitch + i;
        for (int64_t s = 0; s < S; ++s, ++code, to += channels) {
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
// A register of the input's row at a time, `used` pixels (times channels) of it. There are `left` windows from the
// first on, in all of the tensor. Where kWhole is set whole registers may be read and written: what they hold too much
// is written again later. Loads and stores of parts take much longer.
template <bool kWhole, bool kMaximum, typename E, typename Offset, typename T = computed_t<E>>
D2L_INLINE void write_lanes(const Pool2dTiles& work, T size, const E* gradients, const Offset* offsets, int64_t left,
                            int64_t used, E* rows) {
  using Code = lane_t<T>;
  constexpr int kCount = kLanes<T>;
  const int64_t pitch = work.source_columns * work.channels,
                last = max(work.columns * work.S * work.channels - kCount, 0);
  for (int64_t table = 0, vector = 0; table < used; table += kCount, ++vector) {
    const int64_t from = work.first[vector], begin = min(table, last);
    pack_t<Code, kCount> places{}, codes{}, code{};
    vec_t<T> windows;
    if constexpr (kWhole) {
      windows = read(gradients + from);
      if constexpr (kMaximum) places = load_codes<Code, kCount>(offsets + from);
    } else {
      const int64_t available = min(left - from, kCount);
      windows = read_partial(gradients + from, available);
      if constexpr (kMaximum) {
        Offset padded[kCount] = {};
        for (int64_t lane = 0; lane < available; ++lane) padded[lane] = offsets[from + lane];
        places = load_codes<Code, kCount>(padded);
      }
    }
    const auto sources = load_codes<Code, kCount>(work.sources + table);
    auto gradient = __builtin_shuffle(windows, sources);
    if constexpr (kMaximum) {
      codes = __builtin_shuffle(places, sources);
      code = load_codes<Code, kCount>(work.taps + table);
    } else {
      gradient /= size;
    }
    E* to = rows + begin;
    for (int64_t r = 0; r < work.R; ++r, code += static_cast<Code>(work.S), to += pitch) {
      const auto value = kMaximum ? where_equal<T, kCount>(codes, code, gradient) : gradient;
      prefetch_stores(to);
      if constexpr (kWhole) {
        write(to, value);
      } else {
        write_partial(to, value, min(used - begin, kCount));
      }
    }
  }
}

// There is `room` for elements from `rows` on that this thread writes.
template <bool kMaximum, typename E, typename Offset, typename T = computed_t<E>>
D2L_INLINE void write_row_by_lanes(const Pool2dTiles& work, T size, const E* gradients, const Offset* offsets,
                                   int64_t left, int64_t room, E* rows) {
  constexpr int kCount = kLanes<T>;
  const int64_t pitch = work.source_columns * work.channels, row = work.columns * work.S * work.channels;
  const int64_t used = min(row, left * work.S);
  if (left >= work.first[(row - 1) / kCount] + kCount && room >= (work.R - 1) * pitch + max(row, kCount)) {
    write_lanes<true, kMaximum>(work, size, gradients, offsets, left, used, rows);
  } else {
    write_lanes<false, kMaximum>(work, size, gradients, offsets, left, used, rows);
  }
}
#endif

template <bool kMaximum, typename E, typename Offset>
D2L_INLINE void write_tiles(const Pool2dTiles& work, computed_t<E> size, const E* grad_output, const Offset* offsets,
                            E* grad_input, Span units) {
  const int64_t pitch = work.source_columns * work.channels, windows = work.columns * work.channels;
  const int64_t rest = (work.source_rows - work.rows * work.R) * pitch;
  int64_t p = units.begin % work.rows;
  E* rows = grad_input + (units.begin / work.rows * work.source_rows + p * work.R) * pitch;
  int64_t left = work.windows - units.begin * windows;
  int64_t room = (units.end / work.rows - units.begin / work.rows) * (work.rows * work.R * pitch + rest) +
                 (units.end % work.rows - p) * work.R * pitch;  // from `rows` to the end of what is written here
  grad_output += units.begin * windows;
  if constexpr (kMaximum) offsets += units.begin * windows;
  for (int64_t unit = units.begin; unit < units.end; ++unit) {
    const bool is_last = ++p == work.rows;
    const int64_t step = work.R * pitch + (is_last ? rest : 0);
#if defined(__AVX2__)
    if (work.first != nullptr) {
      write_row_by_lanes<kMaximum>(work, size, grad_output, offsets, left, room, rows);
    } else
#endif
        if (work.R == 2 && work.S == 2) {
      write_pixels<2, kMaximum>(work, size, grad_output, offsets, rows);
    } else {
      write_pixels<0, kMaximum>(work, size, grad_output, offsets, rows);
    }
    clear_rest(work, is_last, rows);
    if (is_last) p = 0;
    rows += step, room -= step, left -= windows, grad_output += windows;
    if constexpr (kMaximum) offsets += windows;
  }
}

}  // namespace

template <typename E, typename Offset>
void max_pool2d_input_grad_tiles(const Pool2dTiles& work, const E* grad_output, const Offset* offsets, E* grad_input,
                                 Span units) {
  write_tiles<true>(work, 0, grad_output, offsets, grad_input, units);
}

template <typename E>
void avg_pool2d_input_grad_tiles(const Pool2dTiles& work, computed_t<E> size, const E* grad_output, E* grad_input,
                                 Span units) {
  write_tiles<false, E, uint8_t>(work, size, grad_output, nullptr, grad_input, units);
}

#define D2L_INSTANTIATE(E, Offset) \
  template void max_pool2d_input_grad_tiles(const Pool2dTiles&, const E*, const Offset*, E*, Span);

D2L_INSTANTIATE(float, uint8_t)
D2L_INSTANTIATE(float, int32_t)
D2L_INSTANTIATE(double, uint8_t)
D2L_INSTANTIATE(double, int32_t)
D2L_INSTANTIATE(BFloat16, uint8_t)
D2L_INSTANTIATE(BFloat16, int32_t)

template void avg_pool2d_input_grad_tiles(const Pool2dTiles&, float, const float*, float*, Span);
template void avg_pool2d_input_grad_tiles(const Pool2dTiles&, double, const double*, double*, Span);
template void avg_pool2d_input_grad_tiles(const Pool2dTiles&, float, const BFloat16*, BFloat16*, Span);

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
