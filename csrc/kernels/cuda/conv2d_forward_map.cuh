// Index map of the forward product: rows are output pixels, columns output channels, the depth is (r, s, c). A is the
// input under the window, B the weight as it lies in memory; both have their channels, so the depth, in one run.
#pragma once

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/batch_norm_moments.cuh"
#include "kernels/cuda/conv2d_map.cuh"

namespace d2l::cuda {

template <typename T_>
struct ForwardMap {
  using T = T_;
  using Sum = accumulate_t<T>;
  using Tile = TilePlace;
  static constexpr bool kGathersMoments = false;
  static constexpr Order kOrderA = Order::depth_inner;
  static constexpr Order kOrderB = Order::depth_inner;

  const T *input, *weight, *bias;
  T* output;
  Activation activation;
  TileGrid grid;
  PixelWindow window;
  FastDivisor<uint64_t> map_pixels, map_width;        // P Q, Q
  FastDivisor<uint32_t> group_channels, taps_across;  // c, S
  int64_t rows, output_channels;                      // of a pixel of the map that the output is a range of
  uint32_t depth;
  int columns;
  int pad_top, pad_left;
  bool packed;

  struct SourceA {
    using DepthIndex = uint32_t;
    using Row = PixelPart;
    const ForwardMap& map;
    int first_channel;

    __device__ __forceinline__ Row row(int64_t m) const {
      if (m >= map.rows) return PixelWindow::outside();
      uint64_t q = m;
      const uint64_t n = map.map_pixels.split(q), p = map.map_width.split(q);
      PixelPart part = map.window.position(n, p, q, -map.pad_top, -map.pad_left);
      part.offset += first_channel;
      return part;
    }
    __device__ __forceinline__ PixelPart depth(uint32_t d) const {
      if (d >= map.depth) return PixelWindow::outside();
      uint32_t s = map.group_channels.split(d);
      const uint32_t r = map.taps_across.split(s);
      return map.window.tap(r, s, d);
    }
    __device__ __forceinline__ Location<T> find(const Row& row, const PixelPart& depth) const {
      return map.window.find(map.input, row, depth);
    }
  };

  struct SourceB {
    using DepthIndex = uint32_t;
    using Row = int64_t;
    const ForwardMap& map;
    int first_channel;

    __device__ __forceinline__ Row row(int64_t k) const {
      return k < map.columns ? (first_channel + k) * map.depth : kOutside;
    }
    __device__ __forceinline__ int64_t depth(uint32_t d) const { return d < map.depth ? d : kOutside; }
    __device__ __forceinline__ Location<T> find(Row row, int64_t depth) const {
      return find_plain(map.weight, row, depth);
    }
  };

  __device__ __forceinline__ Tile tile(uint32_t block, int tile_rows, int tile_columns) const {
    return grid.place(block, tile_rows, tile_columns);
  }
  __device__ __forceinline__ SourceA source_a(const Tile& tile) const {
    return {*this, static_cast<int>(tile.group * group_channels.divisor())};
  }
  __device__ __forceinline__ SourceB source_b(const Tile& tile) const { return {*this, tile.group * columns}; }
  __device__ __forceinline__ uint32_t depth_begin(const Tile&) const { return 0; }
  __device__ __forceinline__ uint32_t depth_end(const Tile&) const { return depth; }

  __device__ __forceinline__ int64_t begin_row(const Tile& tile, int64_t m) const {
    return m < rows ? m * output_channels + tile.group * columns : kOutside;
  }
  template <int kRun>
  __device__ __forceinline__ void store(const Tile& tile, int64_t offset, int column, Pack<Sum, kRun> sums) const {
    if (offset < 0) return;
    if (bias != nullptr) {
      const T* const group_bias = bias + tile.group * columns;
#pragma unroll
      for (int i = 0; i < kRun; ++i) {
        if (column + i < columns) sums[i] += widen(group_bias[column + i]);
      }
    }
    if (activation == Activation::relu) {
#pragma unroll
      for (int i = 0; i < kRun; ++i) sums[i] = activated(sums[i], Activation::relu);
    } else if (activation != Activation::none) {
#pragma unroll 1  // unrolled, the others are long and make the kernel spill
      for (int i = 0; i < kRun; ++i) sums[i] = activated(sums[i], activation);
    }
    store_columns(output + offset, column, columns, packed, sums);
  }
};

// The same without an activation, for the statistics of each output channel (see conv2d_gather.cuh).
template <typename T>
struct ForwardMomentsMap : ForwardMap<T> {
  static constexpr bool kGathersMoments = true;

  Moments<statistic_t<T>>* partials;  // [tile of rows][output channel]
  int64_t channels;
  DType dtype;
  void *mean, *var;

  // What is left to do when the kernel is launched.
  LaunchStatus join(int64_t row_tiles, Stream stream) const {
    return join_moments(channels, row_tiles, dtype, partials, mean, var, stream);
  }

  // The value that is stored for a sum.
  __device__ __forceinline__ accumulate_t<T> stored(const TilePlace& tile, int column, accumulate_t<T> sum) const {
    if (this->bias != nullptr && column < this->columns) sum += widen(this->bias[tile.group * this->columns + column]);
    return widen(narrow<T>(sum));
  }
};

}  // namespace d2l::cuda
