// Winograd's weight gradients of float32 in tiles of AMX, see winograd_weight_grad_kernel.cpp and float_parts.h.
//
// Threads: either each has its own sums for a slice of the tiles, a block of tiles at a time, all of which stay in its
// L2 cache; or, where that would be too much memory, the transformed pixels of many tiles go to the L3 cache, and a
// task is a plane, or some blocks of k in it, whose sums stay in L2. Slices are added in their order at the end:
// deterministic for a given number of threads.
#include "kernels/cpu/winograd_weight_grad_parts.h"
#include "kernels/cpu/winograd_weight_grad_steps.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

// Of the depth of a product: operands of a block of sums stay in the L1 cache, while its sums come from L2.
constexpr int64_t kMostSteps = 5;
constexpr int64_t kProductTiles = kMostSteps * kPartDepth;
constexpr int64_t kSliceSumBytes = int64_t{1280} << 10;
constexpr int64_t kSlicePixelBytes = int64_t{1} << 20;  // transformed pixels of a block of tiles
constexpr int64_t kSharedPixelBytes = int64_t{48} << 20;

template <typename Scheme>
struct Driver : WeightGradientSteps<Scheme> {
  using Steps = WeightGradientSteps<Scheme>;
  using Steps::block_sums, Steps::finish_all, Steps::gradient_size, Steps::input_size, Steps::pixel_plane;
  using Steps::kPlanes, Steps::packing, Steps::problem;
  using Steps::scratch_size, Steps::sum_plane, Steps::tiles, Steps::transform;
  using Steps::Steps;

  // Transformed pixels with room for `count` tiles.
  struct Pixels {
    float *inputs, *gradients;
    int64_t count;
  };
  Pixels pixels_at(float* data, int64_t count) const { return {data, data + input_size(count), count}; }
  int64_t pixels_size(int64_t count) const { return input_size(count) + gradient_size(count); }

  // Adds the products of the tiles [0, used) of a plane and some blocks of k.
  void multiply(ProductPipeline& pipeline, const Pixels& pixels, int64_t used, int64_t plane, int64_t first_block,
                int64_t last_block, float* sums, bool fresh) const {
    const int64_t first_k = first_block * kBlock, last_k = min(problem.width, last_block * kBlock);
    PlaneProduct product{};
    product.input = {pixels.inputs + plane * pixel_plane(pixels.count, problem.depth), problem.depth, pixels.count};
    product.gradient = {pixels.gradients + plane * pixel_plane(pixels.count, problem.width) + first_k * pixels.count,
                        last_k - first_k, pixels.count};
    product.sums = sums + first_block * block_sums() + plane * sum_plane(problem.depth);
    product.sums_block = block_sums();
    const int64_t steps = ceil_div(used, kPartDepth), products = ceil_div(steps, kMostSteps);
    for (int64_t i = 0; i < products; ++i) {
      product.first = i * steps / products * kPartDepth;
      product.tiles = min((i + 1) * steps / products * kPartDepth, used) - product.first;
      product.fresh = fresh && i == 0;
      pipeline.add(product);
    }
  }

  int64_t packed_size(int64_t blocks, int64_t count) const {
    return ProductPipeline::buffer_size(ceil_div(problem.depth, kBlock) + blocks, min(kProductTiles, count));
  }
  static int64_t packed_bytes(int64_t size) { return size * static_cast<int64_t>(sizeof(uint16_t)); }

  void run() const {
    if (bytes_of(packing.blocks() * block_sums()) <= kSliceSumBytes) {
      run_slices_of_tiles();
    } else {
      run_planes();
    }
  }

  void run_slices_of_tiles() const {
    const int64_t all = tiles(), blocks = packing.blocks(), slice_stride = blocks * block_sums();
    const int64_t slices = clamp(max_threads(), 1, ceil_div(all, kPartDepth));
    const int64_t most = max(1, kSlicePixelBytes / bytes_of(pixels_size(kPartDepth))) * kPartDepth;
    const int64_t count = min(most, ceil_div(all, slices));
    float* sums = static_cast<float*>(workspace(Workspace::call, bytes_of(slices * slice_stride)));
    parallel_for(0, slices, 1, [&](int64_t begin, int64_t end) {
      const int64_t packed = packed_size(blocks, count);
      float* scratch = static_cast<float*>(
          workspace(Workspace::task, bytes_of(scratch_size() + pixels_size(count)) + packed_bytes(packed)));
      const Pixels pixels = pixels_at(scratch + scratch_size(), count);
      for (int64_t slice = begin; slice < end; ++slice) {
        const int64_t first = slice * all / slices, last = (slice + 1) * all / slices;
        ProductPipeline pipeline(reinterpret_cast<uint16_t*>(pixels.inputs + pixels_size(count)), packed);
        for (int64_t tile = first; tile < last; tile += count) {
          const int64_t used = min(count, last - tile);
          transform(tile, tile + used, scratch, pixels.inputs, pixels.gradients, count, 0);
          for (int64_t p = 0; p < kPlanes; ++p) {
            multiply(pipeline, pixels, used, p, 0, blocks, sums + slice * slice_stride, tile == first);
          }
        }
        pipeline.finish();
      }
      trim_workspace(Workspace::task);
    });
    finish_all(sums, slices);
    trim_workspace(Workspace::call);
  }

  void run_planes() const {
    const int64_t all = tiles(), blocks = packing.blocks();
    const int64_t rounds = ceil_div(bytes_of(pixels_size(all)), kSharedPixelBytes);
    const int64_t count = min(all, ceil_div(ceil_div(all, rounds), kProductTiles) * kProductTiles);
    const int64_t groups = min(blocks, ceil_div(4 * max_threads(), kPlanes));
    float* const data =
        static_cast<float*>(workspace(Workspace::call, bytes_of(pixels_size(count) + blocks * block_sums())));
    const Pixels pixels = pixels_at(data, count);
    float* const sums = data + pixels_size(count);
    for (int64_t first_tile = 0; first_tile < all; first_tile += count) {
      const int64_t used = min(count, all - first_tile);
      const int64_t grain = max(1, kGrain / 8 / (kPlanes * (problem.depth + problem.width)));
      parallel_for(0, used, grain, [&](int64_t begin, int64_t end) {
        float* scratch = static_cast<float*>(workspace(Workspace::task, bytes_of(scratch_size())));
        transform(first_tile + begin, first_tile + end, scratch, pixels.inputs, pixels.gradients, count, begin);
        trim_workspace(Workspace::task);
      });
      parallel_for(0, kPlanes * groups, 1, [&](int64_t begin, int64_t end) {
        const int64_t packed = packed_size(ceil_div(blocks, groups), count);
        ProductPipeline pipeline(static_cast<uint16_t*>(workspace(Workspace::task, packed_bytes(packed))), packed);
        for (int64_t task = begin; task < end; ++task) {
          const int64_t group = task % groups;
          multiply(pipeline, pixels, used, task / groups, group * blocks / groups, (group + 1) * blocks / groups, sums,
                   first_tile == 0);
        }
        pipeline.finish();
        trim_workspace(Workspace::task);
      });
    }
    finish_all(sums, 1);
    trim_workspace(Workspace::call);
  }
};

}  // namespace

void winograd_weight_gradient(const WeightGradient<float>& problem, int tile) {
  run_weight_gradient<Driver>(problem, tile);
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
