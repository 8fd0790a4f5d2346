// Index map of the input gradient: rows are input pixels, columns input channels, the depth is (r, s, k). A is
// grad_output, B the weight.
//
// The pixels of one phase, (h mod stride_h, w mod stride_w), are reached by the same taps, and read grad_output as a
// cross-correlation of stride 1 does: no product is made for taps that fall between two output pixels. A slice is a
// phase. A phase that no tap reaches has no depth, and gets zeros.
#pragma once

#include "kernels/cuda/conv2d_map.cuh"

namespace d2l::cuda {

// Which taps of one axis reach the pixels h = phase + i * stride, and where: tap first + j * step (j < taps) reads
// position begin + i - j * reach of the output map.
struct AxisPhase {
  int first, taps, begin;
};

// Tap r reaches pixel h if r * dilation = h + pad (mod stride). With g = gcd(stride, dilation) that has a solution if g
// divides the right side, and then one in every `step` = stride / g.
struct PhasedAxis {
  int stride, dilation, pad, taps;
  int gcd, step, inverse;             // inverse * dilation / gcd = 1 (mod step)
  FastDivisor<uint32_t> fewer, more;  // floor(taps / step), and one more: how many taps a phase may have

  __device__ __forceinline__ AxisPhase phase(int index) const {
    const int residue = (index + pad) % stride;
    if (residue % gcd != 0) return {0, 0, 0};
    const int first = static_cast<int>(static_cast<int64_t>(residue / gcd) * inverse % step);
    if (first >= taps) return {0, 0, 0};
    const int64_t begin = (static_cast<int64_t>(index) + pad - static_cast<int64_t>(first) * dilation) / stride;
    return {first, (taps - first - 1) / step + 1, static_cast<int>(begin)};
  }
  __device__ __forceinline__ FastDivisor<uint32_t> by_taps(const AxisPhase& phase) const {
    return phase.taps * step > taps ? more : fewer;
  }
};

template <typename T_>
struct InputGradMap {
  using T = T_;
  using Sum = accumulate_t<T>;
  static constexpr bool kGathersMoments = false;
  static constexpr Order kOrderA = Order::depth_inner;
  static constexpr Order kOrderB = Order::depth_outer;

  struct Tile : TilePlace {
    int phase_h, phase_w;
    AxisPhase h, w;
  };

  const T *grad_output, *weight;
  T* grad_input;
  TileGrid grid;
  PixelWindow window;
  PhasedAxis axis_h, axis_w;
  FastDivisor<uint64_t> phase_pixels, phase_width;  // pixels of one phase in an image (rounded up), in a row
  FastDivisor<uint32_t> group_channels;             // k
  int64_t rows, H, W, input_channels;
  int phases_across;
  int columns;
  bool packed;

  struct SourceA {
    using DepthIndex = uint32_t;
    using Row = PixelPart;
    const InputGradMap& map;
    int first_channel;
    int begin_h, begin_w;
    uint32_t depths;
    FastDivisor<uint32_t> by_taps;

    __device__ __forceinline__ Row row(int64_t m) const {
      if (m >= map.rows) return PixelWindow::outside();
      uint64_t x = m;
      const uint64_t n = map.phase_pixels.split(x), y = map.phase_width.split(x);
      PixelPart part = map.window.position(n, y, x, begin_h, begin_w);
      part.offset += first_channel;
      return part;
    }
    __device__ __forceinline__ PixelPart depth(uint32_t d) const {
      if (d >= depths) return PixelWindow::outside();
      uint32_t s = map.group_channels.split(d);
      const uint32_t r = by_taps.split(s);
      return map.window.tap(r, s, d);
    }
    __device__ __forceinline__ Location<T> find(const Row& row, const PixelPart& depth) const {
      return map.window.find(map.grad_output, row, depth);
    }
  };

  struct SourceB {
    using DepthIndex = uint32_t;
    using Row = int64_t;
    const InputGradMap& map;
    int first_channel;
    int first_h, first_w;
    uint32_t depths;
    FastDivisor<uint32_t> by_taps;

    __device__ __forceinline__ Row row(int64_t c) const { return c < map.columns ? c : kOutside; }
    __device__ __forceinline__ int64_t depth(uint32_t d) const {
      if (d >= depths) return kOutside;
      uint32_t s = map.group_channels.split(d);
      const uint32_t r = by_taps.split(s);
      const int64_t tap_h = first_h + static_cast<int>(r) * map.axis_h.step;
      const int64_t tap_w = first_w + static_cast<int>(s) * map.axis_w.step;
      return (((first_channel + static_cast<int64_t>(d)) * map.axis_h.taps + tap_h) * map.axis_w.taps + tap_w) *
             map.columns;
    }
    __device__ __forceinline__ Location<T> find(Row row, int64_t depth) const {
      return find_plain(map.weight, row, depth);
    }
  };

  __device__ __forceinline__ Tile tile(uint32_t block, int tile_rows, int tile_columns) const {
    const TilePlace place = grid.place(block, tile_rows, tile_columns);
    const int phase_h = place.slice / phases_across, phase_w = place.slice % phases_across;
    return {place, phase_h, phase_w, axis_h.phase(phase_h), axis_w.phase(phase_w)};
  }
  __device__ __forceinline__ SourceA source_a(const Tile& tile) const {
    return {*this,           static_cast<int>(tile.group * group_channels.divisor()),
            tile.h.begin,    tile.w.begin,
            depth_end(tile), axis_w.by_taps(tile.w)};
  }
  __device__ __forceinline__ SourceB source_b(const Tile& tile) const {
    return {*this,           static_cast<int>(tile.group * group_channels.divisor()),
            tile.h.first,    tile.w.first,
            depth_end(tile), axis_w.by_taps(tile.w)};
  }
  __device__ __forceinline__ uint32_t depth_begin(const Tile&) const { return 0; }
  __device__ __forceinline__ uint32_t depth_end(const Tile& tile) const {
    return static_cast<uint32_t>(tile.h.taps) * tile.w.taps * group_channels.divisor();
  }

  __device__ __forceinline__ int64_t begin_row(const Tile& tile, int64_t m) const {
    if (m >= rows) return kOutside;
    uint64_t x = m;
    const int64_t n = phase_pixels.split(x), y = phase_width.split(x);
    const int64_t h = y * axis_h.stride + tile.phase_h, w = static_cast<int64_t>(x) * axis_w.stride + tile.phase_w;
    return h < H && w < W ? ((n * H + h) * W + w) * input_channels + tile.group * columns : kOutside;
  }
  template <int kRun>
  __device__ __forceinline__ void store(const Tile&, int64_t offset, int column, const Pack<Sum, kRun>& sums) const {
    if (offset >= 0) store_columns(grad_input + offset, column, columns, packed, sums);
  }
};

}  // namespace d2l::cuda
