// Cross-correlation and its input gradient, direct, for one instruction set. Only for kernel sources.
//
//   result[n, o, k] = bias[k] + sum_{tap, d} source[n, source index of (o, tap), d] * weight[d, k, tap]
//
// Both are correlations of a source with packed weights (conv2d_plan.h says which taps meet which result pixels), and
// one register tile (conv2d_microkernel.h) does all the arithmetic: 2 * depth * taps FLOPs per result element.
// Memory: the source is read about once (a halo of rows twice), the result is written once; weights are packed per call
// and each block of them is read once per task.
// Threads: a task is a block of rows (of columns, of images) of one group, or a part of its blocks of channels. Its
// piece of the source is a strip that fits the L2 cache, next to a block of packed weights. On
// the way into the strip and out of it NCHW maps are transposed, bfloat16 is widened and rounded.
// The activation is applied to the sums in registers (ReLU) or while the task's part of the result is in the cache.
// Sums are in T, in the order taps of rows, taps of columns, channels, whatever the number of threads: deterministic.
#pragma once

#include <type_traits>

#include "kernels/cpu/cache.h"
#include "kernels/cpu/conv2d_fold.h"
#include "kernels/cpu/conv2d_kernel.h"
#include "kernels/cpu/conv2d_microkernel.h"
#include "kernels/cpu/conv2d_strip.h"
#include "kernels/cpu/conv2d_tiles.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/progress_reporter.h"
#include "kernels/cpu/workspace.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// Strips of a task; leaves room for packed weights in an L2 cache of 1 MB.
constexpr int64_t kStripBytes = (kHasTiles ? 512 : 256) << 10;
constexpr int64_t kSmallStripBytes = 96 << 10;
constexpr int64_t kTasksPerThread = 4;
// Multiply-adds worth a thread.
constexpr int64_t kGrain = 1 << 18;

// How the result is cut: blocks of images, of rows and columns (counted in i, see AxisPlan) and of channels.
struct CorrelationBlocking {
  int64_t images, rows, columns;  // in one block
  int64_t image_blocks, row_blocks, column_blocks, parts;
  int64_t tasks(int64_t groups) const { return image_blocks * row_blocks * column_blocks * parts * groups; }
};

template <typename T, typename From, typename To>
struct CorrelationDriver {
  // Maps of other elements than what is computed with are never read or written in place.
  static constexpr bool kWidens = !std::is_same_v<T, From>, kRounds = !std::is_same_v<T, To>;

  const Correlation<T, From, To>& problem;
  AxisPlan rows, columns;
  PackedLayout<T> weights;  // as the problem has them
  Fold fold;                // see conv2d_fold.h
  bool folded;
  PackedLayout<T> packing;  // of what the tiles see
  CorrelationBlocking blocking;
  const T* packed;
  bool streams;

  // Whether the register tiles apply the activation; else it goes over what a task has just written.
  bool has_relu_tiles() const { return problem.activation == Activation::relu && !folded; }

  // Whether the result is stored past the cache, by the tiles or as it is rounded: whole vectors, aligned, which nobody
  // reads again soon.
  bool is_streamed() const {
    const int64_t elements = problem.images * rows.result * columns.result * problem.result_channels;
    const bool is_final = kRounds ? problem.result_layout == Layout::nhwc
                                  : !copies_result() && problem.progress.report == nullptr &&
                                        (problem.activation == Activation::none || has_relu_tiles());
    return is_final && elements * static_cast<int64_t>(sizeof(To)) >= kStreamedBytes &&
           problem.width % kLanes<T> == 0 && problem.result_channels % kLanes<T> == 0 &&
           reinterpret_cast<uintptr_t>(problem.result) % (kLanes<T> * sizeof(To)) == 0;
  }

  bool copies_result() const {
    return (kRounds && !has_rounding_tiles()) || folded || problem.result_layout == Layout::nchw;
  }

  // Whether the tiles round the sums on their way into the result.
  bool has_rounding_tiles() const {
    return kHasTiles && kRounds && problem.result_layout == Layout::nhwc && !folded &&
           (problem.activation == Activation::none || has_relu_tiles());
  }

  // Columns that the tiles compute for that many columns of the first phase.
  int64_t tile_columns(int64_t column_count) const {
    return folded ? columns.strip_size(column_count) : column_count * columns.phases;
  }

  int64_t task_bytes(int64_t image_count, int64_t row_count, int64_t column_count) const {
    const int64_t source =
        rows.strip_size(row_count) * rows_of_pairs() * columns.strip_size(column_count) * pixel_stride();
    const int64_t result =
        copies_result() ? row_count * rows.phases * tile_columns(column_count) * packing.block_width(0) : 0;
    return image_count * (source + result) * static_cast<int64_t>(sizeof(T));
  }

  // Strips of row pairs hold each row twice if there is an odd one of taps: with its neighbour, and with zeros.
  int64_t rows_of_pairs() const { return problem.pairs_rows && problem.rows.taps % 2 == 1 ? 2 : 1; }

  // Without a halo small strips cost nothing, and stay in the L1 cache from one block of channels to the next.
  int64_t strip_bytes() const {
    return rows.span <= rows.stride && columns.span <= columns.stride ? kSmallStripBytes : kStripBytes;
  }

  int64_t padded_depth() const { return problem.depth + packing.padding; }

  // Of copied strips. Pixels a multiple of 2 KB apart would compete for a few sets of the L1 cache.
  int64_t pixel_stride() const {
    constexpr int64_t kAliased = 2048 / sizeof(T);
    return padded_depth() > 0 && padded_depth() % kAliased == 0 ? padded_depth() + kLanes<T> : padded_depth();
  }

  // Images in a strip to be the rows of a tile, where the columns would be few. In a copied strip their pixels lie side
  // by side.
  int64_t interleaved_images() const {
#if defined(__AMX_BF16__)
    if (!problem.pairs_rows && columns.count <= kTileHeight / 2) return min(problem.images, kTileHeight);
#endif
    return 1;
  }

  CorrelationBlocking choose_blocking() const {
    const int64_t threads = max_threads(), budget = strip_bytes(), together = interleaved_images();
    const int64_t wanted = threads > 1 ? threads * kTasksPerThread : 1;
    CorrelationBlocking b{};
    b.images = together;
    b.parts = 1;
    b.columns = columns.count;
    while (b.columns > kTilePixels && task_bytes(together, 1, b.columns) > budget) b.columns = ceil_div(b.columns, 2);
    b.rows = 1;
    const int64_t one = task_bytes(together, 1, b.columns);
    const int64_t more = max(1, task_bytes(together, 2, b.columns) - one);
    b.rows = clamp(1 + (budget - one) / more, 1, rows.count);
    const int64_t outer = ceil_div(problem.images, together) * problem.groups;
    // Cut finer to have enough tasks, but keep a few tiles in each.
    const auto cut = [&](int64_t count, int64_t size, int64_t others, int64_t least) {
      const int64_t blocks = max(ceil_div(count, size), min(ceil_div(wanted, others), count / least));
      return ceil_div(count, max(1, blocks));
    };
    b.columns = cut(columns.count, b.columns, outer * ceil_div(rows.count, b.rows), 8 * kTilePixels);
    b.column_blocks = ceil_div(columns.count, b.columns);
    b.rows = cut(rows.count, b.rows, outer * b.column_blocks, 2);
    b.row_blocks = ceil_div(rows.count, b.rows);
    if (b.row_blocks * b.column_blocks == 1) {
      const int64_t fitting = (kHasTiles ? kSmallStripBytes : budget) / max(1, task_bytes(together, b.rows, b.columns));
      b.images = min(clamp(min(fitting, outer / wanted), 1, problem.images) * together, problem.images);
    }
    b.image_blocks = ceil_div(problem.images, b.images);
    if (b.tasks(problem.groups) < threads) {
      b.parts = min(packing.blocks(), ceil_div(2 * threads, b.tasks(problem.groups)));
    }
    return b;
  }

  const T* group_weight(int64_t group) const {
    if (problem.weight_pair == 0) return problem.weight + group * problem.weight_group;
    return reinterpret_cast<const T*>(reinterpret_cast<const uint16_t*>(problem.weight) + group * problem.weight_group);
  }

  void pack(T* to) const {
    if (folded) {
      for (int64_t group = 0; group < problem.groups; ++group) {
        pack_folded(weights, packing, fold, group_weight(group), to + group * packing.group_size());
      }
      return;
    }
    const int64_t blocks = packing.blocks();
    const int64_t block_size = packing.rows_per_block() * kBlockWidth<T>;
    parallel_for(0, problem.groups * blocks, max(1, kGrain / 8 / max(1, block_size)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t group = i / blocks, block = i % blocks;
        pack_block(packing, group_weight(group), block,
                   to + group * packing.group_size() + packing.block_offset(block));
      }
    });
  }

  void run() const {
    const int64_t tasks = blocking.tasks(problem.groups);
    const int64_t multiply_adds = problem.images * rows.result * columns.result * problem.groups *
                                  packing.rows_per_block() * max(kLanes<T>, problem.width);
    const int64_t grain = max(1, kGrain / max(1, multiply_adds / tasks));
    parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
      TileRegisters registers;
      ProgressReporter reporter(problem.progress,
                                pixels_before(ceil_div(begin, tasks_of_pixels()) * tasks_of_pixels()));
      for (int64_t task = begin; task < end; ++task) {
        run_task(task, registers);
        reporter.finished(pixels_before(task + 1));
      }
      registers.release();
      if (streams) finish_streaming();
      trim_workspace(Workspace::task);
    });
  }

  // Tasks that finish some pixels together: all channels, and whole rows if there are several.
  int64_t tasks_of_pixels() const {
    return blocking.parts * problem.groups * (rows.result == 1 ? 1 : blocking.column_blocks);
  }

  // Pixels of the result, counted over all images, that are finished when all tasks before this one are.
  int64_t pixels_before(int64_t task) const {
    int64_t block = task / tasks_of_pixels();
    int64_t pixels = 0;
    if (rows.result == 1) {
      pixels = min(block % blocking.column_blocks * blocking.columns * columns.phases, columns.result);
      block /= blocking.column_blocks;
    }
    const int64_t row = min(block % blocking.row_blocks * blocking.rows * rows.phases, rows.result);
    const int64_t image = min(block / blocking.row_blocks * blocking.images, problem.images);
    return (image * rows.result + row) * columns.result + pixels;
  }

  void run_task(int64_t task, [[maybe_unused]] TileRegisters& registers) const {
    const int64_t part = task % blocking.parts;
    task /= blocking.parts;
    const int64_t group = task % problem.groups;
    task /= problem.groups;
    const int64_t column = task % blocking.column_blocks * blocking.columns;
    task /= blocking.column_blocks;
    const int64_t row = task % blocking.row_blocks * blocking.rows;
    task /= blocking.row_blocks;
    const int64_t image = task * blocking.images;

    const int64_t row_count = min(blocking.rows, rows.count - row);
    const int64_t column_count = min(blocking.columns, columns.count - column);
    const int64_t image_count = min(blocking.images, problem.images - image);
    const Map<const From> source{problem.source,          problem.source_layout, rows.source,  columns.source,
                                 problem.source_channels, group * problem.depth, problem.depth};
    const Box source_box{image,
                         image_count,
                         rows.strip_begin(row),
                         rows.strip_size(row_count),
                         rows.grid,
                         columns.strip_begin(column),
                         columns.strip_size(column_count),
                         columns.grid};
    const bool in_place = !kWidens && !problem.pairs_rows && packing.padding == 0 && source.layout == Layout::nhwc &&
                          is_inside(source, source_box);

    // Of the result: all phases together.
    const Box result_box{image,
                         image_count,
                         row * rows.phases,
                         min(row_count * rows.phases, rows.result - row * rows.phases),
                         1,
                         column * columns.phases,
                         min(column_count * columns.phases, columns.result - column * columns.phases),
                         1};

    const int64_t source_size =
        in_place
            ? 0
            : strip_elements<T>(image_count * source_box.rows * rows_of_pairs() * source_box.columns * pixel_stride());
    const int64_t result_columns = folded ? source_box.columns : result_box.columns;
    const int64_t result_size =
        copies_result() ? image_count * result_box.rows * result_columns * packing.block_width(0) + kBlockWidth<T> : 0;
    T* scratch =
        static_cast<T*>(workspace(Workspace::task, (source_size + result_size) * static_cast<int64_t>(sizeof(T))));
    Strip<const T> strip{};
    if constexpr (!kWidens) strip = view_of(source, source_box);
    if (!in_place) {
#if defined(__AVX512BF16__)
      if (problem.pairs_rows) {
        strip = copy_row_pairs(source, source_box, rows.step, rows.stride, rows_of_pairs(), scratch);
      } else
#endif
        strip = interleaved_images() > 1 ? copy_interleaved(source, source_box, scratch, pixel_stride())
                                         : copy_strip(source, source_box, scratch, pixel_stride());
    }

    const int64_t blocks = packing.blocks();
    for (int64_t block = part * blocks / blocking.parts; block < (part + 1) * blocks / blocking.parts; ++block) {
      const Map<To> result{problem.result,
                           problem.result_layout,
                           rows.result,
                           columns.result,
                           problem.result_channels,
                           group * problem.width + block * kBlockWidth<T>,
                           min(kBlockWidth<T>, problem.width - block * kBlockWidth<T>)};
      if constexpr (!kRounds || kHasTiles) {
        if (!copies_result()) {
          run_block(strip, group, block, result_box, view_of(result, result_box), result.depth, registers);
          if constexpr (!kRounds) {
            if (!has_relu_tiles()) activate_result(result, result_box);
          }
          continue;
        }
      }
      const int64_t width = packing.block_width(block);
      Box box = result_box;
      box.columns = result_columns;
      Strip<T> copy = dense(scratch + source_size, box, width);
      run_block(strip, group, block, box, copy, width, registers);
      if (folded) copy = unfold(copy, group, result, result_box);
      if constexpr (kRounds) {
        if (!has_relu_tiles()) activate(copy.data, box.images * copy.image_stride, problem.activation);
      }
      if (result.layout == Layout::nchw) {
        write_transposed(result, result_box, copy);
      } else if constexpr (kRounds) {
        write_pixels(result, result_box, copy);
      }
      if constexpr (!kRounds) {
        if (!has_relu_tiles()) activate_result(result, result_box);
      }
    }
  }

  static Strip<T> dense(T* data, const Box& box, int64_t width) {
    return {data, box.rows * box.columns * width, box.columns * width, width};
  }

  // Into the result if that is a view of its map, else back into the same memory, dense.
  Strip<T> unfold(const Strip<T>& from, int64_t group, const Map<To>& map, const Box& box) const {
    Strip<T> to = dense(from.data, box, problem.width);
    if constexpr (!kRounds) {
      if (map.layout == Layout::nhwc) to = view_of(map, box);
    }
    T bias[kBlockWidth<T>] = {};
    load_bias(group, 0, bias);
    for (int64_t i = 0; i < box.images; ++i) {
      for (int64_t r = 0; r < box.rows; ++r) {
        unfold_row(static_cast<const T*>(from.data) + i * from.image_stride + r * from.row_stride, from.pixel_stride,
                   fold, problem.width, box.columns, static_cast<const T*>(bias),
                   to.data + i * to.image_stride + r * to.row_stride, to.pixel_stride);
      }
    }
    return to;
  }

  D2L_INLINE void round_run(const T* from, int64_t count, To* to) const {
    if (!streams) {
      copy_elements(from, count, to);
      return;
    }
    for (int64_t i = 0; i < count; i += kLanes<T>) write_streaming(to + i, load(from + i));
  }

  void write_pixels(const Map<To>& map, const Box& box, const Strip<T>& strip) const {
    const Strip<To> to = view_of(map, box);
    const bool is_run = strip.pixel_stride == map.depth && to.pixel_stride == map.depth;
    for (int64_t i = 0; i < box.images; ++i) {
      for (int64_t r = 0; r < box.rows; ++r) {
        const T* from = strip.data + i * strip.image_stride + r * strip.row_stride;
        To* pixel = to.data + i * to.image_stride + r * to.row_stride;
        if (is_run) {
          round_run(from, box.columns * map.depth, pixel);
          continue;
        }
        for (int64_t q = 0; q < box.columns; ++q, from += strip.pixel_stride, pixel += to.pixel_stride) {
          round_run(from, map.depth, pixel);
        }
      }
    }
  }

  void write_transposed(const Map<To>& map, const Box& box, const Strip<T>& strip) const {
    const int64_t plane = map.rows * map.columns;
    const int64_t rows_at_once = box.columns == map.columns ? box.rows : 1;
    for (int64_t i = 0; i < box.images; ++i) {
      To* to =
          map.data + ((box.image + i) * map.channels + map.first_channel) * plane + box.row * map.columns + box.column;
      for (int64_t r = 0; r < box.rows; r += rows_at_once) {
        transpose<T>(static_cast<const T*>(strip.data) + i * strip.image_stride + r * strip.row_stride,
                     strip.pixel_stride, rows_at_once * box.columns, map.depth, to + r * map.columns, plane);
      }
    }
  }

  void activate_result(const Map<To>& map, const Box& box) const {
    if (problem.activation == Activation::none) return;
    const int64_t plane = map.rows * map.columns;
    const bool nhwc = map.layout == Layout::nhwc;
    const bool whole_pixels = nhwc && map.depth == map.channels;
    // Contiguous runs: all pixels of a row, one pixel, or the rows of a channel.
    const bool whole_rows = box.columns == map.columns && (whole_pixels || !nhwc);
    const int64_t rows_at_once = whole_rows ? box.rows : 1;
    const int64_t runs = nhwc ? (whole_pixels ? 1 : box.columns) : map.depth;
    const int64_t run = rows_at_once * (nhwc && !whole_pixels ? 1 : box.columns) * (nhwc ? map.depth : 1);
    for (int64_t i = 0; i < box.images; ++i) {
      To* image = map.data + (box.image + i) * map.channels * plane;
      for (int64_t r = 0; r < box.rows; r += rows_at_once) {
        const int64_t pixel = (box.row + r) * map.columns + box.column;
        To* first = nhwc ? image + pixel * map.channels + map.first_channel : image + map.first_channel * plane + pixel;
        for (int64_t j = 0; j < runs; ++j) {
          activate(first + j * (nhwc ? map.channels : plane), run, problem.activation);
        }
      }
    }
  }

  void load_bias(int64_t group, int64_t block, T* to) const {
    if (problem.bias == nullptr) return;
    const int64_t first = block * kBlockWidth<T>;
    for (int64_t k = 0; k < min(kBlockWidth<T>, problem.width - first); ++k) {
      to[k] = problem.bias[group * problem.width + first + k];
    }
  }

  // All phases of one block of channels.
  template <typename Result>
  void run_block(const Strip<const T>& strip, int64_t group, int64_t block, const Box& box, const Strip<Result>& result,
                 int64_t width, [[maybe_unused]] TileRegisters& registers) const {
    const int64_t block_width = packing.block_width(block);
    const T* block_weights = packed + group * packing.group_size() + packing.block_offset(block);
    T bias[kBlockWidth<T>] = {};
    if (!folded) load_bias(group, block, bias);
    const int64_t column_phases = folded ? 1 : columns.phases;
    for (int64_t a = 0; a < min(rows.phases, box.rows); ++a) {
      const Phase row_phase = plan_phase(problem.rows, problem.transposed, rows, a);
      for (int64_t b = 0; b < min(column_phases, box.columns); ++b) {
        const Phase column_phase =
            folded ? Phase{1, 0, 0} : plan_phase(problem.columns, problem.transposed, columns, b);
        TileArguments<T> t{};
        t.source =
            strip.data + row_phase.strip_offset * strip.row_stride + column_phase.strip_offset * strip.pixel_stride;
        t.source_row = rows.stride * strip.row_stride;
        t.source_pixel = columns.stride * strip.pixel_stride;
        t.taps_h = problem.pairs_rows ? ceil_div(row_phase.taps, 2) : row_phase.taps;
        t.taps_w = column_phase.taps;
        t.tap_row = rows.step * strip.row_stride * (problem.pairs_rows ? 2 : 1);
        t.last_tap_row = rows_of_pairs() > 1 ? strip.row_stride / 2 : 0;
        t.tap_column = columns.step * strip.pixel_stride;
        t.depth = padded_depth();
        t.weights = block_weights +
                    (row_phase.first_tap * packing.columns.taps + column_phase.first_tap) * t.depth * block_width;
        t.weight_row = packing.columns.taps * t.depth * block_width;
        t.bias = bias;
        t.relu = has_relu_tiles();
        t.result_row = rows.phases * result.row_stride;
        t.result_pixel = column_phases * result.pixel_stride;
        t.last_lanes = width - (block_width - kLanes<T>);
        t.streams = streams && !kRounds;
        if (t.tap_column == t.depth && t.taps_w > 0) {
          t.depth *= t.taps_w;
          t.taps_w = 1;
        }
        Result* const phase_result = result.data + a * result.row_stride + b * result.pixel_stride;
        const int64_t row_count = ceil_div(box.rows - a, rows.phases);
        const int64_t column_count = ceil_div(box.columns - b, column_phases);
        const bool two_vectors = block_width > kLanes<T>;
        if constexpr (kHasTiles) {
          t.streams = streams && has_rounding_tiles();
          TilePhase<Result> phase{t,
                                  {column_count, t.source_pixel, t.result_pixel},
                                  {row_count, t.source_row, t.result_row},
                                  {box.images, strip.image_stride, result.image_stride},
                                  phase_result,
                                  width};
          phase.choose_rows_of_tiles();
          two_vectors ? phase.template run<true>(registers) : phase.template run<false>(registers);
        } else {
          t.result = phase_result;
          run_phase(t, box.images, strip.image_stride, result.image_stride, row_count, column_count, two_vectors);
        }
      }
    }
  }

  // All pixels of one phase.
  void run_phase(TileArguments<T> t, int64_t images, int64_t source_image, int64_t result_image, int64_t row_count,
                 int64_t column_count, bool two_vectors) const {
    if (row_count == 1) {  // images take the place of rows, so that maps of few pixels fill tiles too
      row_count = images;
      images = 1;
      t.source_row = source_image;
      t.result_row = result_image;
    }
    const T* source = t.source;
    T* result = t.result;
    const int64_t most_rows = clamp(kTilePixels / column_count, 1, kTileRows);
    const int64_t column_tiles = ceil_div(column_count, kTilePixels / most_rows);
    for (int64_t image = 0; image < images; ++image) {
      for (int64_t row = 0; row < row_count; row += most_rows) {
        const int64_t tile_rows = min(most_rows, row_count - row);
        for (int64_t i = 0; i < column_tiles; ++i) {
          const int64_t column = i * column_count / column_tiles;
          const int64_t end = (i + 1) * column_count / column_tiles;
          t.source = source + image * source_image + row * t.source_row + column * t.source_pixel;
          t.result = result + image * result_image + row * t.result_row + column * t.result_pixel;
          tile_function<T>(static_cast<int>(tile_rows), static_cast<int>(end - column), two_vectors)(t);
        }
      }
    }
  }
};

template <typename T, typename From, typename To>
void run_correlation(const Correlation<T, From, To>& problem) {
  const bool transposed = problem.transposed;
  const AxisPlan rows = plan_axis(problem.rows, transposed), columns = plan_axis(problem.columns, transposed);
  const PackedLayout<T> weights{
      problem.depth,
      problem.width,
      problem.pairs_rows ? TapOrder{ceil_div(problem.rows.taps, 2), 1, false} : tap_order(problem.rows, transposed),
      tap_order(problem.columns, transposed),
      problem.weight_depth,
      problem.weight_width,
      problem.weight_row,
      problem.weight_column,
      problem.weight_pair};
  const Fold fold = plan_fold(problem.columns, columns, transposed);
  const bool pixels_adjoin =
      problem.result_layout == Layout::nchw || problem.result_channels == problem.width || columns.phases == 1;
  const bool folded = pixels_adjoin && !problem.pairs_rows &&
                      is_worth_folding(problem.columns, columns, fold, weights, kHasTiles ? 20 : 3);
  CorrelationDriver<T, From, To> driver{
      problem, rows,    columns, weights, fold, folded, folded ? folded_layout(weights, fold) : weights,
      {},      nullptr, false};
#if defined(__AMX_BF16__)
  if (!problem.pairs_rows) {
    const TapOrder& taps = driver.packing.columns;
    const bool taps_adjoin = columns.step == 1 && driver.interleaved_images() == 1;
    driver.packing.padding = depth_padding(problem.depth, ceil_div(taps.taps, taps.period), taps_adjoin);
  }
#endif
  driver.streams = driver.is_streamed();
  driver.blocking = driver.choose_blocking();
  const int64_t packed_size = problem.groups * driver.packing.group_size();
  T* packed = static_cast<T*>(workspace(Workspace::call, packed_size * static_cast<int64_t>(sizeof(T))));
  driver.pack(packed);
  driver.packed = packed;
  driver.run();
  trim_workspace(Workspace::call);
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
