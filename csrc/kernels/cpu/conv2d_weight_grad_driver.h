// Weight gradient of the cross-correlation, direct, for one instruction set. Only for kernel sources.
//
//   grad_weight[k, c, r, s] = sum_{n, p, q} grad_output[n, p, q, k] * input[n, row p of tap r, column q of tap s, c]
//
// One register tile (conv2d_window.h) does all the arithmetic. 2 * N*P*Q * K*C/groups*R*S FLOPs; both maps are read
// about once. Threads: the tasks (blocks of images or rows) are dealt to slices, one per thread, each with its own sums
// in the layout of packed weights; where those would take too much memory or tasks are few, the blocks of k are dealt
// out too. Sums are in T; slices are added in their order at the end: deterministic for a given number of threads.
//
// 1x1 convolutions of NHWC maps have a driver of their own (conv2d_pointwise_weight_grad.h).
//
// Compiled for bfloat16, strips hold pairs (see conv2d_pairs.h), and one product is that of a pixel of two images.
#pragma once

#include <type_traits>

#include "kernels/cpu/conv2d_kernel.h"
#include "kernels/cpu/conv2d_pack.h"
#include "kernels/cpu/conv2d_pairs.h"
#if !defined(__AVX512BF16__)
#include "kernels/cpu/conv2d_pointwise_weight_grad.h"
#endif
#include "kernels/cpu/conv2d_slices.h"
#include "kernels/cpu/conv2d_strip.h"
#include "kernels/cpu/conv2d_window.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/workspace.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

constexpr int64_t kStripBytes = 256 << 10;

template <typename T, typename E>
struct Driver {
  // Maps of other elements are always copied, so that each is widened once for all taps.
  static constexpr bool kReadsInPlace = std::is_same_v<E, T>;

  const WeightGradient<T, E>& problem;
  AxisPlan rows, columns;
  PackedLayout<T> packing;
  int64_t images;  // of strips
  int64_t image_block, row_block, column_block;
  int64_t image_blocks, row_blocks, column_blocks;
  int64_t slices, parts;

  // Pixels that no tap reads between those of a strip spread it over a part of the cache's sets, in rows too short to
  // prefetch. Copied side by side, they are one long row. That costs more where pixels share a line of the cache.
  bool gathers() const {
    return (rows.grid > 1 || columns.grid > 1) && problem.depth * static_cast<int64_t>(sizeof(T)) >= kLineBytes;
  }

  int64_t tasks() const { return image_blocks * row_blocks * column_blocks; }
  int64_t slice_size() const { return problem.groups * packing.group_size(); }

  int64_t task_bytes(int64_t row_count, int64_t column_count) const {
    const int64_t input = rows.strip_size(row_count) * columns.strip_size(column_count) * problem.depth;
    return (input + row_count * column_count * kBlockWidth<T>)*static_cast<int64_t>(sizeof(T));
  }

  void choose_blocking() {
    const int64_t threads = max_threads();
    column_block = columns.count;
    while (column_block > 16 && task_bytes(1, column_block) > kStripBytes) column_block = ceil_div(column_block, 2);
    const int64_t one = task_bytes(1, column_block);
    const int64_t more = max(1, task_bytes(2, column_block) - one);
    row_block = clamp(1 + (kStripBytes - one) / more, 1, rows.count);
    column_block = ceil_div(columns.count, ceil_div(columns.count, column_block));
    row_block = ceil_div(rows.count, ceil_div(rows.count, row_block));
    image_block = 1;
    if (row_block == rows.count && column_block == columns.count) {
      image_block = clamp(min(kStripBytes / task_bytes(row_block, column_block), images / threads), 1, images);
    }
    image_blocks = ceil_div(images, image_block);
    row_blocks = ceil_div(rows.count, row_block);
    column_blocks = ceil_div(columns.count, column_block);
    const Shares shares =
        share_tasks(tasks(), images * rows.count * columns.count * slice_size(), problem.groups * packing.blocks(),
                    slice_size() * static_cast<int64_t>(sizeof(T)));
    slices = shares.slices;
    parts = shares.parts;
  }

  void run_task(int64_t task, bool fresh, int64_t group, int64_t begin, int64_t end, T* sums) const {
    const int64_t column = task % column_blocks * column_block;
    task /= column_blocks;
    const int64_t row = task % row_blocks * row_block;
    const int64_t image = task / row_blocks * image_block;
    const int64_t row_count = min(row_block, rows.count - row);
    const int64_t column_count = min(column_block, columns.count - column);
    const int64_t image_count = min(image_block, images - image);

    const Map<const E> input{problem.input,          problem.input_layout,  rows.source,  columns.source,
                             problem.input_channels, group * problem.depth, problem.depth};
    const Box input_box{image,
                        image_count,
                        rows.strip_begin(row),
                        rows.strip_size(row_count),
                        rows.grid,
                        columns.strip_begin(column),
                        columns.strip_size(column_count),
                        columns.grid};
    const Box grad_box{image, image_count, row, row_count, 1, column, column_count, 1};
    const bool in_place = kReadsInPlace && input.layout == Layout::nhwc && !gathers() && is_inside(input, input_box);
    const int64_t grad_offset =
        in_place ? 0 : strip_elements<T>(image_count * input_box.rows * input_box.columns * problem.depth);
    const int64_t grad_size = strip_elements<T>(image_count * row_count * column_count * kBlockWidth<T>);
    const int64_t row_offset = grad_offset + grad_size;
    const int64_t row_size =
        kPairs ? strip_elements<T>(max(input_box.columns * problem.depth, column_count * kBlockWidth<T>)) : 0;
    T* scratch = static_cast<T*>(workspace(Workspace::task, (row_offset + row_size) * static_cast<int64_t>(sizeof(T))));
    const auto copied = [&](const Map<const E>& map, const Box& box, T* to, int64_t pixel_stride) {
      if constexpr (kPairs) {
        return copy_pairs(map, box, problem.images, to, pixel_stride, scratch + row_offset);
      } else {
        return copy_strip(map, box, to, pixel_stride);
      }
    };
    Strip<const T> strip;
    if constexpr (kReadsInPlace) {
      if (in_place) strip = view_of(input, input_box);
    }
    if (!in_place) strip = copied(input, input_box, scratch, problem.depth);

    for (int64_t block = begin; block < end; ++block) {
      const bool input_is_new = in_place && block == begin;
      const int64_t width = packing.block_width(block);
      const int64_t channels = min(width, problem.width - block * kBlockWidth<T>);
      const Map<const E> grad{problem.grad_output,
                              problem.output_layout,
                              rows.result,
                              columns.result,
                              problem.output_channels,
                              group * problem.width + block * kBlockWidth<T>,
                              channels};
      if constexpr (kReadsInPlace) {
        if (grad.layout == Layout::nhwc) {
          // Lanes beyond the last channel may hold anything, but must lie inside the tensor.
          const Strip<const T> view = view_of(grad, grad_box);
          const T* last = view.data + (image_count - 1) * view.image_stride + (row_count - 1) * view.row_stride +
                          (column_count - 1) * view.pixel_stride;
          const int64_t last_pixel = problem.images * rows.result * columns.result - 1;
          if (last + width <= problem.grad_output + last_pixel * grad.channels + problem.groups * problem.width) {
            run_block(strip, view, grad_box, block, fresh, input_is_new, true, sums);
            continue;
          }
        }
      }
      T* copy = scratch + grad_offset;
      if (channels < width) zero(copy, image_count * row_count * column_count * width);
      run_block(strip, copied(grad, grad_box, copy, width), grad_box, block, fresh, input_is_new, false, sums);
    }
  }

  // input_is_new, grad_is_new: this is the first time that the strip is read.
  void run_block(const Strip<const T>& input, const Strip<const T>& grad, const Box& box, int64_t block, bool fresh,
                 bool input_is_new, bool grad_is_new, T* sums) const {
    const int64_t width = packing.block_width(block);
    const int64_t tap_column = columns.step * input.pixel_stride;
    const bool contiguous = tap_column == problem.depth;
    const int64_t run = contiguous ? problem.depth * packing.columns.taps : problem.depth;
    const int64_t runs = contiguous ? 1 : packing.columns.taps;
    const int64_t row_taps = packing.rows.taps;
    const int64_t tile_rows = clamp(kWindowElements / max(1, run), 1, min(kWindowRows, row_taps));
    const int64_t tiles = ceil_div(run, kWindowElements / tile_rows);
    WindowArguments<T> w{};
    w.input_image = input.image_stride;
    w.input_row = rows.stride * input.row_stride;
    w.input_pixel = columns.stride * input.pixel_stride;
    w.input_tap_row = rows.step * input.row_stride;
    w.grad = grad.data;
    w.grad_image = grad.image_stride;
    w.grad_row = grad.row_stride;
    w.grad_pixel = grad.pixel_stride;
    w.images = box.images;
    w.rows = box.rows;
    w.columns = box.columns;
    // Rows that follow one another in both maps are one, and so are images.
    if (w.input_row == w.columns * w.input_pixel && w.grad_row == w.columns * w.grad_pixel) {
      w.columns *= w.rows;
      w.rows = 1;
      if (w.input_image == w.columns * w.input_pixel && w.grad_image == w.columns * w.grad_pixel) {
        w.columns *= w.images;
        w.images = 1;
      }
    }
    w.fresh = fresh;
    w.sums_tap_row = packing.columns.taps * problem.depth * width;
    T* block_sums = sums + packing.block_offset(block);
    for (int64_t r = 0; r < row_taps; r += tile_rows) {
      const int64_t row_count = min(tile_rows, row_taps - r);
      for (int64_t s = 0; s < runs; ++s) {
        for (int64_t i = 0; i < tiles; ++i) {
          const int64_t first = i * run / tiles, last = (i + 1) * run / tiles;
          w.input = input.data + r * w.input_tap_row + s * tap_column + first;
          w.sums = block_sums + r * w.sums_tap_row + (s * problem.depth + first) * width;
          window_function<T>(static_cast<int>(row_count), static_cast<int>(last - first), width > kLanes<T>,
                             input_is_new || (grad_is_new && r + s + i == 0))(w);
        }
      }
    }
  }
};

// The same sums with the maps' roles exchanged, for stride 1: over the pixels of input, of the window of grad_output
// around each. The taps run backwards.
template <typename T, typename E>
WeightGradient<T, E> exchanged(const WeightGradient<T, E>& p) {
  const auto axis = [](const CorrelationAxis& a) {
    return CorrelationAxis{a.result, a.source, a.taps, 1, (a.taps - 1) * a.dilation - a.pad, a.dilation};
  };
  E* last_tap = p.grad_weight + (p.rows.taps - 1) * p.weight_row + (p.columns.taps - 1) * p.weight_column;
  return {p.images,        p.groups,       p.width,           p.depth,          axis(p.rows),  axis(p.columns),
          p.output_layout, p.input_layout, p.output_channels, p.input_channels, p.grad_output, p.input,
          last_tap,        p.weight_group, p.weight_width,    p.weight_depth,   -p.weight_row, -p.weight_column};
}

// Whether that leaves fewer lanes empty: the channels of grad_output fill them, or those of input.
template <typename T, typename E>
bool is_worth_exchanging(const WeightGradient<T, E>& p) {
  if (p.rows.stride != 1 || p.columns.stride != 1) return false;
  // All channels of an NCHW input are transposed faster than a block of them; only many taps make up for that.
  if (p.input_layout == Layout::nchw && p.rows.taps * p.columns.taps == 1) return false;
  const auto lanes = [](int64_t channels) { return ceil_div(channels, kLanes<T>) * kLanes<T>; };
  const int64_t products = p.rows.result * p.columns.result * p.depth * lanes(p.width);
  return p.rows.source * p.columns.source * p.width * lanes(p.depth) < products - products / 8;
}

}  // namespace

template <typename T, typename E>
void weight_gradient(const WeightGradient<T, E>& original) {
#if !defined(__AVX512BF16__)
  if (is_pointwise(original)) {
    pointwise_weight_gradient(original);
    return;
  }
#endif
  const WeightGradient<T, E> problem = is_worth_exchanging(original) ? exchanged(original) : original;
  const int64_t images = kPairs ? ceil_div(problem.images, 2) : problem.images;
  Driver<T, E> driver{
      problem, plan_axis(problem.rows, false), plan_axis(problem.columns, false), {}, images, 0, 0, 0, 0, 0, 0, 0, 0};
  driver.packing = {problem.depth,
                    problem.width,
                    tap_order(problem.rows, false),
                    tap_order(problem.columns, false),
                    problem.weight_depth,
                    problem.weight_width,
                    problem.weight_row,
                    problem.weight_column};
  driver.choose_blocking();
  compute_slices<T>(driver);
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
