// The three index maps that make a matrix product of a cross-correlation and of its derivatives. With G groups of
// k = K/G output and c = C/G input channels, for each group:
//
//                rows            columns     depth       A                       B
//   forward      N P Q           k           R S c       input under the window  weight
//   input grad   N H' W'         c           R' S' k     grad_output             weight
//   weight grad  k               R S c       N P Q       grad_output             input under the window
//
// Input gradient: the pixels of one phase, (h mod stride_h, w mod stride_w), are reached by the same kernel taps, R' x
// S' of them, and read grad_output as a cross-correlation of stride 1 does. There are stride_h x stride_w phases.
// Weight gradient: the depth is cut into slices, whose partial sums are added later in a fixed order (conv2d_reduce).
//
// A map gives a block its Tile of the product, the sources of both operands (see conv2d_operand.cuh), the range of
// the depth and the place of the result. Pixel coordinates are below 2^30 (the launcher sees to it), offsets int64_t.
#pragma once

#include "kernels/cuda/conv2d_divisor.cuh"
#include "kernels/cuda/conv2d_operand.cuh"

namespace d2l::cuda {

// What one block computes: a tile of the product of one group and one slice (a phase, or a part of the depth).
struct TilePlace {
  int64_t row;
  int column, slice, group;
};

// Blocks in one dimension, so that none of CUDA's narrower limits matters. Neighbours share the rows of A.
struct TileGrid {
  uint32_t columns, rows, slices;

  __device__ __forceinline__ TilePlace place(uint32_t block, int tile_rows, int tile_columns) const {
    const uint32_t upper = block / columns, top = upper / rows;
    return {static_cast<int64_t>(upper % rows) * tile_rows, static_cast<int>(block % columns) * tile_columns,
            static_cast<int>(top % slices), static_cast<int>(top / slices)};
  }
};

// One part of the address of an element in a plain matrix; the sum of both parts is negative outside of it.
constexpr int64_t kOutside = INT64_MIN / 2;

// One part of the address of a pixel: coordinates and the offset that belongs to them.
struct PixelPart {
  int64_t offset;
  int h, w;
};

// Added to any coordinate it gives a negative one, which no map has.
constexpr int kNowhere = -(1 << 30);

// A map of pixels with channels innermost, read at (y * step + begin + tap * reach).
struct PixelWindow {
  int64_t pixels_h, pixels_w, channels;
  int step_h, step_w;
  int reach_h, reach_w;

  __device__ __forceinline__ static PixelPart outside() { return {0, kNowhere, 0}; }
  __device__ __forceinline__ PixelPart position(int64_t image, int64_t y, int64_t x, int begin_h, int begin_w) const {
    const int h = static_cast<int>(y) * step_h + begin_h, w = static_cast<int>(x) * step_w + begin_w;
    return {((image * pixels_h + h) * pixels_w + w) * channels, h, w};
  }
  __device__ __forceinline__ PixelPart tap(int r, int s, int channel) const {
    const int h = r * reach_h, w = s * reach_w;
    return {(h * pixels_w + w) * channels + channel, h, w};
  }
  template <typename T>
  __device__ __forceinline__ Location<T> find(const T* base, const PixelPart& a, const PixelPart& b) const {
    const bool present = static_cast<unsigned>(a.h + b.h) < static_cast<unsigned>(pixels_h) &&
                         static_cast<unsigned>(a.w + b.w) < static_cast<unsigned>(pixels_w);
    return {present ? base + (a.offset + b.offset) : base, present};
  }
};

template <typename T>
__device__ __forceinline__ Location<T> find_plain(const T* base, int64_t a, int64_t b) {
  return {a + b >= 0 ? base + (a + b) : base, a + b >= 0};
}

// Stores neighbouring columns of a row, all at once if `packed` (then none of them lies outside alone).
template <typename T, typename Sum, int kRun>
__device__ __forceinline__ void store_columns(T* row, int column, int columns, bool packed,
                                              const Pack<Sum, kRun>& sums) {
  if (column >= columns) return;
  Pack<T, kRun> run;
#pragma unroll
  for (int i = 0; i < kRun; ++i) run[i] = narrow<T>(sums[i]);
  if (packed) {
    store_pack(row + column, run);
    return;
  }
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    if (column + i < columns) row[column + i] = run[i];
  }
}

template <typename T_>
struct ForwardMap {
  using T = T_;
  using Sum = accumulate_t<T>;
  using Tile = TilePlace;
  using DepthIndex = uint32_t;
  static constexpr Order kOrderA = Order::depth_inner;
  static constexpr Order kOrderB = Order::depth_inner;

  const T *input, *weight, *bias;
  T* output;
  TileGrid grid;
  PixelWindow window;
  FastDivisor<uint64_t> map_pixels, map_width;        // P Q, Q
  FastDivisor<uint32_t> group_channels, taps_across;  // c, S
  int64_t rows, output_channels;
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
    store_columns(output + offset, column, columns, packed, sums);
  }
};

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
  using DepthIndex = uint32_t;
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

template <typename T_>
struct WeightGradMap {
  using T = T_;
  using Sum = accumulate_t<T>;
  using Tile = TilePlace;
  using DepthIndex = int64_t;
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
