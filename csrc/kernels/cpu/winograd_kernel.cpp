// Cross-correlation with 3x3 or 5x5 taps and its input gradient by Winograd's minimal filtering, for one instruction
// set.
//
//   result tile = A^T [ sum_d (G weight[d, k] G^T) * (B^T source tile[d] B) ] A + bias[k]
//
// n x n input pixels give m x m results of r x r taps (n = m + r - 1): n^2 multiply-adds per channel pair instead of
// (m r)^2, done as n^2 matrix products of tiles x depth by depth x width in the register tile of winograd_product.h:
// 2.25x (m = 2), 3.24x (m = 3), 4x (m = 4) or 5.06x (m = 6) fewer for 3x3 taps, 2.78x (m = 2) or 6.25x (m = 4) for 5x5.
// With stride 2 the taps that meet even pixels make an F(m, 2), the others are multiplied as they are: 1.65x (m = 3).
// Transforms are vectors over channels; the bias and a ReLU are applied in the output transform, which stores to the
// result, other activations to the row of tiles that it has just written. Each tile reads (n / m)^2 of its share of the
// source; the result is written once.
//
// Threads: either a task is a block of tiles, position by position, so that what is multiplied stays in the L2 cache,
// and all need the transformed weights; or, where the weights are the larger part, a task is one or two vectors of
// result channels, whose transformed weights never reach memory, and all need the transformed pixels. What all need
// every thread transforms for itself if that is little work: see has_own_copy in winograd_tiles.h. Sums are float; the
// order depends on shapes alone: deterministic. conv2d_algorithm.h has the error. With AMX, tasks of many tiles
// multiply plane by plane: see winograd_parts.h.
#include "kernels/cpu/winograd_kernel.h"

#include <limits>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/progress_reporter.h"
#include "kernels/cpu/winograd_parts.h"
#include "kernels/cpu/winograd_product.h"
#include "kernels/cpu/winograd_tiles.h"
#include "kernels/cpu/workspace.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

constexpr int64_t kTaskBytes = 768 << 10;  // transformed pixels and products of a task
// Tiles of a task. A few keep the transformed pixels in the L2 cache, past which the weights stream from the L3 cache;
// weights that come from memory need many tiles.
constexpr int64_t kFewTiles = 28;
constexpr int64_t kLeastTiles = 4;  // by two vectors: as many sums as the multiply units have under way
constexpr int64_t kManyTiles = 252;
constexpr int64_t kCachedWeightBytes = int64_t{16} << 20;
constexpr int64_t kSharedPixelBytes = int64_t{48} << 20;
constexpr int64_t kGrain = 1 << 18;        // multiply-adds
constexpr int64_t kCyclesPerLine = 16;     // of the memory: what is fetched faster keeps the products waiting
constexpr int64_t kWeightGrain = 1 << 17;  // transformed weights, about 10 us

D2L_INLINE int64_t bytes_of(int64_t elements) { return elements * static_cast<int64_t>(sizeof(float)); }

// Transformed weights of a block: [depth][width]
struct VectorWeights {
  static constexpr int64_t kStep = 1;  // in which the depth may be cut
  static int64_t size(int64_t depth, int64_t width) { return depth * width; }

  // From [tap][depth][width], to planes that lie `plane` apart.
  template <typename Taps>
  static void transform(const float* packed, int64_t depth, int64_t width, float* to, int64_t plane) {
    constexpr int kTaps = Taps::kIn * Taps::kIn;
    const float* taps[kTaps];
    for (int i = 0; i < kTaps; ++i) taps[i] = packed + i * depth * width;
    transform_tile<Taps>(taps, depth * width, 0, {to, plane, kBlock, depth * width});
  }
};

// Weights is VectorWeights, or PartWeights of winograd_parts.h.
template <typename Scheme, typename Weights>
struct Driver {
  using Inputs = typename Scheme::Inputs;
  using Taps = typename Scheme::Taps;
  using Outputs = typename Scheme::Outputs;
  static constexpr int M = Outputs::kOut, kTaps = Taps::kIn;
  static constexpr int kSize = Inputs::kOut;
  static constexpr int kPlanes = kSize * kSize;
  // Channels summed up from zero before they are added to the others: short sums are more accurate than a long one, and
  // the weights of as many channels stay in the L1 cache.
  static constexpr int64_t kSumDepth = kSize == 8 ? 32 : 128;

  const Correlation<float>& problem;
  PackedLayout<float> packing;  // of the weights, before they are transformed
  Map<const float> source;
  TileGrid grid;

  explicit Driver(const Correlation<float>& p)
      : problem(p),
        packing{p.depth,
                p.width,
                tap_order(p.rows, p.transposed),
                tap_order(p.columns, p.transposed),
                p.weight_depth,
                p.weight_width,
                p.weight_row,
                p.weight_column},
        source{p.source, p.source_layout, p.rows.source, p.columns.source, p.source_channels, 0, p.depth},
        grid{p.images,      ceil_div(p.rows.result, M),         ceil_div(p.columns.result, M),
             Scheme::kStep, first_source(p.rows, p.transposed), first_source(p.columns, p.transposed)} {}

  // Of the first tile. Transposed with a stride the padding is one.
  static int64_t first_source(const CorrelationAxis& axis, bool transposed) {
    return transposed ? (axis.stride == 1 ? axis.pad - (kTaps - 1) : 0) : -axis.pad;
  }

  // Transformed pixels: [plane][tile][pixel_stride]. A tile's channels a multiple of 2 KB apart would compete for a few
  // sets of the L1 cache.
  int64_t pixel_stride() const {
    const int64_t stride = ceil_div(problem.depth, kLanes<float>) * kLanes<float>;
    return stride % 512 == 0 ? stride + kLineElements : stride;
  }
  int64_t pixel_plane(int64_t tiles) const { return plane_stride(tiles * pixel_stride()); }
  TransformedTiles pixels_at(float* data, int64_t tiles) const {
    return {data, pixel_plane(tiles), kBlock, pixel_stride()};
  }

  // Result channels [begin, end), of one or two vectors.
  struct Channels {
    int64_t begin, end;
    int64_t size() const { return end - begin; }
    int64_t width() const { return size() > kLanes<float> ? kBlock : kLanes<float>; }  // filled up to whole vectors
  };
  int64_t blocks() const { return packing.blocks(); }
  Channels block(int64_t i) const { return {i * kBlock, min(problem.width, (i + 1) * kBlock)}; }

  // Transformed weights of some channels, for all source channels or a piece of them: [plane], in each Weights
  static int64_t weight_plane(Channels channels, int64_t depth) {
    return plane_stride(Weights::size(depth, channels.width()));
  }
  int64_t weight_block(int64_t depth) const { return kPlanes * weight_plane(block(0), depth); }
  // Products of tiles and a block: [plane][tile][channels of the block]
  static int64_t product_plane(int64_t tiles) { return plane_stride(tiles * kBlock); }

  // Source channels [begin, end).
  struct Depth {
    int64_t begin, end;
    int64_t size() const { return end - begin; }
  };
  Depth whole_depth() const { return {0, problem.depth}; }
  // In steps of the weights.
  int64_t steps() const { return ceil_div(problem.depth, Weights::kStep); }
  Depth steps_of_depth(int64_t begin, int64_t end) const {
    return {begin * Weights::kStep, min(end * Weights::kStep, problem.depth)};
  }

  int64_t taps_size(int64_t depth) const { return strip_elements<float>(kTaps * kTaps * depth * kBlock); }
  // `to` is the place of the first channel of `depth`, in planes that lie `plane` apart.
  void transform_weights(Channels channels, Depth depth, float* scratch, float* to, int64_t plane) const {
    PackedLayout<float> piece = packing;
    piece.depth = depth.size();
    piece.width = channels.size();
    pack_block(piece, problem.weight + depth.begin * problem.weight_depth + channels.begin * problem.weight_width, 0,
               scratch);
    Weights::template transform<Taps>(scratch, depth.size(), channels.width(), to, plane);
  }

  // The same weights as they lie in memory, or nothing where they are scattered.
  LinePrefetch lines_of(Channels channels, Depth depth) const {
    constexpr int64_t kAllTaps = kTaps * kTaps;
    const float* start = problem.weight + depth.begin * problem.weight_depth + channels.begin * problem.weight_width;
    const bool depth_inside = problem.weight_depth < problem.weight_width;
    const int64_t inner = depth_inside ? depth.size() : channels.size();
    const int64_t outer = depth_inside ? channels.size() : depth.size();
    const int64_t inner_stride = min(problem.weight_depth, problem.weight_width);
    const int64_t outer_stride = max(problem.weight_depth, problem.weight_width), tap = problem.weight_column;
    if (problem.weight_row != kTaps * tap) return {};
    if (inner_stride == 1 && outer_stride == kAllTaps * tap) {
      return LinePrefetch::of(start, inner, outer * kAllTaps, tap);
    }
    if (tap == 1 && inner_stride == kAllTaps) return LinePrefetch::of(start, inner * kAllTaps, outer, outer_stride);
    return {};
  }

  // Some tiles times some channels.
  struct Products {
    const float* pixels;
    int64_t pixel_plane;
    const float* weights;  // for `depth`
    Depth depth;
    float* products;
    int64_t product_plane;
    int64_t first_tile, tiles;
    Channels channels;
  };

  // `next` is fetched on the way.
  void multiply(const Products& m, LinePrefetch& next) const {
    const int64_t pieces = ceil_div(m.tiles, kTilePixels), width = m.channels.width();
    int64_t calls = kPlanes * ceil_div(m.depth.size(), kSumDepth) * pieces;
    ProductArguments t{};
    t.next = &next;
    t.pixel_stride = pixel_stride();
    t.product_stride = kBlock;
    for (int64_t p = 0; p < kPlanes; ++p) {
      const float* weights = m.weights + p * weight_plane(m.channels, m.depth.size());
      for (int64_t d = m.depth.begin; d < m.depth.end; d += kSumDepth) {
        t.depth = min(kSumDepth, m.depth.end - d);
        t.weights = weights + (d - m.depth.begin) * width;
        t.fresh = d == 0;
        for (int64_t i = 0; i < pieces; ++i) {
          const int64_t first = i * m.tiles / pieces, end = (i + 1) * m.tiles / pieces;
          t.pixels = m.pixels + p * m.pixel_plane + first * pixel_stride() + d;
          t.products = m.products + p * m.product_plane + first * kBlock;
          t.share = min(next.share(calls--, t.depth), (end - first) * t.depth / kCyclesPerLine);
          product_function(end - first, width > kLanes<float>)(t);
        }
      }
    }
  }

  // A tile's products to rows x columns pixels of the result.
  void transform_products(const float* products, int64_t plane, const float* bias, int64_t channels, float* to,
                          int64_t row_stride, int64_t pixel_stride, int64_t rows, int64_t columns) const {
    const Floats floor =
        broadcast(problem.activation == Activation::relu ? 0.0f : -std::numeric_limits<float>::infinity());
    for (int64_t lane = 0; lane < channels; lane += kLanes<float>) {
      const int64_t lanes = min(channels - lane, kLanes<float>);
      const Floats offset = bias != nullptr ? load_partial(bias + lane, lanes) : Floats{};
      const auto get = [&](int i, int j) D2L_INLINE_LAMBDA { return load(products + (i * kSize + j) * plane + lane); };
      // NaN stays NaN.
      const auto finish = [&](Floats value) D2L_INLINE_LAMBDA {
        value += offset;
        return value < floor ? floor : value;
      };
      const auto put = [&](int i, int j, Floats value) D2L_INLINE_LAMBDA {
        float* pixel = to + i * row_stride + j * pixel_stride + lane;
        __builtin_prefetch(pixel + M * pixel_stride, 1);  // of the next tile
        store(pixel, finish(value));
      };
      const auto put_part = [&](int i, int j, Floats value) D2L_INLINE_LAMBDA {
        if (i < rows && j < columns) store_partial(to + i * row_stride + j * pixel_stride + lane, finish(value), lanes);
      };
      if (rows == M && columns == M && lanes == kLanes<float>) {
        transform_2d<Outputs>(get, put);
      } else {
        transform_2d<Outputs>(get, put_part);
      }
    }
  }

  // What transform_products leaves, for a row of tiles.
  void activate_run(float* to, int64_t row_stride, int64_t pixel_stride, int64_t rows, int64_t columns,
                    int64_t channels) const {
    if (problem.activation == Activation::none || problem.activation == Activation::relu) return;
    const int64_t runs = channels == pixel_stride ? 1 : columns;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < runs; ++i) {
        activate(to + r * row_stride + i * pixel_stride, columns / runs * channels, problem.activation);
      }
    }
  }

  // Tiles whose results go through a strip to a map in NCHW.
  int64_t longest_run() const {
    if (problem.result_layout == Layout::nhwc) return grid.columns;
    return clamp(kTileStripBytes / bytes_of(M * M * kBlock), 1, grid.columns);
  }
  int64_t result_scratch() const { return problem.result_layout == Layout::nhwc ? 0 : longest_run() * M * M * kBlock; }

  int64_t scratch_size() const { return max(transform_scratch(source, grid, Inputs::kIn), result_scratch()); }

  void transform_results(const Products& m, float* strip) const {
    const int64_t first_channel = m.channels.begin, channels = m.channels.size();
    const float* bias = problem.bias == nullptr ? nullptr : problem.bias + first_channel;
    const int64_t map_rows = problem.rows.result, map_columns = problem.columns.result;
    const bool nhwc = problem.result_layout == Layout::nhwc;
    const int64_t end = m.first_tile + m.tiles;
    for_each_tile_run(grid, m.first_tile, end, longest_run(), [&](const TileRun& run) {
      const int64_t row = run.row * M, rows = min(M, map_rows - row);
      const int64_t column = run.column * M, columns = min(run.count * M, map_columns - column);
      float* image = problem.result + run.image * map_rows * map_columns * problem.result_channels;
      const int64_t pixel = nhwc ? problem.result_channels : kBlock;
      const int64_t row_stride = (nhwc ? map_columns : run.count * M) * pixel;
      float* to = nhwc ? image + (row * map_columns + column) * pixel + first_channel : strip;
      for (int64_t i = 0; i < run.count; ++i) {
        transform_products(m.products + (run.tile - m.first_tile + i) * kBlock, m.product_plane, bias, channels,
                           to + i * M * pixel, row_stride, pixel, rows, min(M, columns - i * M));
      }
      activate_run(to, row_stride, pixel, rows, columns, channels);
      if (nhwc) return;
      const int64_t plane = map_rows * map_columns;
      for (int64_t r = 0; r < rows; ++r) {
        transpose<float>(static_cast<const float*>(strip) + r * row_stride, pixel, columns, channels,
                         image + first_channel * plane + (row + r) * map_columns + column, plane);
      }
    });
  }

  bool splits_channels() const {
    const int64_t pixels = bytes_of(kPlanes * pixel_plane(grid.count()));
    return pixels <= kSharedPixelBytes && pixels < bytes_of(blocks() * weight_block(problem.depth)) / 2;
  }

  int64_t vectors() const { return ceil_div(problem.width, kLanes<float>); }

  // The work of the steps, in cycles per position and channel of the source.
  int64_t weight_work() const { return 3 * vectors(); }
  int64_t all_work() const { return pixel_work(grid.count()) + weight_work() + grid.count() * vectors() / 2; }

  void run() const {
    if (splits_channels()) {
      run_blocks_of_channels();
    } else {
      run_blocks_of_tiles();
    }
  }

  // The parts [begin, end) of all transformed weights, `parts` of the channels of the source for each block.
  void transform_parts(int64_t begin, int64_t end, int64_t parts, float* weights) const {
    const int64_t longest = ceil_div(steps(), parts) * Weights::kStep;
    float* taps = static_cast<float*>(workspace(Workspace::task, bytes_of(taps_size(longest))));
    for (int64_t i = begin; i < end; ++i) {
      const Channels channels = block(i / parts);
      const Depth depth = steps_of_depth(i % parts * steps() / parts, (i % parts + 1) * steps() / parts);
      float* to = weights + i / parts * weight_block(problem.depth) + Weights::size(depth.begin, channels.width());
      transform_weights(channels, depth, taps, to, weight_plane(channels, problem.depth));
    }
    trim_workspace(Workspace::task);
  }

  float* transformed_weights(bool by_all_threads) const {
    void* weights = workspace(Workspace::call, bytes_of(blocks() * weight_block(problem.depth)));
    const int64_t block_work = kPlanes * problem.depth * kBlock;
    const int64_t most = by_all_threads ? clamp(block_work / kWeightGrain, 1, steps()) : 1;
    const int64_t parts = clamp(ceil_div(max_threads(), blocks()), 1, most);
    const auto transform = [&](int64_t begin, int64_t end) {
      transform_parts(begin, end, parts, static_cast<float*>(weights));
    };
    if (by_all_threads) {
      parallel_for(0, blocks() * parts, max(1, kWeightGrain * parts / block_work), transform);
    } else {
      transform(0, blocks());
    }
    return static_cast<float*>(weights);
  }

  // Tiles of a task, `most` of them or fewer.
  int64_t tiles_of_task(int64_t most) const {
    const int64_t tasks = ceil_div(ceil_div(grid.count(), most), max_threads()) * max_threads();
    return clamp(ceil_div(grid.count(), tasks), min(kLeastTiles, most), most);
  }

  // Calls compute(first tile, count, weights, buffer) for all tiles, some at a time; `size` is that of the buffer.
  template <typename Compute>
  void for_blocks_of_tiles(int64_t tiles, int64_t size, Compute&& compute) const {
    const int64_t all = grid.count();
    const bool own = has_own_copy(bytes_of(blocks() * weight_block(problem.depth)), weight_work(), all_work());
    const float* shared = own ? nullptr : transformed_weights(true);
    const int64_t multiply_adds = kPlanes * tiles * problem.depth * problem.width;
    parallel_for(0, ceil_div(all, tiles), max(1, kGrain / multiply_adds), [&](int64_t begin, int64_t end) {
      const float* weights = own ? transformed_weights(false) : shared;
      float* buffer = static_cast<float*>(workspace(Workspace::task, bytes_of(size)));
      ProgressReporter reporter(problem.progress, pixels_before(ceil_div(begin * tiles, grid.columns) * grid.columns));
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = task * tiles, count = min(tiles, all - first);
        compute(first, count, weights, buffer);
        reporter.finished(pixels_before(first + count));
      }
      trim_workspace(Workspace::task);
    });
    trim_workspace(Workspace::call);
  }

  void run_blocks_of_tiles() const {
    const int64_t weight_size = weight_block(problem.depth);
    const bool is_cached = bytes_of(blocks() * weight_size) <= kCachedWeightBytes;
    const int64_t tiles = tiles_of_task(min(grid.count(), is_cached ? kFewTiles : kManyTiles));
    const int64_t pixel_size = kPlanes * pixel_plane(tiles), product_size = kPlanes * product_plane(tiles);
    const auto compute = [&](int64_t first, int64_t count, const float* weights, float* pixels) {
      float* products = pixels + pixel_size;
      float* rest = products + product_size;
      transform_tiles<Inputs>(source, grid, first, first + count, rest, pixels_at(pixels, tiles), 0);
      for (int64_t b = 0; b < blocks(); ++b) {
        const Products m{pixels,
                         pixel_plane(tiles),
                         weights + b * weight_size,
                         whole_depth(),
                         products,
                         product_plane(tiles),
                         first,
                         count,
                         block(b)};
        LinePrefetch nothing{};
        multiply(m, nothing);
        transform_results(m, rest);
      }
    };
    for_blocks_of_tiles(tiles, pixel_size + product_size + scratch_size(), compute);
  }

  // Pixels of the result, counted over all images, in the whole rows of tiles before this tile.
  int64_t pixels_before(int64_t tile) const {
    const int64_t row = tile / grid.columns;
    const int64_t map_row = row / grid.rows * problem.rows.result + min(row % grid.rows * M, problem.rows.result);
    return map_row * problem.columns.result;
  }

  float* transformed_pixels(bool by_all_threads) const {
    const int64_t all = grid.count();
    float* pixels = static_cast<float*>(workspace(Workspace::call, bytes_of(kPlanes * pixel_plane(all))));
    const auto transform = [&](int64_t begin, int64_t end) {
      float* scratch = static_cast<float*>(workspace(Workspace::task, bytes_of(scratch_size())));
      transform_tiles<Inputs>(source, grid, begin, end, scratch, pixels_at(pixels, all), begin);
      trim_workspace(Workspace::task);
    };
    if (by_all_threads) {
      parallel_for(0, all, max(1, kGrain / 8 / (kPlanes * problem.depth)), transform);
    } else {
      transform(0, all);
    }
    return pixels;
  }

  Channels part_of_channels(int64_t group, int64_t groups) const {
    return {group * vectors() / groups * kLanes<float>,
            min(problem.width, (group + 1) * vectors() / groups * kLanes<float>)};
  }

  void run_blocks_of_channels() const {
    const int64_t all = grid.count(), threads = max_threads();
    const bool own = has_own_copy(bytes_of(kPlanes * pixel_plane(all)), pixel_work(all), all_work());
    const float* shared = own ? nullptr : transformed_pixels(true);
    const int64_t most = max(kFewTiles, kTaskBytes / 2 / bytes_of(kPlanes * kBlock) / kTilePixels * kTilePixels);
    const int64_t tile_blocks = ceil_div(all, most), tiles = ceil_div(all, tile_blocks);
    // A task has one vector of channels instead of two where that gives all threads the same number of vectors.
    const int64_t groups = min(vectors(), ceil_div(blocks(), threads) * threads);
    const int64_t parts = clamp(ceil_div(threads, groups), 1, tile_blocks);
    const int64_t product_size = kPlanes * product_plane(tiles);
    // One block of tiles meets the weights of a sum while they are in the L2 cache; others, all of them.
    const int64_t piece = tile_blocks == 1 ? min(problem.depth, kSumDepth) : problem.depth;
    parallel_for(0, groups * parts, 1, [&](int64_t begin, int64_t end) {
      const float* pixels = own ? transformed_pixels(false) : shared;
      float* taps = static_cast<float*>(
          workspace(Workspace::task, bytes_of(taps_size(piece) + weight_block(piece) + product_size + scratch_size())));
      float* weights = taps + taps_size(piece);
      float* products = weights + weight_block(piece);
      float* rest = products + product_size;
      for (int64_t task = begin; task < end; ++task) {
        const int64_t group = task / parts, part = task % parts;
        const Channels channels = part_of_channels(group, groups);
        for (int64_t d = 0; d < problem.depth; d += piece) {
          const Depth depth{d, min(d + piece, problem.depth)};
          transform_weights(channels, depth, taps, weights, weight_plane(channels, depth.size()));
          LinePrefetch next{};  // a whole depth would have left the L2 cache before it is needed
          if (depth.end < problem.depth) {
            next = lines_of(channels, {depth.end, min(depth.end + piece, problem.depth)});
          } else if (tile_blocks == 1 && task + 1 < end) {
            next = lines_of(part_of_channels(task + 1, groups), {0, piece});
          }
          for (int64_t i = part * tile_blocks / parts; i < (part + 1) * tile_blocks / parts; ++i) {
            const int64_t first = i * all / tile_blocks, last = (i + 1) * all / tile_blocks;
            const Products m{pixels + first * pixel_stride(),
                             pixel_plane(all),
                             weights,
                             depth,
                             products,
                             product_plane(tiles),
                             first,
                             last - first,
                             channels};
            multiply(m, next);
            if (depth.end == problem.depth) transform_results(m, rest);
          }
        }
      }
      trim_workspace(Workspace::task);
    });
    trim_workspace(Workspace::call);
  }
};

#if defined(__AMX_BF16__)
template <typename Scheme>
struct PartDriver : Driver<Scheme, PartWeights> {
  using Base = Driver<Scheme, PartWeights>;
  using Base::Base, Base::problem, Base::grid, Base::kPlanes;
  using typename Base::Products;

  // Planes of so many tiles, first of pixels, then of products: [block][tile][channels of the block]
  int64_t plane(int64_t tiles) const {
    return plane_stride(tiles * max(this->pixel_stride(), this->blocks() * kBlock));
  }

  // What a task reads more than once stays in the L2 cache, or the weights stream past many tiles.
  int64_t most_tiles() const {
    constexpr int64_t kFew = 32, kMany = 128, kCachedBytes = int64_t{2} << 20;
    const int64_t planes = kPlanes * plane(kFew), weights = this->blocks() * this->weight_block(problem.depth);
    return bytes_of(planes + weights) <= kCachedBytes ? kFew : kMany;
  }

  void run() const {
    const int64_t tiles = ceil_div(this->tiles_of_task(most_tiles()), kTileHeight) * kTileHeight;
    const int64_t plane_size = plane(tiles), split_size = PartWeights::size(problem.depth, tiles);
    const auto compute = [&](int64_t first, int64_t count, const float* weights, float* planes) {
      float* split = planes + kPlanes * plane_size;
      float* rest = split + 2 * split_size;
      const TransformedTiles pixels{planes, plane_size, kBlock, this->pixel_stride()};
      transform_tiles<typename Base::Inputs>(this->source, grid, first, first + count, rest, pixels, 0);
      const int64_t rows = ceil_div(count, kTileHeight) * kTileHeight;
      multiply(rows, weights, planes, plane_size, split, split_size);
      for (int64_t b = 0; b < this->blocks(); ++b) {
        Products m{};
        m.products = planes + b * rows * kBlock;
        m.product_plane = plane_size;
        m.first_tile = first;
        m.tiles = count;
        m.channels = this->block(b);
        this->transform_results(m, rest);
      }
    };
    this->for_blocks_of_tiles(tiles, kPlanes * plane_size + 2 * split_size + this->scratch_size(), compute);
  }

  // While one plane is multiplied, the next one's pixels are split and its weights fetched.
  void multiply(int64_t rows, const float* weights, float* planes, int64_t plane_size, float* split,
                int64_t split_size) const {
    const int64_t weight_size = this->weight_plane(this->block(0), problem.depth);
    const int64_t weight_block = this->weight_block(problem.depth);
    const auto split_at = [&](int64_t p) { return split + p % 2 * split_size; };
    const auto splitter_of = [&](int64_t p) {
      return RowSplitter::of(planes + p * plane_size, this->pixel_stride(), rows, problem.depth, split_at(p));
    };
    TileRegisters registers;
    registers.shape(kTileHeight, kTileHeight, kTilePairs);
    RowSplitter splitter = splitter_of(0);
    splitter.split(splitter.left);
    for (int64_t p = 0; p < kPlanes; ++p) {
      LinePrefetch next{};
      if (p + 1 < kPlanes) {
        splitter = splitter_of(p + 1);
        next = LinePrefetch::of(weights + (p + 1) * weight_size, weight_size, this->blocks(), weight_block);
      }
      multiply_plane(
          {p, split_at(p), weights, weight_block, problem.depth, problem.width, rows, planes + p * plane_size},
          splitter, next);
    }
    registers.release();
  }
};
#endif

template <typename Scheme>
void run(const Correlation<float>& problem) {
#if defined(__AMX_BF16__)
  const PartDriver<Scheme> driver(problem);
  if (winograd_suits_parts(problem.depth, problem.width, driver.grid.count(), driver.kPlanes)) {
    driver.run();
    return;
  }
#endif
  Driver<Scheme, VectorWeights>(problem).run();
}

}  // namespace

void winograd_correlate(const Correlation<float>& problem, int tile) {
  const bool is_5x5 = problem.rows.taps == 5;
  if (problem.rows.stride == 2) {
    problem.transposed ? run<BackwardStride2<3>>(problem) : run<ForwardStride2<3>>(problem);
  } else if (tile == 2) {
    is_5x5 ? run<UnitStride<2, 5>>(problem) : run<UnitStride<2, 3>>(problem);
  } else if (tile == 3) {
    run<UnitStride<3, 3>>(problem);
  } else if (tile == 4) {
    is_5x5 ? run<UnitStride<4, 5>>(problem) : run<UnitStride<4, 3>>(problem);
  } else {
    run<UnitStride<6, 3>>(problem);
  }
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
