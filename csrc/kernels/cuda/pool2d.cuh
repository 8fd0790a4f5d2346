// What the pooling kernels share: their index arithmetic and the choice of a kernel's instance.
//
// A tensor in NCHW is one in NHWC with N * C images of one channel, so the kernels know NHWC alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/common.cuh"

namespace d2l::cuda::pool2d {

constexpr int kThreads = 256;
// Blocks on a multiprocessor. Without a number ptxas spills registers to reach more than the memory pipes need.
constexpr int kMinBlocks = 2;
// Many times what a device runs at once; larger tensors are covered by each thread's loop.
constexpr int64_t kMaxBlocks = 16384;
constexpr int kPackBytes = 16;
// Below this, an index plus the step of the grid fits into an int.
constexpr int64_t kMaxInt32 = int64_t{1} << 30;

inline Pool2dShape as_nhwc(Pool2dShape shape, Layout layout) {
  if (layout == Layout::nchw) {
    shape.N *= shape.C;
    shape.C = 1;
  }
  return shape;
}

inline int64_t input_elements(const Pool2dShape& shape) { return shape.N * shape.H * shape.W * shape.C; }
inline int64_t output_elements(const Pool2dShape& shape) { return shape.N * shape.P * shape.Q * shape.C; }

inline dim3 grid_for(int64_t threads) {
  return dim3(static_cast<unsigned>(std::min(ceil_div(threads, int64_t{kThreads}), kMaxBlocks)));
}

// Whether the kernels can reckon in 32 bits (64-bit multiplications and divisions cost several times as much).
inline bool fits_int32(const Pool2dShape& s) {
  const int64_t row_positions = s.H + s.stride_h + s.pad_h + s.dilation_h * s.R;
  const int64_t column_positions = s.W + s.stride_w + s.pad_w + s.dilation_w * s.S;
  const int64_t adaptive_products = s.adaptive ? std::max((s.H + 1) * (s.P + 1), (s.W + 1) * (s.Q + 1)) : 0;
  return std::max({input_elements(s), output_elements(s), row_positions, column_positions, adaptive_products}) <
         kMaxInt32;
}

// Calls function(TypeTag<Index>{}, std::integral_constant<int, kPack>{}): with an index type as narrow as the shape
// permits, and 16-byte packs of channels where every pixel is aligned to one.
template <typename T, typename Function>
LaunchStatus choose_instance(const Pool2dShape& shape, bool aligned, Function&& function) {
  constexpr int kPack = kPackBytes / static_cast<int>(sizeof(T));
  const auto choose_pack = [&](auto index) {
    return aligned && shape.C % kPack == 0 ? function(index, std::integral_constant<int, kPack>{})
                                           : function(index, std::integral_constant<int, 1>{});
  };
  return fits_int32(shape) ? choose_pack(TypeTag<int>{}) : choose_pack(TypeTag<int64_t>{});
}

template <typename Index>
__device__ __forceinline__ Index first_index() {
  return static_cast<Index>(blockIdx.x) * kThreads + static_cast<Index>(threadIdx.x);
}
template <typename Index>
__device__ __forceinline__ Index index_step() {
  return static_cast<Index>(gridDim.x) * kThreads;
}

// A run of taps of one window: tap, tap + 1, ... below tap_end, which lie at position, position + step, ...
template <typename Index>
struct Taps {
  Index tap, tap_end, position;
};

// The windows that may hold a position of an axis: first ... last, both included.
template <typename Index>
struct Cover {
  Index first, last;
};

// The windows along one axis: Pool2dShape::rows or columns, in the index type of the kernel.
template <typename Index>
struct Axis {
  Index size, windows, taps, stride, pad, dilation;
  bool adaptive;

  __device__ __forceinline__ Index begin(Index window) const {
    return adaptive ? window * size / windows : window * stride - pad;
  }
  __device__ __forceinline__ Index end(Index window) const {
    return adaptive ? ceil_div((window + 1) * size, windows) : window * stride - pad + dilation * (taps - 1) + 1;
  }

  __device__ __forceinline__ Taps<Index> taps_on_map(Index window) const {
    const Index from = begin(window), to = end(window) < size ? end(window) : size;
    const Index first = from >= 0 ? 0 : count(-from), position = from + first * dilation;
    return {first, first + (position < to ? count(to - position) : 0), position};
  }

  // Taps on the map or on its padding, which ends `pad` beyond the map whatever the window's size.
  __device__ __forceinline__ Index taps_with_padding(Index window) const {
    const Index limit = adaptive ? size : size + pad;
    return count((end(window) < limit ? end(window) : limit) - begin(window));
  }

  __device__ __forceinline__ Cover<Index> windows_over(Index position) const {
    if (adaptive) return {position * windows / size, ceil_div((position + 1) * windows, size) - 1};
    const Index from_pad = position + pad, reach = dilation * (taps - 1), last = from_pad / stride;
    return {from_pad <= reach ? 0 : ceil_div(from_pad - reach, stride), last < windows ? last : windows - 1};
  }

  // The tap of the window that lies at the position, or -1.
  __device__ __forceinline__ Index tap_at(Index window, Index position) const {
    const Index distance = position - begin(window);
    if (dilation == 1) return distance;
    return distance % dilation == 0 ? distance / dilation : -1;
  }

 private:
  // Taps in an extent that starts with one.
  __device__ __forceinline__ Index count(Index extent) const {
    return dilation == 1 ? extent : ceil_div(extent, dilation);
  }
};

template <typename Index>
struct Geometry {
  Axis<Index> rows, columns;
  Index C;

  explicit Geometry(const Pool2dShape& s)
      : rows{index(s.H), index(s.P), index(s.R), index(s.stride_h), index(s.pad_h), dilation(s, s.dilation_h),
             s.adaptive},
        columns{index(s.W), index(s.Q), index(s.S), index(s.stride_w), index(s.pad_w), dilation(s, s.dilation_w),
                s.adaptive},
        C(index(s.C)) {}

 private:
  static Index index(int64_t value) { return static_cast<Index>(value); }
  static Index dilation(const Pool2dShape& s, int64_t value) { return s.adaptive ? 1 : index(value); }
};

// A pack of channels of one pixel of a map of rows x columns pixels.
template <typename Index>
struct Place {
  Index n, row, column, c;
};

template <int kPack, typename Index>
__device__ __forceinline__ Place<Index> place_of(Index pack, Index rows, Index columns, Index channels) {
  const Index packs = channels / kPack, pixel = pack / packs, line = pixel / columns, n = line / rows;
  return {n, line - n * rows, pixel - line * columns, (pack - pixel * packs) * kPack};
}

}  // namespace d2l::cuda::pool2d
