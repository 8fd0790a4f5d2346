// Matrix products for one instruction set (see gemm.h for the formula). Only for kernel sources.
//
// 2 * rows * columns * depth FLOPs. Products of few rows or little depth are bound by memory and stream the large
// matrix once (gemm_skinny.h). All others are cut to blocks: of the depth, so that a tile's part of a stays in the L1
// cache; of columns and rows, so that their parts of b and a stay in L2. b is packed to panels of two vectors of
// columns, [panel][depth][columns], zero-padded; a is read in place where its rows are contiguous and do not compete
// for one set of the cache, else it is copied, too. One register tile (gemm_microkernel.h) does all the
// arithmetic; bias and activation are applied while a tile is in the L1 cache.
// Threads: each computes a part of the rows, of the columns or, where c is small, of the depth; parts of the depth are
// added in their order. Sums are in T: deterministic for a given number of threads.
#pragma once

#include <limits>

#include "kernels/cpu/cache.h"

#include "kernels/cpu/activation.h"
#include "kernels/cpu/gemm_exchanged.h"
#include "kernels/cpu/gemm_microkernel.h"
#include "kernels/cpu/gemm_skinny.h"
#include "kernels/cpu/gemm_tiles.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/progress_reporter.h"
#include "kernels/cpu/ranges.h"
#include "kernels/cpu/transpose.h"
#include "kernels/cpu/workspace.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// Multiply-adds worth a thread.
constexpr int64_t kGrain = 1 << 18;
// Blocks of the depth. Columns that lie contiguously are copied in long runs, so that fewer rows of them fit.
constexpr int64_t kDepthBytes = 2048, kShortDepthBytes = kHasTiles ? 2048 : 1536, kSkinnyDepthBytes = 512;
// Blocks of a and of b.
constexpr int64_t kBlockBytes = (kHasTiles ? 512 : 256) << 10;
constexpr int64_t kPartialSumBytes = int64_t{64} << 20;
// Rows of c of this length stay in the L1 cache while b streams past, in runs long enough for the memory.
constexpr int64_t kSumBytes = 16 << 10;
// A b beyond this size comes from memory or the last cache: packing it costs more than computing on it.
constexpr int64_t kLargeBytes = 1 << 20;
// Steps of the depth that are fetched ahead of those that are paired while they are packed.
constexpr int64_t kStepsAhead = 16;

// How many parts each axis is cut to.
struct Grid {
  int64_t rows, columns, depth;
};

// Few rows, and the depth of b contiguous: b is streamed column by column.
template <typename T>
bool is_for_dots(const Product<T>& problem) {
  const bool is_large = problem.columns * problem.depth * static_cast<int64_t>(sizeof(T)) >= kLargeBytes;
  return problem.rows <= (is_large ? 8 : 2) * kDotRows && problem.runs == 1 && !problem.a.adjacent &&
         problem.b.depth == 1 && !problem.is_row_bias;
}

// So many rows are worth packing a b of little depth, where its lines are paired on the way.
template <typename T>
constexpr int64_t kPairedRows = kRounds ? 4 * kGemmRows : std::numeric_limits<int64_t>::max();

// Few rows or little depth, and the columns of b contiguous.
template <typename T>
bool is_for_sums(const Product<T>& problem) {
  return problem.depth > 0 && problem.runs == 1 && problem.b.adjacent &&
         (problem.rows <= kSumRows || (problem.depth <= kLittleDepth && problem.rows < kPairedRows<T>));
}

template <typename T>
int64_t threads_for(const Product<T>& problem) {
  return clamp(problem.rows * problem.columns * problem.depth * problem.runs / kGrain, 1, max_threads());
}

template <typename T>
int64_t deepest_block(const Product<T>& problem) {
  const bool is_skinny = kHasTiles && problem.rows <= kGemmRows;  // b is packed for one tile, as it comes from memory
  const int64_t short_bytes = is_skinny ? kSkinnyDepthBytes : kShortDepthBytes;
  return (problem.b.adjacent ? short_bytes : kDepthBytes) / static_cast<int64_t>(sizeof(T));
}

// Whether sums that are to be rounded can be so while they are in registers.
template <typename T>
bool can_round_registers(const Product<T>& problem) {
  return problem.activation == Activation::none || problem.activation == Activation::relu;
}

// Whether sums that are to be rounded are kept in memory before.
template <typename T>
bool keeps_sums(const Product<T>& problem) {
  if (is_exact(problem)) return false;
  if (!can_round_registers(problem) || is_for_dots(problem)) return true;
  if (is_for_sums(problem)) return problem.depth > kLittleDepth;
  return problem.runs > 1 || problem.depth > deepest_block(problem);
}

#if defined(__AVX512BF16__)
template <typename T>
void round_all(const T* from, int64_t count, Value<T>* to) {
  int64_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) store_value<T>(to + i, load(from + i));
  if (i < count) store_value<T>(to + i, load_partial(from + i, count - i), count - i);
}
#endif

template <typename T>
struct Driver {
  const Product<T>& problem;
  int64_t depth_block, blocks_per_run, row_block, column_block;
  bool copies_a, streams, rounds_tiles;
  Grid grid;
  Sums<T> sums;

  // Keeps sums in this thread's workspace where they are needed and cannot be in c.
  explicit Driver(const Product<T>& p) : problem(p) {
    const int64_t size = sizeof(T);
    const int64_t most = deepest_block(p);
    depth_block = ceil_div(max(1, p.depth), ceil_div(max(1, p.depth), most));
    depth_block = ceil_div(depth_block, kLanes<T>) * kLanes<T>;
    blocks_per_run = ceil_div(max(1, p.depth), depth_block);
    const int64_t fitting = kBlockBytes / (depth_block * size);
    row_block = max(1, fitting / kGemmRows) * kGemmRows;
    column_block = max(1, fitting / kGemmColumns<T>) * kGemmColumns<T>;
    const bool aliased = p.a.distance() * size % kAliasedBytes == 0 && p.rows > 1;
    copies_a = p.a.adjacent || (aliased && p.columns > kGemmColumns<T>) ||
               !is_whole_steps(p.depth - (blocks_per_run - 1) * depth_block);
    streams = blocks() == 1 && p.activation == Activation::none && p.progress.report == nullptr &&
              p.columns % kLanes<T> == 0 &&
              (is_exact(p) ? can_stream(p.exact.data, p.exact.row) : can_stream(p.c, p.c_row));
    rounds_tiles = kRounds && !is_exact(p) && can_round_registers(p);
    grid = choose_grid();
    if (is_exact(p)) {
      sums = p.exact;
    } else if constexpr (kRounds) {
      sums = {nullptr, p.columns};
      const int64_t count =
          keeps_in_blocks() ? ceil_div(p.rows, kGemmRows) * panels() * kGemmBlock<T> : p.rows * p.columns;
      if (keeps_sums(p)) sums.data = static_cast<T*>(workspace(Workspace::sums, count * size));
    } else {
      sums = {p.c, p.c_row};
    }
  }

  // Whether so large a result, aligned to whole registers, is to be written past the cache.
  template <typename Result>
  bool can_stream(const Result* c, int64_t row) const {
    constexpr int64_t kSize = sizeof(Result);
    return problem.rows * problem.columns * kSize >= kStreamedBytes && row % kLanes<T> == 0 &&
           reinterpret_cast<uintptr_t>(c) % (kLanes<T> * kSize) == 0;
  }

  // A result of c, if it is rounded.
  Value<T>* rounded_at(int64_t row, int64_t column) const {
    return is_exact(problem) ? nullptr : problem.c + row * problem.c_row + column;
  }

  int64_t panels() const { return ceil_div(problem.columns, kGemmColumns<T>); }

  // Whether sums that are kept lie as the tiles of AMX want them, each in its own block.
  bool keeps_in_blocks() const { return kHasTiles && rounds_tiles; }

  int64_t blocks() const { return problem.runs * blocks_per_run; }

  // The parts whose slowest thread has the least to do: tiles to compute, then elements to read.
  Grid choose_grid() const {
    const int64_t threads = threads_for(problem);
    const int64_t tiles = ceil_div(problem.rows, kGemmRows), panels = this->panels();
    const int64_t depths = blocks();
    const int64_t c_bytes = problem.rows * problem.columns * static_cast<int64_t>(sizeof(T));
    Grid best{1, 1, 1};
    double least = 0;
    for (int64_t depth = 1; depth <= min(threads, depths); ++depth) {
      if (depth > 1 && (depth * c_bytes > kPartialSumBytes || depths < 4 * depth)) break;
      for (int64_t columns = 1; columns <= min(threads / depth, panels); ++columns) {
        const int64_t rows = min(threads / (depth * columns), tiles);
        const double r = static_cast<double>(ceil_div(tiles, rows) * kGemmRows);
        const double c = static_cast<double>(ceil_div(panels, columns) * kGemmColumns<T>);
        const double d = static_cast<double>(ceil_div(depths, depth) * depth_block);
        const double read = (r + c) * d + (depth > 1 ? 2.0 * static_cast<double>(problem.rows * problem.columns) : 0);
        const double cost = r * c * d / kLanes<T> + read;
        if (least == 0 || cost < least) {
          least = cost;
          best = {rows, columns, depth};
        }
      }
    }
    return best;
  }

  void run() const {
    const int64_t tasks = grid.rows * grid.columns * grid.depth;
    if (grid.depth == 1) {
      parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) run_task(task, sums, true);
        if (streams) finish_streaming();
        trim_workspace(Workspace::task);
      });
      return;
    }
    const int64_t row = ceil_div(problem.columns, kLanes<T>) * kLanes<T>, slice = problem.rows * row;
    T* slices = static_cast<T*>(workspace(Workspace::call, grid.depth * slice * static_cast<int64_t>(sizeof(T))));
    parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        run_task(task, {slices + task / (grid.rows * grid.columns) * slice, row}, false);
      }
      trim_workspace(Workspace::task);
    });
    parallel_for(0, problem.rows, max(1, kGrain / 8 / row), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) add_slices(slices + i * row, slice, i);
    });
    trim_workspace(Workspace::call);
  }

  // The sum of a row takes the place of the first slice's before it is rounded.
  void add_slices(T* slices, int64_t slice, int64_t row) const {
    T* const to = kRounds && !is_exact(problem) ? slices : sums.data + row * sums.row;
    for (int64_t j = 0; j < problem.columns; j += kLanes<T>) {
      const int64_t lanes = min(kLanes<T>, problem.columns - j);
      vec_t<T> sum{};
      if (problem.bias != nullptr) {
        sum = problem.is_row_bias ? broadcast(problem.bias[row]) : load_partial(problem.bias + j, lanes);
      }
      for (int64_t i = 0; i < grid.depth; ++i) sum += load(slices + i * slice + j);
      store_partial(to + j, sum, lanes);
    }
    finish(to, problem.columns, rounded_at(row, 0), 1, problem.columns);
  }

  void run_task(int64_t task, const Sums<T>& to, bool finishes) const {
    const Range columns = part_of(problem.columns, kGemmColumns<T>, grid.columns, task % grid.columns);
    task /= grid.columns;
    const Range rows = part_of(problem.rows, kGemmRows, grid.rows, task % grid.rows);
    const Range own_blocks = part_of(blocks(), 1, grid.depth, task / grid.rows);
    if (rows.size() == 0 || columns.size() == 0) return;
    const bool is_one_block = rows.size() <= row_block;
    const int64_t packed_columns = is_one_block ? min(column_block, columns.size()) : columns.size();
    const int64_t b_size = panel_offset(ceil_div(packed_columns, kGemmColumns<T>));
    const int64_t a_size = copies_a ? a_block_size(min(row_block, rows.size())) : 0;
    T* packed_b = static_cast<T*>(workspace(Workspace::task, (b_size + a_size) * static_cast<int64_t>(sizeof(T))));
    T* copied_a = packed_b + b_size;
    ProgressReporter reporter(problem.progress, rows.begin);
    TileState<T> state;
    for (int64_t i = own_blocks.begin; i < own_blocks.end; ++i) {
      const Steps steps = steps_of(i);
      const bool is_first = i == own_blocks.begin, is_last = i + 1 == own_blocks.end;
      if (!is_one_block) pack_b(steps, columns, packed_b);
      for (int64_t row = rows.begin; row < rows.end; row += row_block) {
        const Range block_rows{row, min(row + row_block, rows.end)};
        if (copies_a) copy_a(steps, block_rows, copied_a);
        for (int64_t column = columns.begin; column < columns.end; column += column_block) {
          const Range block_columns{column, min(column + column_block, columns.end)};
          if (is_one_block) pack_b(steps, block_columns, packed_b);
          const T* b = packed_b + (is_one_block ? 0 : panel_offset((column - columns.begin) / kGemmColumns<T>));
          LinePrefetch next = is_one_block ? next_b(steps, columns, block_columns.end) : LinePrefetch{};
          const bool is_whole = block_columns.size() == problem.columns && finishes && is_last;
          run_block(steps, block_rows, block_columns, copied_a, b, to, is_first, finishes, is_last, next,
                    is_whole ? &reporter : nullptr, state);
        }
        if (finishes && is_last && columns.size() == problem.columns) reporter.finished(block_rows.end);
      }
    }
    state.release();
  }

  Steps steps_of(int64_t block) const {
    const int64_t begin = block % blocks_per_run * depth_block;
    return {block / blocks_per_run, begin, min(begin + depth_block, problem.depth)};
  }

  // Panels begin in different sets of the cache.
  int64_t panel_offset(int64_t panel) const { return panel * (depth_block * kGemmColumns<T> + kLanes<T>); }

  void pack_b(Steps steps, Range columns, T* packed) const {
    const int64_t panels = ceil_div(columns.size(), kGemmColumns<T>);
    if (kHasTiles && copies_a && padded_depth(steps.size()) > steps.size()) {
      for (int64_t panel = 0; panel < panels; ++panel) {
        const int64_t width = panel_width(columns.size() - panel * kGemmColumns<T>);
        T* end = packed + panel_offset(panel) + steps.size() * width;
        __builtin_memset(end, 0, static_cast<size_t>((padded_depth(steps.size()) - steps.size()) * width) * sizeof(T));
      }
    }
    if (problem.b.adjacent) {
      for (int64_t d = 0; d < steps.size(); ++d) {
        const Neighbours<T> from = problem.b.neighbours(columns.begin, steps.begin + d, steps.run);
        for (int64_t panel = 0; panel < panels; ++panel) {
          const int64_t column = panel * kGemmColumns<T>, width = panel_width(columns.size() - column);
          T* to = packed + panel_offset(panel) + d * width;
          if (kRounds) from.prefetch(column + kStepsAhead * kStepValues * problem.b.depth);
          for (int64_t v = 0; v < width; v += kLanes<T>) {
            store(to + v, from.at(column + v, clamp(columns.size() - column - v, 0, kLanes<T>)));
          }
        }
      }
      return;
    }
    for (int64_t panel = 0; panel < panels; ++panel) {
      const int64_t column = panel * kGemmColumns<T>, width = panel_width(columns.size() - column);
      const int64_t count = min(width, columns.size() - column);
      T* to = packed + panel_offset(panel);
      if (count < width) __builtin_memset(to, 0, static_cast<size_t>(steps.size() * width) * sizeof(T));
      const int64_t offset = problem.b.offset(columns.begin + column, steps.begin, steps.run) / kStepValues;
      visit_steps(problem.b, [&](const auto* b) { pack_columns(b + offset, count, steps.size(), to, width); });
    }
  }

  void pack_columns(const T* from, int64_t count, int64_t depth, T* to, int64_t width) const {
    transpose<T>(from, problem.b.distance(), count, depth, to, width);
  }
#if defined(__AVX512BF16__)
  void pack_columns(const FloatPair* from, int64_t count, int64_t depth, T* to, int64_t width) const {
    alignas(kVectorBytes) T rounded[kGemmColumns<T> * kLanes<T>];
    for (int64_t d = 0; d < depth; d += kLanes<T>) {
      const int64_t pairs = min(kLanes<T>, depth - d);
      for (int64_t i = 0; i < count; ++i) {
        store(rounded + i * kLanes<T>, factor<T>(from + i * problem.b.distance() + d, pairs));
      }
      transpose<T>(static_cast<const T*>(rounded), kLanes<T>, count, pairs, to + d * width, width);
    }
  }
#endif

  // Of the panel that starts where so many columns are left.
  static int64_t panel_width(int64_t columns) { return columns > kLanes<T> ? kGemmColumns<T> : kLanes<T>; }

  // Copies of a keep its orientation, except for tiles of AMX: rows, some elements apart that are no multiple of a
  // cache set, or [tile][depth][rows].
  int64_t copied_row() const { return depth_block + kLanes<T>; }
  int64_t copied_tile() const { return kGemmRows * depth_block + kGemmColumns<T>; }
  int64_t a_block_size(int64_t rows) const {
    return problem.a.adjacent && !kHasTiles ? ceil_div(rows, kGemmRows) * copied_tile() : rows * copied_row();
  }

  void copy_a(Steps steps, Range rows, T* to) const {
    if constexpr (kHasTiles) {
      copy_rows(problem.a, steps, rows.begin, rows.size(), to, copied_row());
      return;
    }
    if (!problem.a.adjacent) {
      for (int64_t i = 0; i < rows.size(); ++i) {
        __builtin_memcpy(to + i * copied_row(), problem.a.at(rows.begin + i, steps.begin, steps.run),
                         static_cast<size_t>(steps.size()) * sizeof(T));
      }
      return;
    }
    const int64_t tiles = ceil_div(rows.size(), kGemmRows);
    for (int64_t d = 0; d < steps.size(); ++d) {
      const Neighbours<T> from = problem.a.neighbours(rows.begin, steps.begin + d, steps.run);
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const Range part = tile_rows(rows.size(), tile);
        T* tile_to = to + tile * copied_tile() + d * kGemmRows;
        if (kRounds) from.prefetch(part.begin + kStepsAhead * kStepValues * problem.a.depth);
        // The lanes beyond the tile are overwritten by the next step.
        for (int64_t i = part.begin; i < part.end; i += kLanes<T>) {
          store(tile_to + i - part.begin, from.at(i, min(kLanes<T>, part.end - i)));
        }
      }
    }
  }

  // Tiles of a block have the same number of rows, give or take one; those of AMX are full but for the last.
  static Range tile_rows(int64_t rows, int64_t tile) {
    if (kHasTiles) return {tile * kGemmRows, min(rows, (tile + 1) * kGemmRows)};
    const int64_t tiles = ceil_div(rows, kGemmRows);
    return {tile * rows / tiles, (tile + 1) * rows / tiles};
  }

  void run_block(Steps steps, Range rows, Range columns, const T* copied_a, const T* packed_b, const Sums<T>& to,
                 bool is_first, bool finishes, bool is_last, LinePrefetch& next, ProgressReporter* reporter,
                 TileState<T>& state) const {
    const int64_t tiles = ceil_div(rows.size(), kGemmRows), panels = ceil_div(columns.size(), kGemmColumns<T>);
    const bool completes = finishes && is_last, rounds = rounds_tiles && completes;
    const T* const bias = finishes && is_first ? problem.bias : nullptr;
    alignas(kVectorBytes) T start[kGemmRows * kGemmColumns<T>];
    GemmTile<T> t{};
    t.start = start;
    t.start_row = problem.is_row_bias ? kGemmColumns<T> : 0;
    t.depth = copies_a ? padded_depth(steps.size()) : steps.size();
    const bool in_blocks = keeps_in_blocks() && finishes;
    t.c_row = in_blocks ? kGemmColumns<T> : to.row;
    t.rounded_row = problem.c_row;
    t.is_relu = problem.activation == Activation::relu;
    t.streams = !kRounds && streams && finishes;
    t.next = &next;
    const bool fetches_b = next.count > 0;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const Range part = tile_rows(rows.size(), tile);
      const int64_t row = rows.begin + part.begin;
      set_a(t, steps, rows, tile, part, copied_a);
      if (!fetches_b) next = next_a(steps, rows, tile + 1);
      if (problem.is_row_bias) {
        for (int64_t i = 0; i < part.size(); ++i) {
          for (int64_t j = 0; j < kGemmColumns<T>; ++j) start[i * kGemmColumns<T> + j] = bias ? bias[row + i] : 0;
        }
      }
      T* tile_c = to.data + row * to.row + columns.begin;
      Value<T>* result = rounded_at(row, columns.begin);
      for (int64_t panel = 0; panel < panels; ++panel) {
        const int64_t column = panel * kGemmColumns<T>, width = panel_width(columns.size() - column);
        const int64_t count = min(width, columns.size() - column);
        for (int64_t v = 0; v < kGemmColumns<T> && !problem.is_row_bias; v += kLanes<T>) {
          const int64_t lanes = clamp(count - v, 0, kLanes<T>);
          store(start + v, bias == nullptr ? vec_t<T>{} : load_partial(bias + columns.begin + column + v, lanes));
        }
        t.b = packed_b + panel_offset(panel);
        t.b_depth = width;
        t.adds = !is_first;
        t.c = in_blocks ? to.data + kGemmBlock<T> *
                                        (row / kGemmRows * this->panels() + (columns.begin + column) / kGemmColumns<T>)
                        : tile_c + column;
        t.rounded = rounds ? result + column : nullptr;
        t.last_lanes = count - (width - kLanes<T>);
        const int64_t calls = (fetches_b ? (tiles - tile) * panels : panels) - panel;
        t.share = next.share(calls, steps.size());
        run_tile<T>(t, part.size(), width > kLanes<T>, problem.a.adjacent, state);
      }
      if (completes && !rounds) finish(tile_c, to.row, result, part.size(), columns.size());
      if (reporter != nullptr) reporter->finished(rows.begin + part.end);
    }
    state.finish();
  }

  // The block of b from column `column` on, as it lies in memory.
  LinePrefetch next_b(Steps steps, Range columns, int64_t column) const {
    const int64_t count = min(column_block, columns.end - column), values = steps.size() * kStepValues;
    if (count <= 0) return {};
    const auto lines_of = [&](const auto* b) {
      const auto* start = b + problem.b.offset(column, steps.begin, steps.run);
      return problem.b.adjacent ? LinePrefetch::of(start, count, values, problem.b.depth)
                                : LinePrefetch::of(start, values, count, problem.b.line);
    };
    return problem.b.floats != nullptr ? lines_of(problem.b.floats) : lines_of(problem.b.data);
  }

  // A tile of rows of a that is read in place.
  LinePrefetch next_a(Steps steps, Range rows, int64_t tile) const {
    if (copies_a || tile >= ceil_div(rows.size(), kGemmRows)) return {};
    const Range part = tile_rows(rows.size(), tile);
    return LinePrefetch::of(problem.a.at(rows.begin + part.begin, steps.begin, steps.run), steps.size(), part.size(),
                            problem.a.distance());
  }

  void set_a(GemmTile<T>& t, Steps steps, Range rows, int64_t tile, Range part, const T* copied) const {
    if (problem.a.adjacent && !kHasTiles) {
      t.a = copied + tile * copied_tile();
      t.a_row = 1;
      t.a_depth = kGemmRows;
      return;
    }
    t.a = copies_a ? copied + part.begin * copied_row() : problem.a.at(rows.begin + part.begin, steps.begin, steps.run);
    t.a_row = copies_a ? copied_row() : problem.a.distance();
    t.a_depth = 1;
  }

  // Activates complete sums, and rounds them where c is of other values.
  void finish(T* from, int64_t from_row, [[maybe_unused]] Value<T>* result, int64_t rows, int64_t columns) const {
    if (problem.activation != Activation::none) {
      if (columns == from_row) {  // whole rows lie side by side
        activate(from, rows * columns, problem.activation);
      } else {
        for (int64_t i = 0; i < rows; ++i) activate(from + i * from_row, columns, problem.activation);
      }
    }
    if constexpr (kRounds) {
      for (int64_t i = 0; i < rows && !is_exact(problem); ++i) {
        round_all(from + i * from_row, columns, result + i * problem.c_row);
      }
    }
  }

  void finish(Range rows, Range columns) const {
    finish(sums.data + rows.begin * sums.row + columns.begin, sums.row, rounded_at(rows.begin, columns.begin),
           rows.size(), columns.size());
  }
};

template <typename T>
void run_exchanged(const Driver<T>& driver) {
  const Product<T>& problem = driver.problem;
  const int64_t width = problem.rows > kLanes<T> ? kGemmColumns<T> : kLanes<T>, size = problem.depth * width;
  T* packed = static_cast<T*>(workspace(Workspace::call, size * static_cast<int64_t>(sizeof(T))));
  if (problem.rows < width) __builtin_memset(packed, 0, static_cast<size_t>(size) * sizeof(T));
  transpose<T>(problem.a.at(0, 0, 0), problem.a.distance(), problem.rows, problem.depth, packed, width);
  const int64_t tiles = ceil_div(problem.columns, kGemmRows);
  parallel_for(0, tiles, ceil_div(tiles, threads_for(problem)), [&](int64_t begin, int64_t end) {
    const Range columns{begin * kGemmRows, min(problem.columns, end * kGemmRows)};
    visit_steps(problem.b, [&](const auto* b) {
      multiply_exchanged_columns(problem, driver.sums, b, packed, width, columns.begin, columns.end);
    });
    driver.finish({0, problem.rows}, columns);
  });
  trim_workspace(Workspace::call);
}

template <typename T>
void run_dots(const Driver<T>& driver) {
  const Product<T>& problem = driver.problem;
  if (suits_exchange(problem)) {
    run_exchanged(driver);
    return;
  }
  parallel_for(0, problem.columns, max(1, kGrain / max(1, problem.rows * problem.depth)),
               [&](int64_t begin, int64_t end) {
                 visit_steps(problem.b, [&](const auto* b) { multiply_by_dots(problem, driver.sums, b, begin, end); });
                 driver.finish({0, problem.rows}, {begin, end});
               });
}

template <typename T>
void run_sums(const Driver<T>& driver) {
  const Product<T>& problem = driver.problem;
  if (problem.depth <= kLittleDepth) {
    parallel_for(0, problem.rows, max(1, kGrain / (problem.columns * problem.depth)), [&](int64_t begin, int64_t end) {
      if (driver.streams || driver.rounds_tiles) {
        multiply_once(problem, driver.streams, begin, end);
        if (driver.streams) finish_streaming();
      } else {
        multiply_by_sums(problem, driver.sums, begin, end, 0, problem.columns);
        driver.finish({begin, end}, {0, problem.columns});
      }
    });
    return;
  }
  const int64_t length = kSumBytes / static_cast<int64_t>(sizeof(T)), threads = threads_for(problem);
  const int64_t parts = max(ceil_div(problem.columns, length), min(threads, ceil_div(problem.columns, kLanes<T>)));
  parallel_for(0, parts, ceil_div(parts, threads), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Range columns = part_of(problem.columns, kLanes<T>, parts, i);
      multiply_by_sums(problem, driver.sums, 0, problem.rows, columns.begin, columns.end);
      driver.finish({0, problem.rows}, columns);
    }
  });
}

template <typename T>
void multiply(const Product<T>& problem) {
  const Driver<T> driver(problem);
  if (is_for_dots(problem)) {
    run_dots(driver);
  } else if (is_for_sums(problem)) {
    run_sums(driver);
  } else {
    driver.run();
  }
  if constexpr (kRounds) trim_workspace(Workspace::sums);
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
