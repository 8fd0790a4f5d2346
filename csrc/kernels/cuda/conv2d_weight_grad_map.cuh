// Index map of the weight gradient: rows are output channels, columns (r, s, c), the depth is output pixels. A is
// grad_output, B the input under the window; both have their channels, not the depth, in one run.
//
// The depth is cut into slices (weight_grad_slices), whose partial sums conv2d_reduce adds in a fixed order.
#pragma once

#include "kernels/cuda/conv2d_map.cuh"

namespace d2l::cuda {

template <typename T_>
struct WeightGradMap {
  using T = T_;
  using Sum = accumulate_t<T>;
  using Tile = TilePlace;
  static constexpr bool kGathersMoments = false;
  static constexpr Order kOrderA = Order::depth_outer;
  static constexpr Order kOrderB = Order::depth_outer;

  const T *grad_output, *input;
  T* grad_weight;
  Sum* partial_sums;  // [slices] x grad_weight, or null if there is one slice
  TileGrid grid;
  PixelWindow window;
  FastDivisor<uint64_t> map_pixels, map_width;        // P Q, Q
  FastDivisor<uint32_t> group_channels, taps_across;  // c, S
  int64_t depth, slice_depth;
  int64_t output_channels, weight_elements;
  int rows, columns;
  int pad_top, pad_left;
  bool packed;

  struct SourceA {
    using DepthIndex = int64_t;
    using Row = int64_t;
    const WeightGradMap& map;
    int first_channel;

    __device__ __forceinline__ Row row(int64_t k) const { return k < map.rows ? first_channel + k : kOutside; }
    __device__ __forceinline__ int64_t depth(int64_t d) const {
      return d < map.depth ? d * map.output_channels : kOutside;
    }
    __device__ __forceinline__ Location<T> find(Row row, int64_t depth) const {
      return find_plain(map.grad_output, row, depth);
    }
  };

  struct SourceB {
    using DepthIndex = int64_t;
    using Row = PixelPart;
    const WeightGradMap& map;
    int first_channel;

    __device__ __forceinline__ Row row(int64_t tap) const {
      if (tap >= map.columns) return PixelWindow::outside();
      uint32_t c = static_cast<uint32_t>(tap);
      uint32_t s = map.group_channels.split(c);
      const uint32_t r = map.taps_across.split(s);
      return map.window.tap(r, s, first_channel + c);
    }
    __device__ __forceinline__ PixelPart depth(int64_t d) const {
      if (d >= map.depth) return PixelWindow::outside();
      uint64_t q = d;
      const uint64_t n = map.map_pixels.split(q), p = map.map_width.split(q);
      return map.window.position(n, p, q, -map.pad_top, -map.pad_left);
    }
    __device__ __forceinline__ Location<T> find(const Row& row, const PixelPart& depth) const {
      return map.window.find(map.input, row, depth);
    }
  };

  __device__ __forceinline__ Tile tile(uint32_t block, int tile_rows, int tile_columns) const {
    return grid.place(block, tile_rows, tile_columns);
  }
  __device__ __forceinline__ SourceA source_a(const Tile& tile) const { return {*this, tile.group * rows}; }
  __device__ __forceinline__ SourceB source_b(const Tile& tile) const {
    return {*this, static_cast<int>(tile.group * group_channels.divisor())};
  }
  __device__ __forceinline__ int64_t depth_begin(const Tile& tile) const { return tile.slice * slice_depth; }
  __device__ __forceinline__ int64_t depth_end(const Tile& tile) const {
    const int64_t end = (tile.slice + 1) * slice_depth;
    return end < depth ? end : depth;
  }

  __device__ __forceinline__ int64_t begin_row(const Tile& tile, int64_t m) const {
    return m < rows ? (static_cast<int64_t>(tile.group) * rows + m) * columns : kOutside;
  }
  template <int kRun>
  __device__ __forceinline__ void store(const Tile& tile, int64_t offset, int column,
                                        const Pack<Sum, kRun>& sums) const {
    if (offset < 0) return;
    if (partial_sums == nullptr) {
      store_columns(grad_weight + offset, column, columns, packed, sums);
    } else {
      store_columns(partial_sums + tile.slice * weight_elements + offset, column, columns, packed, sums);
    }
  }
};

}  // namespace d2l::cuda
