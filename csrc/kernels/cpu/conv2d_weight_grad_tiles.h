// Weight gradient of the cross-correlation of bfloat16 maps in tiles (see amx.h). Only for kernel sources.
//
//   grad_weight[k, c, r, s] = sum_{n, p, q} grad_output[n, p, q, k] * input[n, row p of tap r, column q of tap s, c]
//
// The depth of the products are pixels, each of a pair of images. A task's strips, some rows of some pairs:
//
//   input        [rows][phases of columns][columns][pairs][block of c]: columns that follow one another under a tap
//                lie side by side, so a tap is but an offset to the rows of b
//   grad_output  [tiles of k][lines][steps][16 k][16 pixels of pairs]: transposed, the tiles of a
//
// Of a single channel, pixels that follow one another are the rows of b, overlapping, and the taps of a row its
// columns: "folded", with a pair of images at once. In what follows the taps of a row are channels then.
//
// A line is a row of pixels of all pairs (or several rows, where those of both strips follow one another); it is cut
// into steps of the same depth, but for a shorter last one, which takes another shape of tiles. Sums of a task, a tap
// and 32 x 32 channels stay in tiles and are then added to those of the slice: packed weights (conv2d_pack.h) with k in
// the place of the depth. Slices and threads: see conv2d_slices.h.
#pragma once

#include "kernels/cpu/amx.h"
#include "kernels/cpu/conv2d_kernel.h"
#include "kernels/cpu/conv2d_pack.h"
#include "kernels/cpu/conv2d_pair_rows.h"
#include "kernels/cpu/conv2d_slices.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/workspace.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

constexpr int64_t kTileElements = kTileHeight * kTilePairs;
constexpr int64_t kElementBytes = sizeof(float);
constexpr int64_t kBlockBytes = 768 << 10;  // of strips, for a block of c and two tiles of k
// Of a task: more where there are many sums to be added to.
constexpr int64_t kLeastStrips = 1 << 20, kMostStrips = 4 << 20, kStripsPerSum = 4;
constexpr int64_t kBufferBytes = 16 << 10;
constexpr int64_t kSliceBytes = int64_t{128} << 20;
constexpr int64_t kTileGrain = 1 << 22;  // multiply-adds that are worth a thread

struct Lines {
  int64_t count, steps, whole, pairs, rest;  // whole steps of so many pairs of pixels, and the pairs of the last one
};

struct TileDriver {
  const WeightGradient<float, BFloat16>& problem;
  AxisPlan rows, columns;
  PackedLayout<float> packing;  // its depth is k, its width c
  bool folded;
  int64_t pairs;  // of images
  int64_t pair_block = 1, row_block = 1;
  int64_t pair_blocks = 1, row_blocks = 1;
  int64_t slices = 1, parts = 1;

  int64_t tasks() const { return pair_blocks * row_blocks; }
  // Whether the sums of the only task are rounded where they go.
  bool is_direct() const { return tasks() == 1 && packing.weight_width == 1 && lines(row_block, pair_block).rest == 0; }
  int64_t slice_size() const { return problem.groups * packing.group_size(); }
  int64_t k_tiles() const { return ceil_div(problem.width, kTileHeight); }
  int64_t phases() const { return folded ? 1 : columns.stride; }
  int64_t phase_columns() const { return ceil_div(columns.strip_size(columns.count), phases()); }

  // Pairs of pixels of input's strip from a row of the result to the next.
  int64_t row_step(int64_t pair_count) const { return rows.stride * phases() * phase_columns() * pair_count; }

  Lines lines(int64_t row_count, int64_t pair_count) const {
    const bool is_one = row_step(pair_count) == columns.count * pair_count;
    const int64_t depth = columns.count * pair_count * (is_one ? row_count : 1);
    const int64_t steps = ceil_div(depth, kTilePairs);
    const int64_t size = ceil_div(depth, steps);
    const int64_t whole = depth / size;
    return {is_one ? 1 : row_count, steps, whole, size, depth - whole * size};
  }

  // Elements of a pixel, for a block of c.
  int64_t pixel_width(int64_t block) const { return folded ? 1 : packing.block_width(block); }
  int64_t input_elements(int64_t row_count, int64_t pair_count, int64_t width) const {
    return rows.strip_size(row_count) * phases() * phase_columns() * pair_count * width;
  }
  // Of some blocks of c. Columns of b beyond the last channel may hold anything.
  int64_t input_elements_of(int64_t blocks, int64_t row_count, int64_t pair_count) const {
    const int64_t of_block = input_elements(row_count, pair_count, pixel_width(0));
    return folded ? of_block + blocks * kBlockWidth<float> : blocks * of_block;
  }
  int64_t grad_elements(const Lines& l, int64_t tiles) const { return tiles * l.count * l.steps * kTileElements; }

  // Whether the cache holds what a block of c and two tiles of k read, and `bytes` the strips.
  bool fits(int64_t row_count, int64_t pair_count, int64_t bytes) const {
    const Lines l = lines(row_count, pair_count);
    const int64_t block = input_elements_of(1, row_count, pair_count) + grad_elements(l, min(2, k_tiles()));
    const int64_t all = input_elements_of(packing.blocks(), row_count, pair_count) + grad_elements(l, k_tiles());
    return block * kElementBytes <= kBlockBytes && all * kElementBytes <= bytes;
  }

  // As many pairs at once as it takes to fill steps, and then as many rows and pairs as fit: few tasks add to the sums.
  void choose_blocking() {
    const int64_t bytes = clamp(kStripsPerSum * slice_size() * kElementBytes, kLeastStrips, kMostStrips);
    const auto steps = [&](int64_t pair_count) {
      const auto steps_of = [&](int64_t count) {
        const Lines l = lines(rows.count, count);
        return l.count * l.steps;
      };
      const int64_t rest = pairs % pair_count;
      return pairs / pair_count * steps_of(pair_count) + (rest > 0 ? steps_of(rest) : 0);
    };
    const int64_t most = folded ? 1 : min(pairs, kTilePairs);
    for (int64_t count = 2; count <= most && fits(1, count, bytes); ++count) {
      if (steps(count) < steps(pair_block)) pair_block = count;
    }
    const int64_t threads = max_threads(), step = pair_block;
    while (!folded && pair_block + step <= pairs / threads && fits(rows.count, pair_block + step, bytes)) {
      pair_block += step;
    }
    pair_block = ceil_div(ceil_div(pairs, ceil_div(pairs, pair_block)), step) * step;
    pair_blocks = ceil_div(pairs, pair_block);
    row_block = ceil_div(rows.count, ceil_div(threads, pair_blocks));
    while (row_block > 1 && !fits(row_block, pair_block, bytes)) --row_block;
    row_block = ceil_div(rows.count, ceil_div(rows.count, row_block));
    row_blocks = ceil_div(rows.count, row_block);
    const int64_t multiply_adds = pairs * rows.count * columns.count * slice_size() / kTileGrain;
    slices = clamp(min(threads, tasks()), 1, max(1, multiply_adds));
    slices = clamp(slices, 1, max(1, kSliceBytes / (slice_size() * kElementBytes)));
    parts = clamp(threads / slices, 1, min(max(1, multiply_adds), problem.groups * packing.blocks()));
  }

  void run_task(int64_t task, bool fresh, int64_t group, int64_t begin, int64_t end, float* sums) const {
    const int64_t row = task % row_blocks * row_block, pair = task / row_blocks * pair_block;
    const int64_t row_count = min(row_block, rows.count - row), pair_count = min(pair_block, pairs - pair);
    const Lines l = lines(row_count, pair_count);
    const int64_t grad_size = grad_elements(l, k_tiles());
    const int64_t block_step = folded ? kBlockWidth<float> : input_elements(row_count, pair_count, pixel_width(0));
    const int64_t input_size = input_elements_of(end - begin, row_count, pair_count);
    const int64_t buffer_size = buffer_elements(buffer_pixels(l, pair_count) * pair_count);
    float* const grad =
        static_cast<float*>(workspace(Workspace::task, (grad_size + input_size + buffer_size) * kElementBytes));
    float* const input = grad + grad_size;
    copy_grad(group, row, row_count, pair, pair_count, l, grad, input + input_size);
    if (folded) {
      copy_folded(begin, row, row_count, pair, input);
    } else {
      copy_input(group, begin, end, row, row_count, pair, pair_count, input);
    }
    finish_stores();
    TileRegisters registers;
    for (int64_t block = begin; block < end; ++block) {
      multiply(registers, grad, input + (block - begin) * block_step, pair_count, l, group, block, fresh,
               sums + packing.block_offset(block));
    }
    registers.release();
  }

  // A single channel, from a block of taps on.
  void copy_folded(int64_t block, int64_t row, int64_t row_count, int64_t pair, float* to) const {
    const Map<const BFloat16> map{problem.input, Layout::nchw, rows.source, columns.source, 1, 0, 1};
    const RowColumns strip{columns.low + block * kBlockWidth<float>, phase_columns(), 1};
    for (int64_t r = 0; r < rows.strip_size(row_count); ++r) {
      copy_pair_plane(map, problem.images, 2 * pair, rows.strip_begin(row) + r * rows.grid, strip,
                      to + r * phase_columns());
    }
  }

  // The blocks of c from begin to end.
  void copy_input(int64_t group, int64_t begin, int64_t end, int64_t row, int64_t row_count, int64_t pair,
                  int64_t pair_count, float* to) const {
    // Those of the same width at once: pixels are read in the order of memory.
    const int64_t last = packing.blocks() - 1;
    if (end - begin > 1 && end > last && packing.block_width(last) != packing.block_width(begin)) {
      copy_input(group, begin, last, row, row_count, pair, pair_count, to);
      to += (last - begin) * input_elements(row_count, pair_count, packing.block_width(begin));
      begin = last;
    }
    const int64_t width = packing.block_width(begin), first = begin * kBlockWidth<float>;
    const Map<const BFloat16> map{problem.input,
                                  problem.input_layout,
                                  rows.source,
                                  columns.source,
                                  problem.input_channels,
                                  group * problem.depth + first,
                                  min(problem.depth, end * kBlockWidth<float>) - first};
    const int64_t strip_row = phases() * phase_columns() * pair_count * width;
    const PairPixels pixels{pair_count * width, width, input_elements(row_count, pair_count, width)};
    for (int64_t r = 0; r < rows.strip_size(row_count); ++r) {
      for (int64_t i = 0; i < pair_count; ++i) {
        for (int64_t phase = 0; phase < phases(); ++phase) {
          copy_pair_row(map, problem.images, 2 * (pair + i), rows.strip_begin(row) + r * rows.grid,
                        {columns.low + phase * columns.grid, phase_columns(), phases() * columns.grid},
                        to + r * strip_row + (phase * phase_columns() * pair_count + i) * width, pixels);
        }
      }
    }
  }

  // Pixels that are copied, with all of k, before they are transposed: whole steps, or a whole line.
  int64_t buffer_pixels(const Lines& l, int64_t pair_count) const {
    const int64_t smallest = l.pairs / gcd(l.pairs, pair_count);
    return max(1, kBufferBytes / (smallest * buffer_elements(pair_count) * kElementBytes)) * smallest;
  }
  int64_t buffer_width() const { return k_tiles() > 1 ? 2 * kTileHeight : kTileHeight; }
  int64_t buffer_elements(int64_t pixel_pairs) const { return ceil_div(k_tiles(), 2) * pixel_pairs * buffer_width(); }

  void copy_grad(int64_t group, int64_t row, int64_t row_count, int64_t pair, int64_t pair_count, const Lines& l,
                 float* to, float* buffer) const {
    // All pixels of a plane as one row.
    const Map<const BFloat16> map{
        problem.grad_output,   problem.output_layout, 1, rows.result * columns.result, problem.output_channels,
        group * problem.width, problem.width};
    const int64_t width = buffer_width();
    const int64_t pixels = row_count / l.count * columns.count, most = buffer_pixels(l, pair_count);
    for (int64_t p = 0; p < l.count; ++p) {
      for (int64_t begin = 0; begin < pixels; begin += most) {
        const int64_t count = min(most, pixels - begin), block = count * pair_count * width;
        for (int64_t i = 0; i < pair_count; ++i) {
          copy_pair_row(map, problem.images, 2 * (pair + i), 0, {row * columns.count + p * pixels + begin, count, 1},
                        buffer + i * width, {pair_count * width, width, block});
        }
        const int64_t first = begin * pair_count / l.pairs, steps = ceil_div(count * pair_count, l.pairs);
        for (int64_t tile = 0; tile < k_tiles(); ++tile) {
          const float* from = buffer + tile / 2 * block + tile % 2 * kTileHeight;
          float* tiles = to + ((tile * l.count + p) * l.steps + first) * kTileElements;
          for (int64_t step = 0; step < steps; ++step) {
            transpose_tile(from + step * l.pairs * width, width, first + step < l.whole ? l.pairs : l.rest,
                           tiles + step * kTileElements);
          }
        }
      }
    }
  }

  static void transpose_tile(const float* from, int64_t pixel, int64_t count, float* to) {
    vec_t<float> block[kTileHeight];
#pragma GCC unroll 16
    for (int i = 0; i < kTileHeight; ++i) block[i] = i < count ? load(from + i * pixel) : vec_t<float>{};
    transpose_registers<float>(block);
#pragma GCC unroll 16
    for (int i = 0; i < kTileHeight; ++i) store(to + i * kTilePairs, block[i]);
  }

  // Adds a task's products to the sums of a block of c.
  void multiply(TileRegisters& registers, const float* grad, const float* input, int64_t pair_count, const Lines& l,
                int64_t group, int64_t block, bool fresh, float* sums) const {
    const int64_t width = packing.block_width(block), column_taps = packing.columns.taps;
    const int64_t taps = packing.rows.taps * column_taps;
    const auto tap_input = [&](int64_t tap) {
      const int64_t column = folded ? 0 : tap % column_taps * columns.step;
      const int64_t row = tap / column_taps * rows.step * phases() + column % phases();
      return input + (row * phase_columns() + column / phases()) * pair_count * pixel_width(block);
    };
    TileSums t{};
    t.lines = l.count;
    t.grad_line = l.steps * kTileElements;
    t.input_line = row_step(pair_count) * pixel_width(block);
    const int64_t input_pixel = folded ? columns.stride : width;
    t.input_step = l.pairs * input_pixel;
    const bool is_wide = width > kTileColumns;
    const int64_t first_channel = block * kBlockWidth<float>, channels = problem.depth - first_channel;
    t.columns[0] = min(kTileColumns, channels);
    t.columns[1] = is_wide ? min(kTileColumns, channels - kTileColumns) : t.columns[0];
    t.weight_row = packing.weight_depth;
    auto* const weight =
        reinterpret_cast<uint16_t*>(problem.grad_weight) + group * problem.weight_group + first_channel;
    const auto tap_weight = [&](int64_t tap) {
      return weight + tap / column_taps * packing.weight_row + tap % column_taps * packing.weight_column;
    };
    t.input_pixel = input_pixel * kElementBytes;
    for (int64_t k = 0; k < problem.width; k += 2 * kTileHeight) {
      t.first_rows = min(kTileHeight, problem.width - k);
      t.second_rows = clamp(problem.width - k - kTileHeight, 0, kTileHeight);
      for (const bool is_rest : {false, true}) {
        if (is_rest && l.rest == 0) continue;
        registers.shape(t.first_rows, t.second_rows, is_rest ? l.rest : l.pairs);
        const int64_t skipped = is_rest ? l.whole : 0;
        t.steps = is_rest ? 1 : l.whole;
        t.fresh = fresh && !is_rest;
        t.first_grad = grad + (k / kTileHeight * l.count * l.steps + skipped) * kTileElements;
        t.second_grad = t.first_grad + l.count * l.steps * kTileElements;
        const int64_t tap_sums = problem.width * width;
        for (int64_t tap = 0; tap < taps; tap += is_wide ? 1 : 2) {
          t.input[0] = tap_input(tap) + skipped * t.input_step;
          t.sums[0] = sums + tap * tap_sums + k * width;
          // Blocks of one tile take two taps at once.
          t.input[1] = is_wide ? t.input[0] + kTileColumns : tap_input(tap + 1) + skipped * t.input_step;
          t.sums[1] = t.sums[0] + (is_wide ? kTileColumns : tap_sums);
          t.sums_row = width;
          if (is_direct()) {
            t.weight[0] = tap_weight(tap) + k * packing.weight_depth;
            t.weight[1] = is_wide ? t.weight[0] + kTileColumns : tap_weight(tap + 1) + k * packing.weight_depth;
          }
          const bool has_second = is_wide || tap + 1 < taps;
          if (t.second_rows > 0) {
            has_second ? add_products<true, true>(t) : add_products<true, false>(t);
          } else {
            has_second ? add_products<false, true>(t) : add_products<false, false>(t);
          }
        }
      }
    }
  }

  struct TileSums {
    int64_t lines, steps;
    const float *first_grad, *second_grad;
    int64_t grad_line;
    const float* input[2];
    int64_t input_line, input_step, input_pixel;  // the last in bytes
    int64_t first_rows, second_rows;
    float* sums[2];
    int64_t sums_row;
    bool fresh;           // sums hold nothing yet
    uint16_t* weight[2];  // to be written instead of sums, or null
    int64_t weight_row, columns[2];

    // What is written, far away, arrives meanwhile.
    D2L_INLINE void fetch(int half) const {
      for (int64_t i = 0; i < first_rows + second_rows; ++i) {
        if (weight[half] != nullptr) {
          __builtin_prefetch(weight[half] + i * weight_row, 1);
        } else {
          __builtin_prefetch(sums[half] + i * sums_row, 1);
        }
      }
    }

    // A tile, to the rows from `row` on.
    D2L_INLINE void put(const float* tile, int half, int64_t row, int64_t count) const {
      for (int64_t i = 0; i < count; ++i) {
        const vec_t<float> sum = load(tile + i * kTileColumns);
        if (weight[half] != nullptr) {
          store_value<float>(weight[half] + (row + i) * weight_row, sum, columns[half]);
        } else {
          float* const to = sums[half] + (row + i) * sums_row;
          store(to, fresh ? sum : load(static_cast<const float*>(to)) + sum);
        }
      }
    }
  };

  template <bool kSecondRows, bool kSecondColumns>
  static void add_products(const TileSums& t) {
    _tile_zero(0);
    if (kSecondColumns) _tile_zero(1);
    if (kSecondRows) _tile_zero(2);
    if (kSecondRows && kSecondColumns) _tile_zero(3);
    t.fetch(0);
    if (kSecondColumns) t.fetch(1);
    for (int64_t line = 0; line < t.lines; ++line) {
      const float *first_grad = t.first_grad + line * t.grad_line, *second_grad = t.second_grad + line * t.grad_line;
      const float *first_input = t.input[0] + line * t.input_line, *second_input = t.input[1] + line * t.input_line;
      for (int64_t step = 0; step < t.steps; ++step) {
        multiply_tiles<kSecondRows, kSecondColumns>(first_grad, second_grad, kLineBytes, first_input, second_input,
                                                    t.input_pixel);
        first_grad += kTileElements;
        second_grad += kTileElements;
        first_input += t.input_step;
        second_input += t.input_step;
      }
    }
    alignas(kLineBytes) float sums[4][kTileElements];
    _tile_stored(0, sums[0], kLineBytes);
    if (kSecondColumns) _tile_stored(1, sums[1], kLineBytes);
    if (kSecondRows) _tile_stored(2, sums[2], kLineBytes);
    if (kSecondRows && kSecondColumns) _tile_stored(3, sums[3], kLineBytes);
    t.put(sums[0], 0, 0, t.first_rows);
    if (kSecondColumns) t.put(sums[1], 1, 0, t.first_rows);
    if (kSecondRows) t.put(sums[2], 0, kTileHeight, t.second_rows);
    if (kSecondRows && kSecondColumns) t.put(sums[3], 1, kTileHeight, t.second_rows);
  }
};

}  // namespace

void weight_gradient_in_tiles(const WeightGradient<float, BFloat16>& original) {
  const bool folded = original.groups == 1 && original.input_channels == 1 && original.columns.dilation == 1;
  WeightGradient<float, BFloat16> problem = original;
  TapOrder column_taps = tap_order(original.columns, false);
  if (folded) {
    problem.depth = original.columns.taps;
    problem.weight_depth = original.weight_column;
    column_taps = {1, 1, false};
  }
  TileDriver driver{problem,
                    plan_axis(original.rows, false),
                    plan_axis(original.columns, false),
                    {problem.width, problem.depth, tap_order(original.rows, false), column_taps, problem.weight_width,
                     problem.weight_depth, problem.weight_row, problem.weight_column},
                    folded,
                    ceil_div(problem.images, 2)};
  driver.choose_blocking();
  float* sums = static_cast<float*>(workspace(Workspace::call, driver.slices * driver.slice_size() * kElementBytes));
  run_slices(driver, sums);
  if (!driver.is_direct()) add_slices(driver, static_cast<const float*>(sums));
  trim_workspace(Workspace::call);
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
