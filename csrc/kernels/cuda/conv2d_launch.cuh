// Defines Conv2dKernels: fills the index map, picks a tile, launches.
#pragma once

#include <numeric>

#include "kernels/cuda/conv2d_forward_map.cuh"
#include "kernels/cuda/conv2d_gemm.cuh"
#include "kernels/cuda/conv2d_input_grad_map.cuh"
#include "kernels/cuda/conv2d_plan.cuh"
#include "kernels/cuda/conv2d_reduce.cuh"
#include "kernels/cuda/conv2d_weight_grad_map.cuh"

namespace d2l::cuda {

template <typename T, Multiplier kMultiplier>
struct GemmTiles {
  static_assert(sizeof(T) == 2 && kMultiplier == Multiplier::tensor_cores);
  static constexpr GemmTile kSmall{.rows = 64, .columns = 64, .depth = 32, .stages = 4, .down = 2, .across = 2};
  static constexpr GemmTile kLarge{.rows = 128, .columns = 128, .depth = 32, .stages = 4, .down = 2, .across = 4};
};
template <>
struct GemmTiles<float, Multiplier::tensor_cores> {
  static constexpr GemmTile kSmall{.rows = 64, .columns = 64, .depth = 16, .stages = 4, .down = 2, .across = 2};
  static constexpr GemmTile kLarge{.rows = 128, .columns = 128, .depth = 16, .stages = 4, .down = 2, .across = 4};
};
template <>
struct GemmTiles<float, Multiplier::simt> {
  static constexpr GemmTile kSmall{.rows = 64, .columns = 64, .depth = 16, .stages = 3, .down = 16, .across = 8};
  static constexpr GemmTile kLarge{.rows = 128, .columns = 64, .depth = 16, .stages = 3, .down = 16, .across = 8};
};
template <>
struct GemmTiles<double, Multiplier::simt> {
  static constexpr GemmTile kSmall{.rows = 64, .columns = 64, .depth = 8, .stages = 4, .down = 16, .across = 8};
  static constexpr GemmTile kLarge = kSmall;
};

// Launches a product of `rows` rows for each of `slices` slices of each of `groups` groups.
template <typename Gemm>
LaunchStatus launch_gemm(typename Gemm::Map map, int64_t rows, int64_t slices, int64_t groups, Stream stream) {
  static_assert(kSliceUnit % Gemm::kTile.depth == 0);
  const int64_t row_tiles = ceil_div<int64_t>(rows, Gemm::kTile.rows);
  const int64_t column_tiles = ceil_div<int64_t>(map.columns, Gemm::kTile.columns);
  constexpr int64_t kMaxBlocks = INT32_MAX;
  if (row_tiles > kMaxBlocks / column_tiles / slices / groups) {
    LaunchStatus status;
    status.error = static_cast<int>(cudaErrorInvalidConfiguration);
    return status;
  }
  map.grid = {static_cast<uint32_t>(column_tiles), static_cast<uint32_t>(row_tiles), static_cast<uint32_t>(slices)};
  const dim3 grid(static_cast<unsigned>(row_tiles * column_tiles * slices * groups)), block(Gemm::kThreads);
  allow_dynamic_shared(conv2d_gemm<Gemm>, Gemm::kSharedBytes);
  D2L_LAUNCH((conv2d_gemm<Gemm>), grid, block, Gemm::kSharedBytes, stream, map);
  const LaunchStatus status = launched(grid, block);
  if constexpr (Gemm::Map::kGathersMoments) {
    if (status.error == 0) return map.join(row_tiles, stream);
  }
  return status;
}

// The most bytes that one copy may take, given the tensors, the numbers of channels that lie in one run and the
// elements from one run to the next: 16, 4 or one element's. (cp.async also has 8; that would be one more kernel for
// few layers.)
template <typename T, typename... Elements>
int copy_bytes(const void* one, const void* other, Elements... elements) {
  const auto allows = [&](int bytes) {
    return is_aligned(one, bytes) && is_aligned(other, bytes) &&
           ((elements * static_cast<int64_t>(sizeof(T)) % bytes == 0) && ...);
  };
  if (allows(16)) return 16;
  return sizeof(T) < 4 && allows(4) ? 4 : static_cast<int>(sizeof(T));
}

// Launches the kernel for copies of copy_bytes.
template <Multiplier kMultiplier, typename Map>
LaunchStatus launch_product(const Map& map, int64_t rows, int64_t slices, int64_t groups, int copy_bytes,
                            Stream stream) {
  using T = typename Map::T;
  using Tiles = GemmTiles<T, kMultiplier>;
  constexpr int kElement = sizeof(T), kWide = 16 / kElement, kNarrow = kElement < 4 ? 4 / kElement : 1;
  constexpr int64_t kBlocksToFill = 128;  // with fewer large tiles than this, small ones keep more of the GPU busy
  if (copy_bytes == kElement) {
    return launch_gemm<Gemm<Map, kMultiplier, Tiles::kSmall, 1>>(map, rows, slices, groups, stream);
  }
  if (copy_bytes == 4) {
    return launch_gemm<Gemm<Map, kMultiplier, Tiles::kSmall, kNarrow>>(map, rows, slices, groups, stream);
  }
  const int64_t large_tiles = ceil_div<int64_t>(rows, Tiles::kLarge.rows) *
                              ceil_div<int64_t>(map.columns, Tiles::kLarge.columns) * slices * groups;
  if (large_tiles >= kBlocksToFill && rows > Tiles::kSmall.rows && map.columns > Tiles::kLarge.columns / 2) {
    return launch_gemm<Gemm<Map, kMultiplier, Tiles::kLarge, kWide>>(map, rows, slices, groups, stream);
  }
  return launch_gemm<Gemm<Map, kMultiplier, Tiles::kSmall, kWide>>(map, rows, slices, groups, stream);
}

// Results may be stored in vectors of up to 4 elements and 16 bytes: then rows begin at multiples of 4 elements.
inline bool stores_packed(const void* result, int64_t columns, int64_t row_stride) {
  return is_aligned(result, 16) && columns % 4 == 0 && row_stride % 4 == 0;
}

// The input as the forward kernel reads it.
inline PixelWindow input_window(const Conv2dShape& shape) {
  return {.pixels_h = shape.H,
          .pixels_w = shape.W,
          .channels = shape.input_pixel_stride(),
          .step_h = static_cast<int>(shape.stride_h),
          .step_w = static_cast<int>(shape.stride_w),
          .reach_h = static_cast<int>(shape.dilation_h),
          .reach_w = static_cast<int>(shape.dilation_w)};
}

inline PhasedAxis phased_axis(int64_t stride, int64_t dilation, int64_t pad, int64_t taps) {
  PhasedAxis axis{};
  const int64_t gcd = std::gcd(stride, dilation), step = stride / gcd;
  axis.stride = static_cast<int>(stride);
  axis.dilation = static_cast<int>(dilation);
  axis.pad = static_cast<int>(pad);
  axis.taps = static_cast<int>(taps);
  axis.gcd = static_cast<int>(gcd);
  axis.step = static_cast<int>(step);
  axis.inverse = static_cast<int>(inverse_modulo(dilation / gcd, step));
  axis.fewer = FastDivisor<uint32_t>(taps / step);
  axis.more = FastDivisor<uint32_t>(taps / step + 1);
  return axis;
}

// Fills the map, and launches. Map: ForwardMap<T> or ForwardMomentsMap<T>.
template <Multiplier kMultiplier, typename Map>
LaunchStatus launch_forward(Map map, const Conv2dShape& shape, const void* input, const void* weight, const void* bias,
                            Activation activation, void* output, Stream stream) {
  using T = typename Map::T;
  map.input = static_cast<const T*>(input);
  map.weight = static_cast<const T*>(weight);
  map.bias = static_cast<const T*>(bias);
  map.activation = activation;
  map.output = static_cast<T*>(output);
  map.window = input_window(shape);
  map.map_pixels = FastDivisor<uint64_t>(shape.P * shape.Q);
  map.map_width = FastDivisor<uint64_t>(shape.Q);
  map.group_channels = FastDivisor<uint32_t>(shape.group_c());
  map.taps_across = FastDivisor<uint32_t>(shape.S);
  map.rows = shape.N * shape.P * shape.Q;
  map.columns = static_cast<int>(shape.group_k());
  map.depth = static_cast<uint32_t>(shape.R * shape.S * shape.group_c());
  map.output_channels = shape.output_pixel_stride();
  map.pad_top = static_cast<int>(shape.pad_top);
  map.pad_left = static_cast<int>(shape.pad_left);
  map.packed = stores_packed(output, map.columns, map.output_channels);
  const int bytes = copy_bytes<T>(input, weight, shape.group_c(), map.window.channels);
  return launch_product<kMultiplier>(map, map.rows, 1, shape.groups, bytes, stream);
}

template <typename T, Multiplier kMultiplier>
LaunchStatus Conv2dKernels<T, kMultiplier>::forward(const Conv2dShape& shape, const void* input, const void* weight,
                                                    const void* bias, Activation activation, void* output,
                                                    Stream stream) {
  return launch_forward<kMultiplier>(ForwardMap<T>{}, shape, input, weight, bias, activation, output, stream);
}

template <typename T, Multiplier kMultiplier>
LaunchStatus Conv2dKernels<T, kMultiplier>::input_grad(const Conv2dShape& shape, const void* grad_output,
                                                       const void* weight, void* grad_input, Stream stream) {
  const int64_t phases_h = std::min(shape.stride_h, shape.H), phases_w = std::min(shape.stride_w, shape.W);
  const int64_t phase_h = ceil_div(shape.H, shape.stride_h), phase_w = ceil_div(shape.W, shape.stride_w);
  InputGradMap<T> map{};
  map.grad_output = static_cast<const T*>(grad_output);
  map.weight = static_cast<const T*>(weight);
  map.grad_input = static_cast<T*>(grad_input);
  map.axis_h = phased_axis(shape.stride_h, shape.dilation_h, shape.pad_top, shape.R);
  map.axis_w = phased_axis(shape.stride_w, shape.dilation_w, shape.pad_left, shape.S);
  map.window = {.pixels_h = shape.P,
                .pixels_w = shape.Q,
                .channels = shape.output_pixel_stride(),
                .step_h = 1,
                .step_w = 1,
                .reach_h = -map.axis_h.dilation / map.axis_h.gcd,
                .reach_w = -map.axis_w.dilation / map.axis_w.gcd};
  map.phase_pixels = FastDivisor<uint64_t>(phase_h * phase_w);
  map.phase_width = FastDivisor<uint64_t>(phase_w);
  map.group_channels = FastDivisor<uint32_t>(shape.group_k());
  map.rows = shape.N * phase_h * phase_w;
  map.H = shape.H;
  map.W = shape.W;
  map.input_channels = shape.input_pixel_stride();
  map.phases_across = static_cast<int>(phases_w);
  map.columns = static_cast<int>(shape.group_c());
  map.packed = stores_packed(grad_input, map.columns, map.input_channels);
  const int bytes = copy_bytes<T>(grad_output, weight, shape.group_k(), shape.group_c(), map.window.channels);
  return launch_product<kMultiplier>(map, map.rows, phases_h * phases_w, shape.groups, bytes, stream);
}

template <typename T, Multiplier kMultiplier>
LaunchStatus Conv2dKernels<T, kMultiplier>::weight_grad(const Conv2dShape& shape, const void* grad_output,
                                                        const void* input, void* grad_weight, void* workspace,
                                                        Stream stream) {
  using Sum = accumulate_t<T>;
  const WeightGradSlices slices = weight_grad_slices(shape);
  WeightGradMap<T> map{};
  map.grad_output = static_cast<const T*>(grad_output);
  map.input = static_cast<const T*>(input);
  map.grad_weight = static_cast<T*>(grad_weight);
  map.partial_sums = slices.count > 1 ? static_cast<Sum*>(workspace) : nullptr;
  map.window = input_window(shape);
  map.map_pixels = FastDivisor<uint64_t>(shape.P * shape.Q);
  map.map_width = FastDivisor<uint64_t>(shape.Q);
  map.group_channels = FastDivisor<uint32_t>(shape.group_c());
  map.taps_across = FastDivisor<uint32_t>(shape.S);
  map.depth = shape.N * shape.P * shape.Q;
  map.slice_depth = slices.depth;
  map.output_channels = shape.output_pixel_stride();
  map.rows = static_cast<int>(shape.group_k());
  map.columns = static_cast<int>(shape.R * shape.S * shape.group_c());
  map.weight_elements = shape.K * map.columns;
  map.pad_top = static_cast<int>(shape.pad_top);
  map.pad_left = static_cast<int>(shape.pad_left);
  map.packed = stores_packed(slices.count > 1 ? workspace : grad_weight, map.columns, map.columns);
  const int bytes =
      copy_bytes<T>(grad_output, input, shape.group_k(), shape.group_c(), map.output_channels, map.window.channels);
  const LaunchStatus status = launch_product<kMultiplier>(map, map.rows, slices.count, shape.groups, bytes, stream);
  if (status.error != 0 || slices.count == 1) return status;

  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(map.weight_elements, kReduceColumns)));
  const dim3 block(kReduceColumns, kReduceRows);
  D2L_LAUNCH((conv2d_reduce<T>), grid, block, 0, stream, map.partial_sums, map.grad_weight, map.weight_elements,
             slices.count);
  return launched(grid, block);
}

}  // namespace d2l::cuda
