// Matrix products of float32 in the tiles of AMX (see float_parts.h), up to twice as fast as by multiply-adds.
//
// The parts of one operand, as many lines of it as fit into a share of the L2 cache, are packed first; the other one
// streams past them, 32 lines at a time. Tiles leave the vector registers nothing to do: while they multiply a block of
// 32 x 32 sums, the block before is finished, and the next lines are split.
// Threads: each computes a part of the rows, of the columns or, where c is small, of the depth; parts of the depth are
// added in their order: deterministic for a given number of threads.
// Sums that are not finite are computed anew by multiply-adds, which have infinities and NaN where they belong.
#include "kernels/cpu/cache.h"
#include "kernels/cpu/gemm_kernel.h"
#include "kernels/cpu/gemm_parts_finish.h"
#include "kernels/cpu/gemm_parts_pack.h"
#include "kernels/cpu/line_prefetch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/progress_reporter.h"
#include "kernels/cpu/ranges.h"
#include "kernels/cpu/workspace.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

constexpr int64_t kGrain = 1 << 19;        // multiply-adds worth a thread
constexpr int64_t kPackedBytes = 1 << 20;  // of the operand that is packed first
constexpr int64_t kMostDepth = 1024;       // of a block
constexpr int64_t kDepthOfMany = 256;      // where lines are too many for all of the depth
constexpr int64_t kFewTiles = 16;          // that stream: what they pass changes often
constexpr int64_t kFetchedBytes = 1200 << 10, kLeastDepth = 192, kMostDepthOfFew = 512;  // of a block with few tiles
constexpr int64_t kStepsAhead = 2;    // that are fetched before they are packed
constexpr int64_t kLeastSlice = 256;  // of the depth, worth a thread
constexpr int64_t kPartialSumBytes = int64_t{64} << 20;
constexpr int64_t kValueBytes = kParts * sizeof(uint16_t), kFloatBytes = sizeof(float);

// How many parts each axis is cut to.
struct Grid {
  int64_t rows, columns, depth;
};

// Where sums go: c, or a slice.
struct Result {
  float* data;
  int64_t row;
};

D2L_INLINE int64_t whole_lines(int64_t count) { return ceil_div(count, kLines) * kLines; }
D2L_INLINE int64_t whole_steps(int64_t depth) { return ceil_div(depth, kPartDepth) * kPartDepth; }

Lines rows_of(const Gemm<float>& p) { return {p.a, p.a_row, p.a_depth, true, p.a_depth != 1}; }
Lines columns_of(const Gemm<float>& p) { return {p.b, p.b_column, p.b_depth, false, p.b_column == 1}; }

// By multiply-adds.
void multiply_anew(const Gemm<float>& problem, Range rows, Range columns) {
  Gemm<float> part = problem;
  part.rows = rows.size();
  part.columns = columns.size();
  part.a += rows.begin * part.a_row;
  part.b += columns.begin * part.b_column;
  if (part.bias != nullptr) part.bias += columns.begin;
  part.c += rows.begin * part.c_row + columns.begin;
  part.progress = {};
  avx512::multiply(part);
}

// What goes on beside the products.
struct Background {
  Finisher finisher;
  TileSplit tile;                                         // the next of those that stream
  LinePrefetch packed{}, streamed{};                      // of the next block
  int64_t rows, tile_rows, packed_share, streamed_share;  // with each product

  __attribute__((noinline)) void run() {
    packed.fetch(min(packed_share, packed.count));
    streamed.fetch(min(streamed_share, streamed.count));
    finisher.run(rows);
    tile.run(tile_rows);
  }
};

template <bool kSecondRows, bool kSecondColumns>
void multiply_block(const PartOperands& operands, float* block, Background& background) {
  background.rows = ceil_div(kLines, kRoundsPerStep * operands.steps);
  finish_stores();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  multiply_parts<kSecondRows, kSecondColumns>(operands, [&]() D2L_INLINE_LAMBDA { background.run(); });
  store_sums<kSecondRows, kSecondColumns>(block, block + kTileHeight * kLines, kLines * sizeof(float));
  finish_stores();
}

// Some rows, columns and depth of a product, by one thread.
class Task {
 public:
  // Activates and reports what it `completes`.
  Task(const Gemm<float>& problem, Range rows, Range columns, Range depth, const Result& to, bool completes)
      : problem_(problem),
        rows_(rows),
        columns_(columns),
        depth_(depth),
        to_(to),
        completes_(completes),
        streams_columns_(problem.progress.report == nullptr && are_columns_to_stream()),
        packed_(streams_columns_ ? rows : columns),
        streamed_(streams_columns_ ? columns : rows),
        packed_lines_(streams_columns_ ? rows_of(problem) : columns_of(problem)),
        streamed_lines_(streams_columns_ ? columns_of(problem) : rows_of(problem)),
        reporter_(problem.progress, rows.begin) {
    choose_blocks();
  }

  void run() {
    panels_ = static_cast<uint16_t*>(
        workspace(Workspace::parts, (packed_size_ / kLines + 2) * tile_size_ * static_cast<int64_t>(sizeof(uint16_t))));
    registers_.shape(kTileHeight, kTileHeight, kTilePairs);
    for (int64_t i = 0; i < depth_blocks_ * packed_blocks_; ++i) run_block(i);
    registers_.release();
    if (streams_results()) finish_streaming();
  }

 private:
  // Lines of the operand that is packed first, and of the depth.
  struct Block {
    Range packed, depth;
  };

  // The longer operand; of two that are packed in several blocks, the one that is not transposed while it streams past
  // each of them.
  bool are_columns_to_stream() const {
    const bool transposes_rows = problem_.a_depth != 1, transposes_columns = problem_.b_column != 1;
    const bool are_many =
        min(rows_.size(), columns_.size()) * min(depth_.size(), kDepthOfMany) * kValueBytes > kPackedBytes;
    if (are_many && transposes_rows != transposes_columns) return transposes_rows;
    return rows_.size() < columns_.size();
  }

  void choose_blocks() {
    const bool all_fit = whole_lines(packed_.size()) * depth_.size() * kValueBytes <= kPackedBytes;
    int64_t most_depth = all_fit ? kMostDepth : kDepthOfMany;
    if (has_few_tiles()) {
      const int64_t bytes = 2 * (packed_.size() * kValueBytes + (rows_.size() + columns_.size()) * kFloatBytes);
      most_depth = clamp(kFetchedBytes / bytes / kPartDepth * kPartDepth, kLeastDepth, kMostDepthOfFew);
    }
    depth_size_ = whole_steps(ceil_div(depth_.size(), ceil_div(depth_.size(), most_depth)));
    depth_blocks_ = ceil_div(depth_.size(), depth_size_);
    const int64_t most_lines = max(1, kPackedBytes / (depth_size_ * kValueBytes * kLines)) * kLines;
    packed_size_ = whole_lines(ceil_div(packed_.size(), ceil_div(packed_.size(), most_lines)));
    packed_blocks_ = ceil_div(packed_.size(), packed_size_);
    tile_size_ = kLines * kParts * depth_size_;
  }

  // The depth changes last, so that the packed operand is read once.
  Block block_at(int64_t index) const {
    const int64_t line = packed_.begin + index % packed_blocks_ * packed_size_;
    const int64_t depth = depth_.begin + index / packed_blocks_ * depth_size_;
    return {{line, min(line + packed_size_, packed_.end)}, {depth, min(depth + depth_size_, depth_.end)}};
  }

  static Range tile_of(Range lines, int64_t tile) {
    return {lines.begin + tile * kLines, min(lines.begin + (tile + 1) * kLines, lines.end)};
  }

  // Then the next block is fetched meanwhile.
  bool has_few_tiles() const { return streamed_.size() <= kFewTiles * kLines; }

  void start_tile(const Block& block, int64_t index) {
    const Range lines = tile_of(streamed_, index);
    background_.tile.start(streamed_lines_.at(lines.begin, block.depth.begin), lines.size(), block.depth.size(),
                           kLines * streamed_lines_.line, parts_of_tile(index));
  }

  // Two take turns.
  uint16_t* parts_of_tile(int64_t index) const { return panels_ + (packed_size_ / kLines + index % 2) * tile_size_; }

  void pack_panels(const Block& block) {
    for (int64_t i = 0; i * kLines < block.packed.size(); ++i) {
      const Range lines = tile_of(block.packed, i);
      background_.tile.start(packed_lines_.at(lines.begin, block.depth.begin), lines.size(), block.depth.size(),
                             kStepsAhead * kPartDepth * packed_lines_.depth, panels_ + i * tile_size_);
      background_.tile.finish();
    }
  }

  // While so many products are computed.
  void start_fetching(const Block& block, int64_t products) {
    LinePrefetch &packed = background_.packed, &streamed = background_.streamed;
    packed = packed_lines_.at(block.packed.begin, block.depth.begin).fetched(block.packed.size(), block.depth.size());
    streamed = streamed_lines_.at(streamed_.begin, block.depth.begin).fetched(streamed_.size(), block.depth.size());
    background_.packed_share = ceil_div(packed.count, products);
    background_.streamed_share = ceil_div(streamed.count, products);
  }

  void run_block(int64_t index) {
    const Block block = block_at(index);
    const int64_t steps = ceil_div(block.depth.size(), kPartDepth), tiles = ceil_div(streamed_.size(), kLines);
    const int64_t panels = ceil_div(block.packed.size(), kLines), products = panels * steps * kRoundsPerStep;
    pack_panels(block);
    start_tile(block, 0);
    background_.tile.finish();
    const bool is_last = index + 1 == depth_blocks_ * packed_blocks_;
    if (has_few_tiles() && !is_last) start_fetching(block_at(index + 1), tiles * products);
    int64_t finished = 0;
    const auto finish = [&]() {
      if (background_.finisher.finish()) finish_tile(block, finished++);
    };
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const uint16_t* const current = parts_of_tile(tile);
      if (tile + 1 < tiles) start_tile(block, tile + 1);
      background_.tile_rows = ceil_div(background_.tile.rows(), products);
      for (int64_t panel = 0; panel < panels; ++panel) {
        const uint16_t* const other = panels_ + panel * tile_size_;
        const Range own = tile_of(block.packed, panel), streamed = tile_of(streamed_, tile);
        const Range rows = streams_columns_ ? own : streamed, columns = streams_columns_ ? streamed : own;
        multiply({streams_columns_ ? other : current, streams_columns_ ? current : other, kLines, steps},
                 finish_of(block, rows, columns, panel + 1 == panels));
        finish();
        background_.finisher.wait();
      }
      background_.tile.finish();
    }
    finish();
  }

  void multiply(const PartOperands& operands, const Finish& finish) {
    float* const block = background_.finisher.free_block(finish);
    const bool second_columns = finish.columns > kHalfLines;
    if (finish.rows > kHalfLines) {
      second_columns ? multiply_block<true, true>(operands, block, background_)
                     : multiply_block<true, false>(operands, block, background_);
    } else {
      second_columns ? multiply_block<false, true>(operands, block, background_)
                     : multiply_block<false, false>(operands, block, background_);
    }
  }

  bool completes(const Block& block) const { return completes_ && block.depth.end == depth_.end; }

  Finish finish_of(const Block& block, Range rows, Range columns, bool is_last_of_tile) const {
    const bool is_first = block.depth.begin == depth_.begin;
    return {to_.data + rows.begin * to_.row + columns.begin,
            to_.row,
            rows.size(),
            columns.size(),
            completes_ && is_first && problem_.bias != nullptr ? problem_.bias + columns.begin : nullptr,
            !is_first,
            streams_results(),
            completes(block) ? problem_.activation : Activation::none,
            is_last_of_tile};
  }

  // Whether so large a result, aligned to whole registers, is to be written past the cache.
  bool streams_results() const {
    const Gemm<float>& p = problem_;
    return completes_ && depth_blocks_ == 1 && p.progress.report == nullptr &&
           p.rows * p.columns * static_cast<int64_t>(sizeof(float)) >= kStreamedBytes &&
           p.columns % kLanes<float> == 0 && p.c_row % kLanes<float> == 0 &&
           reinterpret_cast<uintptr_t>(p.c) % kVectorBytes == 0;
  }

  void finish_tile(const Block& block, int64_t tile) {
    const Range streamed = tile_of(streamed_, tile);
    const bool was_finite = background_.finisher.was_finite();
    if (!completes(block)) return;  // what is not finite stays so
    if (!was_finite) {
      if (streams_results()) finish_streaming();
      multiply_anew(problem_, streams_columns_ ? block.packed : streamed, streams_columns_ ? streamed : block.packed);
    }
    const bool are_whole_rows = block.packed.end == packed_.end && columns_.size() == problem_.columns;
    if (!streams_columns_ && are_whole_rows) reporter_.finished(streamed.end);
  }

  const Gemm<float>& problem_;
  const Range rows_, columns_, depth_;
  const Result to_;
  const bool completes_, streams_columns_;
  const Range packed_, streamed_;
  const Lines packed_lines_, streamed_lines_;
  ProgressReporter reporter_;
  int64_t depth_size_, depth_blocks_, packed_size_, packed_blocks_;  // of the blocks
  int64_t tile_size_;                                                // of the parts of 32 lines
  uint16_t* panels_ = nullptr;
  Background background_;
  TileRegisters registers_;
};

struct Driver {
  const Gemm<float>& problem;
  Grid grid;

  explicit Driver(const Gemm<float>& p) : problem(p), grid(choose_grid()) {}

  // The parts whose slowest thread has the least to do: tiles to compute, elements to pack and to read.
  Grid choose_grid() const {
    const int64_t threads = clamp(problem.rows * problem.columns * problem.depth / kGrain, 1, max_threads());
    const int64_t rows = ceil_div(problem.rows, kLines), columns = ceil_div(problem.columns, kLines);
    const int64_t c_bytes = problem.rows * problem.columns * static_cast<int64_t>(sizeof(float));
    Grid best{1, 1, 1};
    double least = 0;
    for (int64_t depth = 1; depth <= threads; ++depth) {
      if (depth > 1 && (depth * c_bytes > kPartialSumBytes || problem.depth < kLeastSlice * depth)) break;
      for (int64_t column = 1; column <= min(threads / depth, columns); ++column) {
        const int64_t row = min(threads / (depth * column), rows);
        const double r = static_cast<double>(ceil_div(rows, row) * kLines);
        const double c = static_cast<double>(ceil_div(columns, column) * kLines);
        const double d = static_cast<double>(ceil_div(problem.depth, depth));
        const double slices = depth > 1 ? 2.0 * static_cast<double>(problem.rows * problem.columns) : 0;
        const double cost = r * c * d / 64 + (r + c) * d + slices;
        if (least == 0 || cost < least) {
          least = cost;
          best = {row, column, depth};
        }
      }
    }
    return best;
  }

  void run() const {
    if (grid.depth == 1) {
      run_tasks([&](int64_t) { return Result{problem.c, problem.c_row}; });
      return;
    }
    const int64_t row = whole_lines(problem.columns), slice = problem.rows * row;
    float* const slices =
        static_cast<float*>(workspace(Workspace::call, grid.depth * slice * static_cast<int64_t>(sizeof(float))));
    run_tasks([&](int64_t depth) { return Result{slices + depth * slice, row}; });
    bool are_finite = true;
    parallel_for(0, problem.rows, max(1, kGrain / 16 / row), [&](int64_t begin, int64_t end) {
      vec_t<float> check{};
      for (int64_t i = begin; i < end; ++i) check += add_slices(slices + i * row, slice, i);
      if (!is_finite(check)) __atomic_store_n(&are_finite, false, __ATOMIC_RELAXED);
    });
    if (!are_finite) multiply_anew(problem, {0, problem.rows}, {0, problem.columns});  // may take their memory
    trim_workspace(Workspace::call);
  }

  // Each writes what result(its part of the depth) is.
  template <typename ResultOf>
  void run_tasks(ResultOf&& result) const {
    parallel_for(0, grid.rows * grid.columns * grid.depth, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t index = task / grid.columns, of_depth = index / grid.rows;
        const Range columns = part_of(problem.columns, kLines, grid.columns, task % grid.columns);
        const Range rows = part_of(problem.rows, kLines, grid.rows, index % grid.rows);
        const Range depth = part_of(problem.depth, kPartDepth, grid.depth, of_depth);
        if (rows.size() == 0 || columns.size() == 0) continue;
        Task(problem, rows, columns, depth, result(of_depth), grid.depth == 1).run();
      }
      trim_workspace(Workspace::parts);
    });
  }

  // The sum of a row; what it returns is not finite where that is not.
  vec_t<float> add_slices(const float* slices, int64_t slice, int64_t row) const {
    float* const to = problem.c + row * problem.c_row;
    vec_t<float> check{};
    for (int64_t j = 0; j < problem.columns; j += kLanes<float>) {
      const int64_t lanes = min(kLanes<float>, problem.columns - j);
      vec_t<float> sum = problem.bias == nullptr ? vec_t<float>{} : load_partial(problem.bias + j, lanes);
      for (int64_t i = 0; i < grid.depth; ++i) sum += load_partial(slices + i * slice + j, lanes);
      check += sum * 0.0f;
      store_partial(to + j, sum, lanes);
    }
    activate(to, problem.columns, problem.activation);
    return check;
  }
};

}  // namespace

void multiply_by_parts(const Gemm<float>& problem) { Driver(problem).run(); }

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
