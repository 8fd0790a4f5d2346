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

}  // namespace

template <typename T, typename Offset>
void max_pool2d_input_grad_tiles(const Pool2dTiles& work, const T* grad_output, const Offset* offsets, T* grad_input,
                                 Span units) {
  write_tiles<true>(work, T(0), grad_output, offsets, grad_input, units);
}

template <typename T>
void avg_pool2d_input_grad_tiles(const Pool2dTiles& work, T size, const T* grad_output, T* grad_input, Span units) {
  write_tiles<false, T, uint8_t>(work, size, grad_output, nullptr, grad_input, units);
}

#define D2L_INSTANTIATE(T, Offset) \
  template void max_pool2d_input_grad_tiles(const Pool2dTiles&, const T*, const Offset*, T*, Span);

D2L_INSTANTIATE(float, uint8_t)
D2L_INSTANTIATE(float, int32_t)
D2L_INSTANTIATE(double, uint8_t)
D2L_INSTANTIATE(double, int32_t)

template void avg_pool2d_input_grad_tiles(const Pool2dTiles&, float, const float*, float*, Span);
template void avg_pool2d_input_grad_tiles(const Pool2dTiles&, double, const double*, double*, Span);

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
