// The steps of a weight gradient by Winograd's minimal filtering around its products: what both maps become, and how
// sums become the weight's elements. See winograd_weight_grad_kernel.cpp. Only for kernel sources.
#pragma once

#include "kernels/cpu/amx.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/winograd_kernel.h"
#include "kernels/cpu/winograd_tiles.h"
#include "kernels/cpu/workspace.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

constexpr int64_t kPartChannels = 2 * kBlock;  // input channels of a task
constexpr int64_t kGrain = 1 << 18;

D2L_INLINE int64_t bytes_of(int64_t elements) { return elements * static_cast<int64_t>(sizeof(float)); }

D2L_INLINE int64_t whole_vectors(int64_t channels) { return ceil_div(channels, kLanes<float>) * kLanes<float>; }

template <typename Scheme>
struct WeightGradientSteps {
  using Inputs = typename Scheme::Inputs;
  using Gradients = typename Scheme::Gradients;
  using Sums = typename Scheme::Sums;
  static constexpr int R = Gradients::kIn, kTaps = Sums::kOut;
  static constexpr int kSize = Inputs::kOut;
  static constexpr int kPlanes = kSize * kSize;

  const WeightGradient<float>& problem;
  PackedLayout<float> packing;
  Map<const float> input, gradient;
  TileGrid input_grid, gradient_grid;

  explicit WeightGradientSteps(const WeightGradient<float>& p)
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
  static int64_t pixel_plane(int64_t count, int64_t channels) { return plane_stride(count * whole_vectors(channels)); }
  int64_t input_size(int64_t count) const { return kPlanes * pixel_plane(count, problem.depth); }
  int64_t gradient_size(int64_t count) const { return kPlanes * pixel_plane(count, problem.width); }
  int64_t scratch_size() const {
    return max(transform_scratch(input, input_grid, Inputs::kIn), transform_scratch(gradient, gradient_grid, R));
  }

  // Sums of a block of k and `channels` channels of the input: [plane][channel][width of the block]. Tiles are stored
  // with all their rows.
  static int64_t sum_plane(int64_t channels) {
    return plane_stride((kHasTiles ? whole_vectors(channels) : channels) * kBlock);
  }
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

  // The whole weight, from the sums of `slices` slices of the tiles.
  void finish_all(float* sums, int64_t slices) const {
    const int64_t blocks = packing.blocks();
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
                        sum_plane(problem.depth)};
        finish(part, slices, blocks * block_sums(), scratch);
      }
      trim_workspace(Workspace::task);
    });
  }
};

// With the scheme for a tile of grad_output of this size.
template <template <typename> typename Driver>
void run_weight_gradient(const WeightGradient<float>& problem, int tile) {
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
