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
#include "kernels/cpu/winograd_weight_grad_steps.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

constexpr int64_t kTaskBytes = int64_t{1} << 20;  // transformed pixels of a task
// Tiles that amortise reading and writing the sums, if those stay in the L2 cache, in the L3 cache, and else.
constexpr int64_t kFewTiles = 48;
constexpr int64_t kMoreTiles = 128;
constexpr int64_t kManyTiles = 256;
constexpr int64_t kL2SumBytes = int64_t{2} << 20;
constexpr int64_t kL3SumBytes = int64_t{16} << 20;
constexpr int64_t kPartBlocks = 4;  // blocks of k of a task
// With few tiles the sums are the larger part of what a task works on. They stay in the L2 cache; the more channels in
// a row, the fewer pages of the weight are written to at a time.
constexpr int64_t kPartSumBytes = 640 << 10;
constexpr int64_t kSharedPixelBytes = int64_t{48} << 20;
constexpr int64_t kSliceBytes = int64_t{56} << 20;  // sums of all slices: less than what workspaces keep

template <typename Scheme>
struct Driver : WeightGradientSteps<Scheme> {
  using Steps = WeightGradientSteps<Scheme>;
  using Steps::block_sums, Steps::finish, Steps::finish_all, Steps::finish_scratch, Steps::gradient_size;
  using Steps::input_size, Steps::pixel_plane, Steps::scratch_size, Steps::sum_plane, Steps::tiles, Steps::transform;
  using Steps::kPlanes, Steps::kSize, Steps::packing, Steps::problem;
  using typename Steps::Channels, typename Steps::Part;
  // Tiles summed up from zero before they are added to the others: short sums are more accurate than a long one.
  static constexpr int64_t kSumTiles = kSize == 8 ? 64 : 128;

  using Steps::Steps;

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
    finish_all(sums, slices);
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
  run_weight_gradient<Driver>(problem, tile);
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
