// Weight gradient of the cross-correlation with 3x3 or 5x5 taps by Winograd's minimal filtering, for one instruction
// set.
//
//   grad_weight[k, c] = A^T [ sum over tiles (G grad_output tile[k] G^T) * (B^T input tile[c] B) ] A
//
// grad_output is cut into tiles of r x r pixels, over windows of n x n of the input (n = r + taps - 1): n^2
// multiply-adds per tile and channel pair instead of (taps r)^2, as many fewer as in winograd_kernel.cpp, done as n^2
// matrix products in the register tile of conv2d_window.h. Both maps are transformed as vectors over channels, once.
// Threads: either each has its own sums for a slice of the tiles, a block of tiles at a time; or, where that would be
// too much memory or too few tiles each, a task is a part of the weight, whose sums never reach memory (unless the
// tiles are too many for one round). The transformed pixels are shared then, or every thread has those of its tasks.
// Sums are float; slices are added in their order at the end: deterministic for a given number of threads.
// conv2d_algorithm.h has the error.
#include "kernels/cpu/conv2d_window.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/winograd_kernel.h"
#include "kernels/cpu/winograd_tiles.h"
#include "kernels/cpu/workspace.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

constexpr int64_t kTaskBytes = int64_t{1} << 20;  // transformed pixels of a task
// Tiles that amortise reading and writing the sums, if those stay in the L2 cache, in the L3 cache, and else.
constexpr int64_t kFewTiles = 48;
constexpr int64_t kMoreTiles = 128;
constexpr int64_t kManyTiles = 256;
constexpr int64_t kL2SumBytes = int64_t{2} << 20;
constexpr int64_t kL3SumBytes = int64_t{16} << 20;
constexpr int64_t kPartChannels = 2 * kBlock;  // input channels of a task
constexpr int64_t kPartBlocks = 4;             // blocks of k of a task
// With few tiles the sums are the larger part of what a task works on. They stay in the L2 cache; the more channels in
// a row, the fewer pages of the weight are written to at a time.
constexpr int64_t kPartSumBytes = 640 << 10;
constexpr int64_t kSharedPixelBytes = int64_t{48} << 20;
constexpr int64_t kSliceBytes = int64_t{56} << 20;  // sums of all slices: less than what workspaces keep
constexpr int64_t kGrain = 1 << 18;

D2L_INLINE int64_t bytes_of(int64_t elements) { return elements * static_cast<int64_t>(sizeof(float)); }

template <typename Scheme>
struct Driver {
  using Inputs = typename Scheme::Inputs;
  using Gradients = typename Scheme::Gradients;
  using Sums = typename Scheme::Sums;
  static constexpr int R = Gradients::kIn, kTaps = Sums::kOut;
  static constexpr int kSize = Inputs::kOut;
  static constexpr int kPlanes = kSize * kSize;
  // Tiles summed up from zero before they are added to the others: short sums are more accurate than a long one.
  static constexpr int64_t kSumTiles = kSize == 8 ? 64 : 128;

  const WeightGradient<float>& problem;
  PackedLayout<float> packing;
  Map<const float> input, gradient;
  TileGrid input_grid, gradient_grid;

  explicit Driver(const WeightGradient<float>& p)
      : problem(p),
        packing{p.depth,        p.width,      tap_order(p.rows, false), tap_order(p.columns, false), p.weight_depth,
                p.weight_width, p.weight_row, p.weight_column},
        input{p.input, p.input_layout, p.rows.source, p.columns.source, p.input_channels, 0, p.depth},
        gradient{p.grad_output, p.output_layout, p.rows.result, p.columns.result, p.output_channels, 0, p.width},
        input_grid{p.images,      ceil_div(p.rows.result, R), ceil_div(p.columns.result, R), Scheme::kStep, -p.rows.pad,
                   -p.columns.pad},
        gradient_grid{p.images, ceil_div(p.rows.result, R), ceil_div(p.columns.result, R), R, 0, 0} {}

  int64_t tiles() const { return input_grid.count(); }

  // Transformed pixels of `count` tiles: [plane][block of channels][tile][width of the block]
  static int64_t pixel_plane(int64_t count, int64_t channels) {
    return plane_stride(count * ceil_div(channels, kLanes<float>) * kLanes<float>);
  }
  int64_t input_size(int64_t count) const { return kPlanes * pixel_plane(count, problem.depth); }
  int64_t gradient_size(int64_t count) const { return kPlanes * pixel_plane(count, problem.width); }
  int64_t scratch_size() const {
    return max(transform_scratch(input, input_grid, Inputs::kIn), transform_scratch(gradient, gradient_grid, R));
  }

  // Sums of a block of k and `channels` channels of the input: [plane][channel][width of the block]
  static int64_t sum_plane(int64_t channels) { return plane_stride(channels * kBlock); }
  int64_t block_sums() const { return kPlanes * sum_plane(problem.depth); }

  // Channels [begin, end) of a map, whole blocks of them.
  struct Channels {
    int64_t begin, end;
  };
  static Map<const float> some_channels(Map<const float> map, Channels channels) {
    map.first_channel = channels.begin;
    map.depth = channels.end - channels.begin;
    return map;
  }

  // Tiles [begin, end) become tiles to_tile, ... of `count`.
  void transform(int64_t begin, int64_t end, float* scratch, float* inputs, float* gradients, int64_t count,
                 int64_t to_tile) const {
    transform(begin, end, scratch, inputs, gradients, count, to_tile, {0, problem.depth}, {0, problem.width});
  }
  void transform(int64_t begin, int64_t end, float* scratch, float* inputs, float* gradients, int64_t count,
                 int64_t to_tile, Channels of_input, Channels of_gradient) const {
    transform_tiles<Inputs>(some_channels(input, of_input), input_grid, begin, end, scratch,
                            {inputs + of_input.begin * count, pixel_plane(count, problem.depth), kBlock * count, 0},
                            to_tile);
    transform_tiles<Gradients>(
        some_channels(gradient, of_gradient), gradient_grid, begin, end, scratch,
        {gradients + of_gradient.begin * count, pixel_plane(count, problem.width), kBlock * count, 0}, to_tile);
  }

  // A part of the weight: some blocks of k times the input channels [first, last), `first` at the start of a block.
  // Its sums: [block][plane][channel][width of the block]
  struct Part {
    int64_t first_block, blocks;
    int64_t first, last;
    float* sums;
    int64_t plane;
    int64_t block_stride() const { return kPlanes * plane; }
  };

  // Adds the products of `used` tiles, of `count` that the matrices have room for.
  void multiply(const float* inputs, const float* gradients, int64_t count, int64_t used, const Part& part,
                bool fresh) const {
    for (int64_t first = 0; first < used; first += kManyTiles) {
      multiply_some(inputs, gradients, count, first, min(kManyTiles, used - first), part, fresh && first == 0);
    }
  }

  void multiply_some(const float* inputs, const float* gradients, int64_t count, int64_t first_tile, int64_t tiles,
                     const Part& part, bool fresh) const {
    WindowArguments<float> w{};
    w.images = w.rows = 1;
    for (int64_t p = 0; p < kPlanes; ++p) {
      const float* input_plane = inputs + p * pixel_plane(count, problem.depth);
      for (int64_t b = 0; b < part.blocks; ++b) {
        const int64_t width = packing.block_width(part.first_block + b);
        const float* grad_block = gradients + p * pixel_plane(count, problem.width) +
                                  (part.first_block + b) * kBlock * count + first_tile * width;
        w.grad_pixel = width;
        for (int64_t c = part.first; c < part.last; c += kBlock) {
          const int64_t channels = min(kBlock, part.last - c);
          const int64_t pieces = ceil_div(channels, kWindowElements);
          w.input_pixel = width_of_block(problem.depth, c / kBlock);
          for (int64_t i = 0; i < pieces; ++i) {
            const int64_t begin = i * channels / pieces, end = (i + 1) * channels / pieces;
            w.sums = part.sums + b * part.block_stride() + p * part.plane + (c - part.first + begin) * width;
            for (int64_t tile = 0; tile < tiles; tile += kSumTiles) {
              w.columns = min(kSumTiles, tiles - tile);
              w.fresh = fresh && tile == 0;
              w.input = input_plane + c * count + (first_tile + tile) * w.input_pixel + begin;
              w.grad = grad_block + tile * width;
              product(end - begin, width > kLanes<float>)(w);
            }
          }
        }
      }
    }
  }

  template <int NV, int... I>
  static D2L_INLINE WindowFunction<float> product_of(int rows, std::integer_sequence<int, I...>) {
    constexpr WindowFunction<float> kProducts[] = {window<float, 1, 1 + I, NV>...};
    return kProducts[rows - 1];
  }

  static D2L_INLINE WindowFunction<float> product(int64_t rows, bool two_vectors) {
    constexpr auto kIndices = std::make_integer_sequence<int, kWindowElements>{};
    return two_vectors ? product_of<2>(static_cast<int>(rows), kIndices)
                       : product_of<1>(static_cast<int>(rows), kIndices);
  }

  // The weight's elements of a part, from the sums of all slices.
  void finish(const Part& part, int64_t slices, int64_t slice_stride, float* scratch) const {
    PackedLayout<float> layout = packing;
    layout.depth = part.last - part.first;
    for (int64_t b = 0; b < part.blocks; ++b) {
      const int64_t block = part.first_block + b, size = layout.depth * packing.block_width(block);
      const float* sums = part.sums + b * part.block_stride();
      for (int64_t i = 0; i < size; i += kLanes<float>) {
        const auto get = [&](int r, int s) D2L_INLINE_LAMBDA {
          const float* from = sums + (r * kSize + s) * part.plane + i;
          Floats sum = load(from);
          for (int64_t slice = 1; slice < slices; ++slice) sum += load(from + slice * slice_stride);
          return sum;
        };
        const auto put = [&](int r, int s, Floats value)
                             D2L_INLINE_LAMBDA { store(scratch + (r * kTaps + s) * size + i, value); };
        transform_2d<Sums>(get, put);
      }
      unpack_block(layout, static_cast<const float*>(scratch), 1, 0, block,
                   problem.grad_weight + part.first * problem.weight_depth);
    }
  }

  int64_t finish_scratch(int64_t channels) const { return kTaps * kTaps * channels * kBlock; }

  void run() const {
    const int64_t all = tiles(), slices = clamp(max_threads(), 1, ceil_div(all, kFewTiles));
    const int64_t sums = bytes_of(packing.blocks() * block_sums());
    const bool is_amortised = sums <= kL2SumBytes || all / slices > kMoreTiles;
    const Cut c = cut();
    const bool uses_all_threads = slices == max_threads() || c.tasks() <= slices;
    if (is_amortised && uses_all_threads && slices * sums <= kSliceBytes) {
      run_slices_of_tiles(slices);
    } else {
      run_parts_of_weight(c);
    }
  }

  void run_slices_of_tiles(int64_t slices) const {
    const int64_t all = tiles(), blocks = packing.blocks(), slice_stride = blocks * block_sums();
    const int64_t plane = sum_plane(problem.depth);
    const int64_t sum_bytes = bytes_of(slice_stride);
    const int64_t least = sum_bytes <= kL2SumBytes ? kFewTiles : sum_bytes <= kL3SumBytes ? kMoreTiles : kManyTiles;
    const int64_t most = max(least, kTaskBytes / bytes_of(kPlanes * (problem.depth + problem.width)));
    const int64_t longest = ceil_div(all, slices);
    const int64_t count = ceil_div(longest, ceil_div(longest, most));
    float* sums = static_cast<float*>(workspace(Workspace::call, bytes_of(slices * slice_stride)));
    parallel_for(0, slices, 1, [&](int64_t begin, int64_t end) {
      float* inputs = static_cast<float*>(
          workspace(Workspace::task, bytes_of(input_size(count) + gradient_size(count) + scratch_size())));
      float* gradients = inputs + input_size(count);
      float* scratch = gradients + gradient_size(count);
      for (int64_t slice = begin; slice < end; ++slice) {
        const int64_t first = slice * all / slices, last = (slice + 1) * all / slices;
        const Part whole{0, blocks, 0, problem.depth, sums + slice * slice_stride, plane};
        for (int64_t tile = first; tile < last; tile += count) {
          const int64_t used = min(count, last - tile);
          transform(tile, tile + used, scratch, inputs, gradients, count, 0);
          multiply(inputs, gradients, count, used, whole, tile == first);
        }
      }
      trim_workspace(Workspace::task);
    });
    const int64_t channels = min(kPartChannels, problem.depth), parts = ceil_div(problem.depth, channels);
    const int64_t size = kPlanes * kBlock * channels * slices;
    parallel_for(0, blocks * parts, max(1, kGrain / 8 / size), [&](int64_t begin, int64_t end) {
      float* scratch = static_cast<float*>(workspace(Workspace::task, bytes_of(finish_scratch(channels))));
      for (int64_t task = begin; task < end; ++task) {
        const int64_t block = task / parts, first = task % parts * channels;
        const Part part{block,
                        1,
                        first,
                        min(problem.depth, first + channels),
                        sums + block * block_sums() + first * packing.block_width(block),
                        plane};
        finish(part, slices, slice_stride, scratch);
      }
      trim_workspace(Workspace::task);
    });
    trim_workspace(Workspace::call);
  }

  static int64_t few_tiles_channels() {
    return max(kPartChannels, kPartSumBytes / bytes_of(kPlanes * kBlock) / kBlock * kBlock);
  }

  // Channels of a part, at most `most`, with which the busiest thread has the least to do.
  int64_t balanced_channels(int64_t most, int64_t groups) const {
    const auto longest = [&](int64_t channels) {
      return ceil_div(groups * ceil_div(problem.depth, channels), max_threads()) * channels;
    };
    int64_t best = most;
    for (int64_t channels = (most - 1) / kBlock * kBlock; channels > 0; channels -= kBlock) {
      if (longest(channels) < longest(best)) best = channels;
    }
    return best;
  }

  // How the weight is cut: the task i is the part i % parts of the input channels of the blocks of the group i / parts.
  struct Cut {
    int64_t blocks;    // of k in a group
    int64_t channels;  // of the input in a part
    int64_t groups, parts;
    int64_t tasks() const { return groups * parts; }
  };

  Cut cut() const {
    const int64_t all = tiles(), blocks = packing.blocks();
    const int64_t most = min(all < kFewTiles ? few_tiles_channels() : kPartChannels, problem.depth);
    int64_t group = all < kFewTiles ? 1 : min(blocks, kPartBlocks);
    while (group > 1 && ceil_div(blocks, group) * ceil_div(problem.depth, most) < 2 * max_threads()) group /= 2;
    const int64_t groups = ceil_div(blocks, group), channels = balanced_channels(most, groups);
    return {group, channels, groups, ceil_div(problem.depth, channels)};
  }

  // Whether every thread transforms the pixels of its tasks for itself. The work of the steps is per position.
  bool has_own_pixels(const Cut& c) const {
    const int64_t all = tiles();
    const int64_t needed_by_all = problem.depth + (c.groups >= max_threads() ? 0 : problem.width);
    const int64_t products = all * problem.depth * ceil_div(problem.width, kLanes<float>) / 2;
    return has_own_copy(bytes_of(input_size(all) + gradient_size(all)), pixel_work(all) * needed_by_all,
                        pixel_work(all) * (problem.depth + problem.width) + products);
  }

  // The channels that the tasks [begin, end) read.
  void transform_for_tasks(const Cut& c, int64_t begin, int64_t end, float* scratch, float* inputs,
                           float* gradients) const {
    const int64_t first = begin / c.parts, last = (end - 1) / c.parts, width = c.blocks * kBlock;
    const Channels of_gradient{first * width, min(problem.width, (last + 1) * width)};
    const Channels of_input = first == last ? Channels{begin % c.parts * c.channels,
                                                       min(problem.depth, ((end - 1) % c.parts + 1) * c.channels)}
                                            : Channels{0, problem.depth};
    transform(0, tiles(), scratch, inputs, gradients, tiles(), 0, of_input, of_gradient);
  }

  void run_parts_of_weight(const Cut& c) const {
    const int64_t all = tiles();
    const bool own = has_own_pixels(c);
    const int64_t rounds = ceil_div(bytes_of(input_size(all) + gradient_size(all)), kSharedPixelBytes);
    const int64_t count = ceil_div(all, rounds);
    const int64_t plane = sum_plane(c.channels), sums_size = c.blocks * kPlanes * plane;
    // With one round the sums of a task need no place outside it.
    const int64_t kept = rounds > 1 ? c.tasks() * sums_size : 0;
    const int64_t pixel_bytes = bytes_of(input_size(count) + gradient_size(count) + kept);
    float* const shared = own ? nullptr : static_cast<float*>(workspace(Workspace::call, pixel_bytes));
    float* const kept_sums = own ? nullptr : shared + input_size(count) + gradient_size(count);
    for (int64_t first_tile = 0; first_tile < all; first_tile += count) {
      const int64_t used = min(count, all - first_tile);
      const int64_t grain = max(1, kGrain / 8 / (kPlanes * (problem.depth + problem.width)));
      if (!own) {
        parallel_for(0, used, grain, [&](int64_t begin, int64_t end) {
          float* scratch = static_cast<float*>(workspace(Workspace::task, bytes_of(scratch_size())));
          transform(first_tile + begin, first_tile + end, scratch, shared, shared + input_size(count), count, begin);
          trim_workspace(Workspace::task);
        });
      }
      parallel_for(0, c.tasks(), 1, [&](int64_t begin, int64_t end) {
        float* scratch = static_cast<float*>(
            workspace(Workspace::task, bytes_of(max(scratch_size(), finish_scratch(c.channels) + sums_size))));
        float* local = scratch + finish_scratch(c.channels);
        float* inputs = own ? static_cast<float*>(workspace(Workspace::call, pixel_bytes)) : shared;
        float* gradients = inputs + input_size(count);
        if (own) transform_for_tasks(c, begin, end, scratch, inputs, gradients);
        for (int64_t task = begin; task < end; ++task) {
          const int64_t block = task / c.parts * c.blocks, first = task % c.parts * c.channels;
          const Part part{block,
                          min(c.blocks, packing.blocks() - block),
                          first,
                          min(problem.depth, first + c.channels),
                          rounds > 1 ? kept_sums + task * sums_size : local,
                          plane};
          multiply(inputs, gradients, count, used, part, first_tile == 0);
          if (first_tile + used == all) finish(part, 1, 0, scratch);
        }
        trim_workspace(Workspace::task);
      });
    }
    trim_workspace(Workspace::call);
  }
};

}  // namespace

void winograd_weight_gradient(const WeightGradient<float>& problem, int tile) {
  const bool is_5x5 = problem.rows.taps == 5;
  if (problem.rows.stride == 2) {
    Driver<WeightStride2<3>>(problem).run();
  } else if (tile == 2) {
    is_5x5 ? Driver<WeightUnitStride<2, 5>>(problem).run() : Driver<WeightUnitStride<2, 3>>(problem).run();
  } else if (tile == 3) {
    Driver<WeightUnitStride<3, 3>>(problem).run();
  } else if (tile == 4) {
    is_5x5 ? Driver<WeightUnitStride<4, 5>>(problem).run() : Driver<WeightUnitStride<4, 3>>(problem).run();
  } else {
    Driver<WeightUnitStride<6, 3>>(problem).run();
  }
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
