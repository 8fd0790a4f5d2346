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

#include "kernels/cpu/cache.h"
#include "kernels/cpu/gemm.h"

#include "kernels/cpu/activation.h"
#include "kernels/cpu/gemm_microkernel.h"
#include "kernels/cpu/gemm_skinny.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/progress_reporter.h"
#include "kernels/cpu/transpose.h"
#include "kernels/cpu/workspace.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// Multiply-adds worth a thread.
constexpr int64_t kGrain = 1 << 18;
// Blocks of the depth. Columns that lie contiguously are copied in long runs, so that fewer rows of them fit.
constexpr int64_t kDepthBytes = 2048, kShortDepthBytes = 1536;
// Blocks of a and of b.
constexpr int64_t kBlockBytes = 256 << 10;
// Rows this far apart all compete for one set of the L1 cache.
constexpr int64_t kAliasedBytes = 4096;
constexpr int64_t kPartialSumBytes = int64_t{64} << 20;
// Rows of c of this length stay in the L1 cache while b streams past, in runs long enough for the memory.
constexpr int64_t kSumBytes = 16 << 10;
// A b beyond this size comes from memory or the last cache: packing it costs more than computing on it.
constexpr int64_t kLargeBytes = 1 << 20;

struct Range {
  int64_t begin, end;
  D2L_INLINE int64_t size() const { return end - begin; }
};

// Part `index` of `parts` of a range of `size`, cut between units.
D2L_INLINE Range part_of(int64_t size, int64_t unit, int64_t parts, int64_t index) {
  const int64_t units = ceil_div(size, unit);
  return {min(size, index * units / parts * unit), min(size, (index + 1) * units / parts * unit)};
}

// How many parts each axis is cut to.
struct Grid {
  int64_t rows, columns, depth;
};

template <typename T>
struct Driver {
  const Gemm<T>& problem;
  int64_t depth_block, row_block, column_block;
  bool copies_a, streams;
  Grid grid;

  explicit Driver(const Gemm<T>& p) : problem(p) {
    const int64_t size = sizeof(T);
    const int64_t most = (p.b_column == 1 ? kShortDepthBytes : kDepthBytes) / size;
    depth_block = ceil_div(max(1, p.depth), ceil_div(max(1, p.depth), most));
    depth_block = ceil_div(depth_block, kLanes<T>) * kLanes<T>;
    const int64_t fitting = kBlockBytes / (depth_block * size);
    row_block = max(1, fitting / kGemmRows) * kGemmRows;
    column_block = max(1, fitting / kGemmColumns<T>) * kGemmColumns<T>;
    const bool aliased = p.a_row * size % kAliasedBytes == 0 && p.rows > 1;
    copies_a = p.a_depth != 1 || (aliased && p.columns > kGemmColumns<T>);
    streams = p.depth <= depth_block && p.activation == Activation::none && p.progress.report == nullptr &&
              p.rows * p.columns * size >= kStreamedBytes && p.columns % kLanes<T> == 0 && p.c_row % kLanes<T> == 0 &&
              reinterpret_cast<uintptr_t>(p.c) % kVectorBytes == 0;
    grid = choose_grid();
  }

  // The parts whose slowest thread has the least to do: tiles to compute, then elements to read.
  Grid choose_grid() const {
    const int64_t threads = clamp(problem.rows * problem.columns * problem.depth / kGrain, 1, max_threads());
    const int64_t tiles = ceil_div(problem.rows, kGemmRows), panels = ceil_div(problem.columns, kGemmColumns<T>);
    const int64_t depths = ceil_div(problem.depth, depth_block);
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
        for (int64_t task = begin; task < end; ++task) run_task(task, problem.c, problem.c_row, true);
        if (streams) finish_streaming();
        trim_workspace(Workspace::task);
      });
      return;
    }
    const int64_t row = ceil_div(problem.columns, kLanes<T>) * kLanes<T>, slice = problem.rows * row;
    T* sums = static_cast<T*>(workspace(Workspace::call, grid.depth * slice * static_cast<int64_t>(sizeof(T))));
    parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        run_task(task, sums + task / (grid.rows * grid.columns) * slice, row, false);
      }
      trim_workspace(Workspace::task);
    });
    parallel_for(0, problem.rows, max(1, kGrain / 8 / row), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) add_slices(sums + i * row, slice, i);
    });
    trim_workspace(Workspace::call);
  }

  void add_slices(const T* sums, int64_t slice, int64_t row) const {
    for (int64_t j = 0; j < problem.columns; j += kLanes<T>) {
      const int64_t lanes = min(kLanes<T>, problem.columns - j);
      vec_t<T> sum = problem.bias == nullptr ? vec_t<T>{} : load_partial(problem.bias + j, lanes);
      for (int64_t i = 0; i < grid.depth; ++i) sum += load(sums + i * slice + j);
      store_partial(problem.c + row * problem.c_row + j, sum, lanes);
    }
    activate(problem.c + row * problem.c_row, problem.columns, problem.activation);
  }

  void run_task(int64_t task, T* c, int64_t c_row, bool finishes) const {
    const Range columns = part_of(problem.columns, kGemmColumns<T>, grid.columns, task % grid.columns);
    task /= grid.columns;
    const Range rows = part_of(problem.rows, kGemmRows, grid.rows, task % grid.rows);
    const Range depth = part_of(problem.depth, depth_block, grid.depth, task / grid.rows);
    if (rows.size() == 0 || columns.size() == 0) return;
    const bool is_one_block = rows.size() <= row_block;
    const int64_t packed_columns = is_one_block ? min(column_block, columns.size()) : columns.size();
    const int64_t b_size = panel_offset(ceil_div(packed_columns, kGemmColumns<T>));
    const int64_t a_size = copies_a ? a_block_size(min(row_block, rows.size())) : 0;
    T* packed_b = static_cast<T*>(workspace(Workspace::task, (b_size + a_size) * static_cast<int64_t>(sizeof(T))));
    T* copied_a = packed_b + b_size;
    ProgressReporter reporter(problem.progress, rows.begin);
    int64_t d = depth.begin;
    do {
      const Range block{d, min(d + depth_block, depth.end)};
      const bool is_first = d == depth.begin, is_last = block.end == depth.end;
      if (!is_one_block) pack_b(block, columns, packed_b);
      for (int64_t row = rows.begin; row < rows.end; row += row_block) {
        const Range block_rows{row, min(row + row_block, rows.end)};
        if (copies_a) copy_a(block, block_rows, copied_a);
        for (int64_t column = columns.begin; column < columns.end; column += column_block) {
          const Range block_columns{column, min(column + column_block, columns.end)};
          if (is_one_block) pack_b(block, block_columns, packed_b);
          const T* b = packed_b + (is_one_block ? 0 : panel_offset((column - columns.begin) / kGemmColumns<T>));
          LinePrefetch next = is_one_block ? next_b(block, columns, block_columns.end) : LinePrefetch{};
          const bool is_whole = block_columns.size() == problem.columns && finishes && is_last;
          run_block(block, block_rows, block_columns, copied_a, b, c, c_row, is_first, finishes, is_last, next,
                    is_whole ? &reporter : nullptr);
        }
        if (finishes && is_last && columns.size() == problem.columns) reporter.finished(block_rows.end);
      }
      d = block.end;
    } while (d < depth.end);
  }

  // Panels begin in different sets of the cache.
  int64_t panel_offset(int64_t panel) const { return panel * (depth_block * kGemmColumns<T> + kLanes<T>); }

  void pack_b(Range depth, Range columns, T* packed) const {
    const T* from = problem.b + depth.begin * problem.b_depth + columns.begin * problem.b_column;
    const int64_t panels = ceil_div(columns.size(), kGemmColumns<T>);
    if (problem.b_column == 1) {
      for (int64_t d = 0; d < depth.size(); ++d, from += problem.b_depth) {
        for (int64_t panel = 0; panel < panels; ++panel) {
          const int64_t column = panel * kGemmColumns<T>, width = panel_width(columns.size() - column);
          T* to = packed + panel_offset(panel) + d * width;
          for (int64_t v = 0; v < width; v += kLanes<T>) {
            store(to + v, load_partial(from + column + v, clamp(columns.size() - column - v, 0, kLanes<T>)));
          }
        }
      }
      return;
    }
    for (int64_t panel = 0; panel < panels; ++panel) {
      const int64_t column = panel * kGemmColumns<T>, width = panel_width(columns.size() - column);
      const int64_t count = min(width, columns.size() - column);
      T* to = packed + panel_offset(panel);
      if (count < width) __builtin_memset(to, 0, static_cast<size_t>(depth.size() * width) * sizeof(T));
      transpose<T>(from + column * problem.b_column, problem.b_column, count, depth.size(), to, width);
    }
  }

  // Of the panel that starts where so many columns are left.
  static int64_t panel_width(int64_t columns) { return columns > kLanes<T> ? kGemmColumns<T> : kLanes<T>; }

  // Copies of a keep its orientation: rows, some elements apart that are no multiple of a cache set, or
  // [tile][depth][rows].
  int64_t copied_row() const { return depth_block + kLanes<T>; }
  int64_t copied_tile() const { return kGemmRows * depth_block + kGemmColumns<T>; }
  int64_t a_block_size(int64_t rows) const {
    return problem.a_depth == 1 ? rows * copied_row() : ceil_div(rows, kGemmRows) * copied_tile();
  }

  void copy_a(Range depth, Range rows, T* to) const {
    const T* from = problem.a + rows.begin * problem.a_row + depth.begin * problem.a_depth;
    if (problem.a_depth == 1) {
      for (int64_t i = 0; i < rows.size(); ++i) {
        __builtin_memcpy(to + i * copied_row(), from + i * problem.a_row,
                         static_cast<size_t>(depth.size()) * sizeof(T));
      }
      return;
    }
    const int64_t tiles = ceil_div(rows.size(), kGemmRows);
    for (int64_t d = 0; d < depth.size(); ++d, from += problem.a_depth) {
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const Range part = tile_rows(rows.size(), tile);
        T* tile_to = to + tile * copied_tile() + d * kGemmRows;
        // The lanes beyond the tile are overwritten by the next step.
        for (int64_t i = part.begin; i < part.end; i += kLanes<T>) {
          store(tile_to + i - part.begin, load_partial(from + i, min(kLanes<T>, part.end - i)));
        }
      }
    }
  }

  // Tiles of a block have the same number of rows, give or take one.
  static Range tile_rows(int64_t rows, int64_t tile) {
    const int64_t tiles = ceil_div(rows, kGemmRows);
    return {tile * rows / tiles, (tile + 1) * rows / tiles};
  }

  void run_block(Range depth, Range rows, Range columns, const T* copied_a, const T* packed_b, T* c, int64_t c_row,
                 bool is_first, bool finishes, bool is_last, LinePrefetch& next, ProgressReporter* reporter) const {
    const int64_t tiles = ceil_div(rows.size(), kGemmRows), panels = ceil_div(columns.size(), kGemmColumns<T>);
    GemmTile<T> t{};
    t.depth = depth.size();
    t.c_row = c_row;
    t.streams = streams && finishes;
    t.next = &next;
    const bool fetches_b = next.count > 0;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const Range part = tile_rows(rows.size(), tile);
      set_a(t, depth, rows, tile, part, copied_a);
      if (!fetches_b) next = next_a(depth, rows, tile + 1);
      T* tile_c = c + (rows.begin + part.begin) * c_row + columns.begin;
      for (int64_t panel = 0; panel < panels; ++panel) {
        const int64_t column = panel * kGemmColumns<T>, width = panel_width(columns.size() - column);
        const int64_t count = min(width, columns.size() - column);
        T start[kGemmColumns<T>] = {};
        if (finishes && problem.bias != nullptr && is_first) {
          __builtin_memcpy(start, problem.bias + columns.begin + column, static_cast<size_t>(count) * sizeof(T));
        }
        t.b = packed_b + panel_offset(panel);
        t.b_depth = width;
        t.start = start;
        t.adds = !is_first;
        t.c = tile_c + column;
        t.last_lanes = count - (width - kLanes<T>);
        const int64_t calls = (fetches_b ? (tiles - tile) * panels : panels) - panel;
        t.share = next.share(calls, depth.size());
        gemm_function<T>(part.size(), width > kLanes<T>, problem.a_depth != 1)(t);
      }
      if (finishes && is_last) activate_rows(tile_c, c_row, part.size(), columns.size());
      if (reporter != nullptr) reporter->finished(rows.begin + part.end);
    }
  }

  // The block of b from column `column` on, as it lies in memory.
  LinePrefetch next_b(Range depth, Range columns, int64_t column) const {
    const int64_t count = min(column_block, columns.end - column);
    if (count <= 0) return {};
    const T* start = problem.b + depth.begin * problem.b_depth + column * problem.b_column;
    if (problem.b_column == 1) return LinePrefetch::of(start, count, depth.size(), problem.b_depth);
    return LinePrefetch::of(start, depth.size(), count, problem.b_column);
  }

  // A tile of rows of a that is read in place.
  LinePrefetch next_a(Range depth, Range rows, int64_t tile) const {
    if (copies_a || tile >= ceil_div(rows.size(), kGemmRows)) return {};
    const Range part = tile_rows(rows.size(), tile);
    const T* start = problem.a + (rows.begin + part.begin) * problem.a_row + depth.begin;
    return LinePrefetch::of(start, depth.size(), part.size(), problem.a_row);
  }

  void set_a(GemmTile<T>& t, Range depth, Range rows, int64_t tile, Range part, const T* copied) const {
    t.a_row = problem.a_row;
    t.a_depth = problem.a_depth;
    if (!copies_a) {
      t.a = problem.a + (rows.begin + part.begin) * problem.a_row + depth.begin * problem.a_depth;
    } else if (problem.a_depth == 1) {
      t.a = copied + part.begin * copied_row();
      t.a_row = copied_row();
    } else {
      t.a = copied + tile * copied_tile();
      t.a_depth = kGemmRows;
    }
  }

  void activate_rows(T* c, int64_t c_row, int64_t rows, int64_t columns) const {
    if (problem.activation == Activation::none) return;
    if (columns == c_row) {  // whole rows lie side by side
      activate(c, rows * columns, problem.activation);
      return;
    }
    for (int64_t i = 0; i < rows; ++i) activate(c + i * c_row, columns, problem.activation);
  }
};

// Few rows, and the depth of b contiguous: b is streamed column by column.
template <typename T>
bool is_for_dots(const Gemm<T>& problem) {
  const bool is_large = problem.columns * problem.depth * static_cast<int64_t>(sizeof(T)) >= kLargeBytes;
  return problem.rows <= (is_large ? 8 : 2) * kDotRows && problem.a_depth == 1 && problem.b_depth == 1;
}

// Few rows or little depth, and the columns of b contiguous.
template <typename T>
bool is_for_sums(const Gemm<T>& problem) {
  return problem.depth > 0 && problem.b_column == 1 && (problem.rows <= kSumRows || problem.depth <= kLittleDepth);
}

template <typename T>
void run_dots(const Driver<T>& driver) {
  const Gemm<T>& problem = driver.problem;
  parallel_for(0, problem.columns, max(1, kGrain / max(1, problem.rows * problem.depth)),
               [&](int64_t begin, int64_t end) {
                 multiply_by_dots(problem, begin, end);
                 driver.activate_rows(problem.c + begin, problem.c_row, problem.rows, end - begin);
               });
}

template <typename T>
void run_sums(const Driver<T>& driver) {
  const Gemm<T>& problem = driver.problem;
  if (problem.depth <= kLittleDepth) {
    parallel_for(0, problem.rows, max(1, kGrain / (problem.columns * problem.depth)), [&](int64_t begin, int64_t end) {
      if (driver.streams) {
        stream_sums(problem, begin, end);
        finish_streaming();
      } else {
        multiply_by_sums(problem, begin, end, 0, problem.columns);
      }
      driver.activate_rows(problem.c + begin * problem.c_row, problem.c_row, end - begin, problem.columns);
    });
    return;
  }
  const int64_t length = kSumBytes / static_cast<int64_t>(sizeof(T));
  const int64_t threads = clamp(problem.rows * problem.columns * problem.depth / kGrain, 1, max_threads());
  const int64_t parts = max(ceil_div(problem.columns, length), min(threads, ceil_div(problem.columns, kLanes<T>)));
  parallel_for(0, parts, ceil_div(parts, threads), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Range columns = part_of(problem.columns, kLanes<T>, parts, i);
      multiply_by_sums(problem, 0, problem.rows, columns.begin, columns.end);
      driver.activate_rows(problem.c + columns.begin, problem.c_row, problem.rows, columns.size());
    }
  });
}

template <typename T>
void multiply(const Gemm<T>& problem) {
  const Driver<T> driver(problem);
  if (is_for_dots(problem)) {
    run_dots(driver);
  } else if (is_for_sums(problem)) {
    run_sums(driver);
  } else {
    driver.run();
  }
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
