// Weight gradient of the cross-correlation with 3x3 taps by Winograd's F(3x3, 4x4) and F(3x3, 2x2), for one instruction
// set.
//
//   grad_weight[k, c] = A^T [ sum over tiles (G grad_output tile[k] G^T) * (B^T input tile[c] B) ] A
//
// grad_output is cut into tiles of r x r pixels, over windows of n x n of the input (n = r + 2): n^2 multiply-adds per
// tile and channel pair instead of 9 r^2, i.e. 4x (r = 4) or 2.25x (r = 2) fewer, done as n^2 matrix products in the
// register tile of conv2d_window.h. Both maps are transformed as vectors over channels, once.
// Threads: either each has its own sums for a slice of the tiles, whose transformed pixels stay in the L2 cache; or,
// where the sums are the larger part, the transformed pixels are shared and a task is a block of the weight, whose sums
// stay in the L2 cache and never reach memory (unless the tiles are too many for one round).
// Sums are float; slices are added in their order at the end: deterministic for a given number of threads.
// conv2d_algorithm.h has the error.
#include "kernels/cpu/conv2d_window.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/winograd_kernel.h"
#include "kernels/cpu/winograd_tiles.h"
#include "kernels/cpu/workspace.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

constexpr int kTaps = 3;
constexpr int64_t kTaskBytes = int64_t{1} << 20;  // transformed pixels of a task
constexpr int64_t kLeastTiles = 48;               // amortise reading and writing the sums
constexpr int64_t kPartChannels = 2 * kBlock;     // input channels of a task
constexpr int64_t kSharedPixelBytes = int64_t{48} << 20;
constexpr int64_t kSliceBytes = int64_t{64} << 20;  // sums of all slices
constexpr int64_t kGrain = 1 << 18;

D2L_INLINE int64_t bytes_of(int64_t elements) { return elements * static_cast<int64_t>(sizeof(float)); }

template <int R>
struct Driver {
  static constexpr int kSize = R + kTaps - 1;
  static constexpr int kPlanes = kSize * kSize;
  using Inputs = InputTransform<kSize>;
  using Gradients = TapTransform<kSize, R>;
  using Sums = OutputTransform<kSize, kTaps>;

  const WeightGradient<float>& problem;
  PackedLayout<float> packing;
  Map<const float> input, gradient;
  TileGrid input_grid, gradient_grid;

  explicit Driver(const WeightGradient<float>& p)
      : problem(p),
        packing{p.depth,        p.width,      tap_order(p.rows, false), tap_order(p.columns, false), p.weight_depth,
                p.weight_width, p.weight_row, p.weight_column},
        input{p.input, p.input_layout, p.rows.source, p.columns.source, p.depth, 0, p.depth},
        gradient{p.grad_output, p.output_layout, p.rows.result, p.columns.result, p.width, 0, p.width},
        input_grid{p.images, ceil_div(p.rows.result, R), ceil_div(p.columns.result, R), R, -p.rows.pad, -p.columns.pad},
        gradient_grid{p.images, ceil_div(p.rows.result, R), ceil_div(p.columns.result, R), R, 0, 0} {}

  int64_t tiles() const { return input_grid.count(); }

  // Transformed pixels of `count` tiles: [plane][block of channels][tile][width of the block]
  static int64_t pixel_plane(int64_t count, int64_t channels) {
    return plane_stride(count * ceil_div(channels, kLanes<float>) * kLanes<float>);
  }
  int64_t input_size(int64_t count) const { return kPlanes * pixel_plane(count, problem.depth); }
  int64_t gradient_size(int64_t count) const { return kPlanes * pixel_plane(count, problem.width); }
  int64_t scratch_size() const {
    return max(transform_scratch(input, input_grid, kSize), transform_scratch(gradient, gradient_grid, R));
  }

  // Sums of a block of k and `channels` channels of the input: [plane][channel][width of the block]
  static int64_t sum_plane(int64_t channels) { return plane_stride(channels * kBlock); }
  int64_t block_sums() const { return kPlanes * sum_plane(problem.depth); }

  // Tiles [begin, end) become tiles to_tile, ... of `count`.
  void transform(int64_t begin, int64_t end, float* scratch, float* inputs, float* gradients, int64_t count,
                 int64_t to_tile) const {
    transform_tiles<Inputs>(input, input_grid, begin, end, scratch,
                            {inputs, pixel_plane(count, problem.depth), kBlock * count, 0}, to_tile);
    transform_tiles<Gradients>(gradient, gradient_grid, begin, end, scratch,
                               {gradients, pixel_plane(count, problem.width), kBlock * count, 0}, to_tile);
  }

  // Adds the products of `used` tiles, of `count` that the matrices have room for, to the sums of a block of k and the
  // input channels [first, last), `first` at the start of a block.
  void multiply(const float* inputs, const float* gradients, int64_t count, int64_t used, int64_t block, int64_t first,
                int64_t last, float* sums, int64_t plane, bool fresh) const {
    const int64_t width = packing.block_width(block);
    WindowArguments<float> w{};
    w.grad_pixel = width;
    w.images = w.rows = 1;
    w.columns = used;
    w.fresh = fresh;
    for (int64_t p = 0; p < kPlanes; ++p) {
      w.grad = gradients + p * pixel_plane(count, problem.width) + block * kBlock * count;
      for (int64_t c = first; c < last; c += kBlock) {
        const int64_t channels = min(kBlock, last - c);
        const int64_t pieces = ceil_div(channels, kWindowElements);
        w.input_pixel = width_of_block(problem.depth, c / kBlock);
        const float* input_block = inputs + p * pixel_plane(count, problem.depth) + c * count;
        for (int64_t i = 0; i < pieces; ++i) {
          const int64_t begin = i * channels / pieces, end = (i + 1) * channels / pieces;
          w.input = input_block + begin;
          w.sums = sums + p * plane + (c - first + begin) * width;
          product(end - begin, width > kLanes<float>)(w);
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

  // The weight's elements of a block of k and the input channels [first, last), from the sums of all slices.
  void finish(int64_t block, int64_t first, int64_t last, const float* sums, int64_t plane, int64_t slices,
              int64_t slice_stride, float* scratch) const {
    PackedLayout<float> part = packing;
    part.depth = last - first;
    const int64_t size = part.depth * packing.block_width(block);
    for (int64_t i = 0; i < size; i += kLanes<float>) {
      const auto get = [&](int r, int s) D2L_INLINE_LAMBDA {
        const float* from = sums + (r * kSize + s) * plane + i;
        Floats sum = load(from);
        for (int64_t slice = 1; slice < slices; ++slice) sum += load(from + slice * slice_stride);
        return sum;
      };
      const auto put = [&](int r, int s, Floats value)
                           D2L_INLINE_LAMBDA { store(scratch + (r * kTaps + s) * size + i, value); };
      transform_2d<Sums>(get, put);
    }
    unpack_block(part, static_cast<const float*>(scratch), 1, 0, block,
                 problem.grad_weight + first * problem.weight_depth);
  }

  int64_t finish_scratch() const { return kTaps * kTaps * min(kPartChannels, problem.depth) * kBlock; }
  int64_t parts() const { return ceil_div(problem.depth, kPartChannels); }

  void run() const {
    const int64_t all = tiles(), slices = clamp(max_threads(), 1, ceil_div(all, kLeastTiles));
    const int64_t sums = bytes_of(packing.blocks() * block_sums());
    const int64_t pixels = bytes_of(input_size(all) + gradient_size(all));
    if (slices * sums > kSliceBytes || (pixels <= kSharedPixelBytes && pixels <= 2 * sums)) {
      run_blocks_of_weights();
    } else {
      run_slices_of_tiles(slices);
    }
  }

  void run_slices_of_tiles(int64_t slices) const {
    const int64_t all = tiles(), blocks = packing.blocks(), slice_stride = blocks * block_sums();
    const int64_t plane = sum_plane(problem.depth);
    const int64_t most = max(kLeastTiles, kTaskBytes / bytes_of(kPlanes * (problem.depth + problem.width)));
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
        for (int64_t tile = first; tile < last; tile += count) {
          const int64_t used = min(count, last - tile);
          transform(tile, tile + used, scratch, inputs, gradients, count, 0);
          for (int64_t block = 0; block < blocks; ++block) {
            multiply(inputs, gradients, count, used, block, 0, problem.depth,
                     sums + slice * slice_stride + block * block_sums(), plane, tile == first);
          }
        }
      }
      trim_workspace(Workspace::task);
    });
    const int64_t size = kPlanes * kBlock * min(kPartChannels, problem.depth) * slices;
    parallel_for(0, blocks * parts(), max(1, kGrain / 8 / size), [&](int64_t begin, int64_t end) {
      float* scratch = static_cast<float*>(workspace(Workspace::task, bytes_of(finish_scratch())));
      for (int64_t task = begin; task < end; ++task) {
        const int64_t block = task / parts(), first = task % parts() * kPartChannels;
        finish(block, first, min(problem.depth, first + kPartChannels),
               sums + block * block_sums() + first * packing.block_width(block), plane, slices, slice_stride, scratch);
      }
      trim_workspace(Workspace::task);
    });
    trim_workspace(Workspace::call);
  }

  void run_blocks_of_weights() const {
    const int64_t all = tiles(), blocks = packing.blocks();
    const int64_t rounds = ceil_div(bytes_of(input_size(all) + gradient_size(all)), kSharedPixelBytes);
    const int64_t count = ceil_div(all, rounds);
    // With one round the sums of a task need no place outside it.
    const int64_t kept = rounds > 1 ? blocks * parts() * kPlanes * sum_plane(kPartChannels) : 0;
    float* inputs =
        static_cast<float*>(workspace(Workspace::call, bytes_of(input_size(count) + gradient_size(count) + kept)));
    float* gradients = inputs + input_size(count);
    float* kept_sums = gradients + gradient_size(count);
    const int64_t plane = sum_plane(kPartChannels);
    for (int64_t round_begin = 0; round_begin < all; round_begin += count) {
      const int64_t used = min(count, all - round_begin);
      const bool is_first = round_begin == 0, is_last = round_begin + used == all;
      const int64_t grain = max(1, kGrain / 8 / (kPlanes * (problem.depth + problem.width)));
      parallel_for(0, used, grain, [&](int64_t begin, int64_t end) {
        float* scratch = static_cast<float*>(workspace(Workspace::task, bytes_of(scratch_size())));
        transform(round_begin + begin, round_begin + end, scratch, inputs, gradients, count, begin);
        trim_workspace(Workspace::task);
      });
      parallel_for(0, blocks * parts(), 1, [&](int64_t begin, int64_t end) {
        float* local = static_cast<float*>(workspace(Workspace::task, bytes_of(kPlanes * plane + finish_scratch())));
        for (int64_t task = begin; task < end; ++task) {
          const int64_t block = task / parts(), first = task % parts() * kPartChannels;
          const int64_t last = min(problem.depth, first + kPartChannels);
          float* sums = rounds > 1 ? kept_sums + task * kPlanes * plane : local;
          multiply(inputs, gradients, count, used, block, first, last, sums, plane, is_first);
          if (is_last) finish(block, first, last, sums, plane, 1, 0, local + kPlanes * plane);
        }
        trim_workspace(Workspace::task);
      });
    }
    trim_workspace(Workspace::call);
  }
};

}  // namespace

void winograd_weight_gradient(const WeightGradient<float>& problem, int tile) {
  if (tile == 4) {
    Driver<4>(problem).run();
  } else {
    Driver<2>(problem).run();
  }
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
