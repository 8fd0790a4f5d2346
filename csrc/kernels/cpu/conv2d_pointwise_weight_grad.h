// Weight gradient of 1x1 convolutions of NHWC maps, without padding and groups, for one instruction set: the product of
// the maps' matrices [pixels][channels], one of them transposed, in the register tile of gemm_microkernel.h. Only for
// kernel sources.
//
// A task is some pixels with all their channels, which stay in the L2 cache while all tiles go over them. Meanwhile the
// pixels of the next task are brought there, a line every few steps: the first of those tiles would have to wait for
// the memory, and the others have nothing to do with it.
#pragma once

#include "kernels/cpu/cache.h"
#include "kernels/cpu/conv2d_kernel.h"
#include "kernels/cpu/conv2d_slices.h"
#include "kernels/cpu/conv2d_strip.h"
#include "kernels/cpu/gemm_microkernel.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

// Fewer pixels do not make up for reading and writing the sums.
constexpr int64_t kLeastPixels = 64;

// The pixels of a map that a 1x1 convolution reads or writes, in rows.
template <typename E>
struct Pixels {
  const E* data;
  int64_t channels;
  int64_t columns, rows;      // of pixels, the rows of an image
  int64_t pixel, row, image;  // strides

  // From each to the next it is as far.
  bool is_even() const { return row == columns * pixel && image == rows * row; }

  const E* at(int64_t i) const {
    const int64_t line = i / columns;
    return data + line / rows * image + line % rows * row + i % columns * pixel;
  }

  // How many of those from i to end - 1 lie in one row.
  int64_t run(int64_t i, int64_t end) const { return is_even() ? end - i : min(end - i, columns - i % columns); }
};

// Pixels side by side as elements T, each followed by zeros up to the next.
template <typename T, typename E>
void gather(const Pixels<E>& from, int64_t begin, int64_t end, T* to, int64_t pixel_stride) {
  for (int64_t i = begin; i < end;) {
    const int64_t run_end = i + from.run(i, end);
    const E* pixel = from.at(i);
    for (; i < run_end; ++i, pixel += from.pixel, to += pixel_stride) {
      copy_pixel(pixel, from.channels, to, pixel_stride);
    }
  }
}

// The lines of some pixels of two maps, a row of pixels after the other.
template <typename E>
class PixelPrefetch {
 public:
  PixelPrefetch(const Pixels<E>& first, const Pixels<E>& second, int64_t begin, int64_t end)
      : maps_{&first, &second},
        begin_(begin),
        end_(end),
        pixel_(begin),
        left_((end - begin) * lines_of(first, second)) {}

  LinePrefetch lines{};

  // How many of `lines` one of so many calls, of so many steps, has to fetch.
  int64_t share(int64_t calls, int64_t steps) {
    if (left_ <= 0) return 0;
    if (lines.count == 0) start_run();
    const int64_t share = min(min(steps, lines.count), ceil_div(left_, calls));
    left_ -= share;
    return share;
  }

 private:
  static int64_t lines_of(const Pixels<E>& first, const Pixels<E>& second) {
    return ceil_div((first.channels + second.channels) * static_cast<int64_t>(sizeof(E)), kLineBytes);
  }

  void start_run() {
    const Pixels<E>& map = *maps_[map_];
    const int64_t run = map.run(pixel_, end_);
    const bool is_dense = map.pixel == map.channels;
    lines = LinePrefetch::of(map.at(pixel_), is_dense ? run * map.channels : map.channels, is_dense ? 1 : run,
                             is_dense ? 0 : map.pixel);
    pixel_ += run;
    if (pixel_ < end_) return;
    pixel_ = begin_;
    if (++map_ == 2) left_ = lines.count;
  }

  const Pixels<E>* maps_[2];
  int64_t begin_, end_, pixel_, left_, map_ = 0;
};

template <typename T, typename E>
struct PointwiseDriver {
  const WeightGradient<T, E>& problem;
  PackedLayout<T> packing;
  Pixels<E> rows, columns;  // of the product: elements of the former are multiplied by vectors of the latter
  int64_t pixels, task_pixels, slices, parts;

  int64_t tasks() const { return ceil_div(pixels, task_pixels); }
  int64_t slice_size() const { return packing.group_size(); }

  void choose_blocking() {
    const int64_t pixel_bytes = (packing.depth + packing.width) * static_cast<int64_t>(sizeof(T));
    const int64_t most = max(kLeastPixels, l2_bytes() / 8 / pixel_bytes);
    task_pixels = ceil_div(pixels, ceil_div(pixels, most));
    const Shares shares =
        share_tasks(tasks(), pixels * slice_size(), packing.blocks(), slice_size() * static_cast<int64_t>(sizeof(T)));
    slices = shares.slices;
    parts = shares.parts;
  }

  // Pixels as a tile reads them.
  struct Operand {
    const T* data;
    int64_t pixel;
  };

  // Tiles go over all pixels of a task, which are gathered where rows of them lie apart, and widened.
  static bool is_read_in_place(const Pixels<E>& map) { return std::is_same_v<E, T> && map.is_even(); }

  static Operand operand(const Pixels<E>& map, int64_t begin, int64_t end, T* to) {
    if constexpr (std::is_same_v<E, T>) {
      if (is_read_in_place(map)) return {map.at(begin), map.pixel};
    }
    gather(map, begin, end, to, map.channels);
    return {to, map.channels};
  }

  void run_task(int64_t task, bool fresh, int64_t, int64_t begin, int64_t end, T* sums) const {
    const int64_t first = task * task_pixels, last = min(pixels, first + task_pixels);
    const int64_t row_size = strip_elements<T>(is_read_in_place(rows) ? 0 : task_pixels * rows.channels);
    const int64_t column_size = strip_elements<T>(is_read_in_place(columns) ? 0 : task_pixels * columns.channels);
    T* scratch =
        static_cast<T*>(workspace(Workspace::task, (row_size + column_size) * static_cast<int64_t>(sizeof(T))));
    const Operand a = operand(rows, first, last, scratch), b = operand(columns, first, last, scratch + row_size);
    alignas(kVectorBytes) static constexpr T kZeros[kBlockWidth<T>] = {};
    PixelPrefetch<E> next(rows, columns, last, min(pixels, last + task_pixels));
    const int64_t tiles = ceil_div(rows.channels, kGemmRows);
    int64_t calls = (end - begin) * tiles;
    GemmTile<T> t{};
    t.a_row = 1;
    t.a_depth = a.pixel;
    t.b_depth = b.pixel;
    t.start = kZeros;
    t.last_lanes = kLanes<T>;
    t.next = &next.lines;
    alignas(kVectorBytes) T last_pixel[kBlockWidth<T>];
    for (int64_t block = begin; block < end; ++block) {
      const int64_t width = packing.block_width(block), column = block * kBlockWidth<T>;
      // Lanes beyond the last channel belong to the next pixel, which the last one of all has not.
      const int64_t apart = last == pixels && column + width > columns.channels ? 1 : 0;
      if (apart == 1) {
        Pixels<E> rest = columns;
        rest.data += column;
        rest.channels -= column;
        gather(rest, last - 1, last, last_pixel, width);
      }
      t.c_row = width;
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t row = tile * rows.channels / tiles, row_end = (tile + 1) * rows.channels / tiles;
        t.a = a.data + row;
        t.b = b.data + column;
        t.c = sums + packing.block_offset(block) + row * width;
        t.adds = !fresh;
        t.depth = last - first - apart;
        t.share = next.share(calls--, t.depth);
        run_fetching_tile<T>(t, row_end - row, width > kLanes<T>);
        if (apart == 0) continue;
        t.a += t.depth * a.pixel;
        t.b = last_pixel;
        t.adds = true;
        t.depth = 1;
        t.share = 0;
        run_fetching_tile<T>(t, row_end - row, width > kLanes<T>);
      }
    }
  }
};

template <typename T, typename E>
bool is_pointwise(const WeightGradient<T, E>& p) {
  const auto suits = [](const CorrelationAxis& axis) {
    return axis.taps == 1 && axis.pad == 0 && (axis.result - 1) * axis.stride < axis.source;
  };
  return p.groups == 1 && suits(p.rows) && suits(p.columns) && p.input_layout == Layout::nhwc &&
         p.output_layout == Layout::nhwc;
}

// Channels of the input fill the lanes, which saves transposing the weight, unless that leaves many more empty.
template <typename T, typename E>
bool has_lanes_of_input(const WeightGradient<T, E>& p) {
  const auto lanes = [](int64_t channels) { return ceil_div(channels, kLanes<T>) * kLanes<T>; };
  const int64_t products = p.depth * lanes(p.width);
  return p.width * lanes(p.depth) <= products + products / 8;
}

template <typename T, typename E>
void pointwise_weight_gradient(const WeightGradient<T, E>& p) {
  const Pixels<E> input{p.input,
                        p.depth,
                        p.columns.result,
                        p.rows.result,
                        p.columns.stride * p.input_channels,
                        p.rows.stride * p.columns.source * p.input_channels,
                        p.rows.source * p.columns.source * p.input_channels};
  const int64_t row = p.columns.result * p.output_channels;
  const Pixels<E> grad{p.grad_output,     p.width, p.columns.result,   p.rows.result,
                       p.output_channels, row,     p.rows.result * row};
  const TapOrder tap = tap_order(p.rows, false);
  const int64_t pixels = p.images * p.rows.result * p.columns.result;
  PointwiseDriver<T, E> driver =
      has_lanes_of_input(p)
          ? PointwiseDriver<T, E>{p,      {p.width, p.depth, tap, tap, p.weight_width, p.weight_depth, 0, 0},
                                  grad,   input,
                                  pixels, 0,
                                  0,      0}
          : PointwiseDriver<T, E>{
                p, {p.depth, p.width, tap, tap, p.weight_depth, p.weight_width, 0, 0}, input, grad, pixels, 0, 0, 0};
  driver.choose_blocking();
  compute_slices<T>(driver);
}

}  // namespace
}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
