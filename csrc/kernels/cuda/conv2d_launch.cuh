// Picks a tile, fills the index map and launches; one instance per element type and multiplier, each in a file of its
// own (conv2d_<name>.cu), so that they compile side by side.
#pragma once

#include <numeric>

#include "kernels/cuda/conv2d_gemm.cuh"
#include "kernels/cuda/conv2d_plan.h"
#include "kernels/cuda/conv2d_reduce.cuh"
#include "kernels/cuda/conv2d_types.h"

namespace d2l::cuda {

template <typename T, Multiplier kMultiplier>
struct GemmTiles;

// {rows, columns, depth, stages, down, across}
template <>
struct GemmTiles<float, Multiplier::simt> {
  static constexpr GemmTile kSmall{64, 64, 16, 3, 16, 8};
  static constexpr GemmTile kLarge{128, 64, 16, 3, 16, 8};
};
template <>
struct GemmTiles<double, Multiplier::simt> {
  static constexpr GemmTile kSmall{64, 64, 8, 4, 16, 8};
  static constexpr GemmTile kLarge = kSmall;
};
template <>
struct GemmTiles<float, Multiplier::tensor_cores> {
  static constexpr GemmTile kSmall{64, 64, 16, 4, 2, 2};
  static constexpr GemmTile kLarge{128, 128, 16, 4, 2, 4};
};
template <typename T>
struct GemmTiles<T, Multiplier::tensor_cores> {
  static_assert(sizeof(T) == 2);
  static constexpr GemmTile kSmall{64, 64, 32, 4, 2, 2};
  static constexpr GemmTile kLarge{128, 128, 32, 4, 2, 4};
};

inline LaunchStatus failed(cudaError_t error) {
  LaunchStatus status;
  status.error = static_cast<int>(error);
  return status;
}

// Launches with `rows` rows in each of `slices` slices of each of `groups` groups.
template <typename Gemm>
LaunchStatus launch_gemm(typename Gemm::Map map, int64_t rows, int64_t slices, int64_t groups, Stream stream) {
  const int64_t row_tiles = ceil_div<int64_t>(rows, Gemm::kTile.rows);
  const int64_t column_tiles = ceil_div<int64_t>(map.columns, Gemm::kTile.columns);
  constexpr int64_t kMaxBlocks = INT32_MAX;
  const int64_t limit = kMaxBlocks / column_tiles / slices / groups;
  if (row_tiles > limit) return failed(cudaErrorInvalidConfiguration);
  map.grid = {static_cast<uint32_t>(column_tiles), static_cast<uint32_t>(row_tiles), static_cast<uint32_t>(slices)};
  // One sum of the epilogue's vectors may not straddle the end of a row or an alignment.
  const dim3 grid(static_cast<unsigned>(row_tiles * column_tiles * slices * groups)), block(Gemm::kThreads);
  allow_dynamic_shared(conv2d_gemm<Gemm>, Gemm::kSharedBytes);
  D2L_LAUNCH((conv2d_gemm<Gemm>), grid, block, Gemm::kSharedBytes, stream, map);
  return launched(grid, block);
}

// `wide`: channels and addresses allow 16-byte copies.
template <Multiplier kMultiplier, typename Map>
LaunchStatus launch_product(const Map& map, int64_t rows, int64_t slices, int64_t groups, bool wide, Stream stream) {
  using T = typename Map::T;
  using Tiles = GemmTiles<T, kMultiplier>;
  constexpr int kWide = 16 / static_cast<int>(sizeof(T));
  constexpr int64_t kBlocksToFill = 128;  // fewer large tiles than this leave multiprocessors idle
  if (!wide) return launch_gemm<Gemm<Map, kMultiplier, Tiles::kSmall, 1>>(map, rows, slices, groups, stream);
  const int64_t large_tiles = ceil_div<int64_t>(rows, Tiles::kLarge.rows) *
                              ceil_div<int64_t>(map.columns, Tiles::kLarge.columns) * slices * groups;
  if (large_tiles >= kBlocksToFill && rows > Tiles::kSmall.rows && map.columns > Tiles::kLarge.columns / 2) {
    return launch_gemm<Gemm<Map, kMultiplier, Tiles::kLarge, kWide>>(map, rows, slices, groups, stream);
  }
  return launch_gemm<Gemm<Map, kMultiplier, Tiles::kSmall, kWide>>(map, rows, slices, groups, stream);
}

constexpr int kCopyBytes = 16;

template <typename T, Multiplier kMultiplier>
LaunchStatus Conv2dKernels<T, kMultiplier>::forward(const Conv2dShape& shape, const void* input, const void* weight,
                                                    const void* bias, void* output, Stream stream) {
  ForwardMap<T> map{};
  map.input = static_cast<const T*>(input);
  map.weight = static_cast<const T*>(weight);
  map.bias = static_cast<const T*>(bias);
  map.output = static_cast<T*>(output);
  map.window = input_window(shape);
  map.map_pixels = FastDivisor<uint64_t>(shape.P * shape.Q);
  map.map_width = FastDivisor<uint64_t>(shape.Q);
  map.group_channels = FastDivisor<uint32_t>(shape.group_c());
  map.taps_across = FastDivisor<uint32_t>(shape.S);
  map.rows = shape.N * shape.P * shape.Q;
  map.columns = static_cast<int>(shape.group_k());
  map.depth = static_cast<uint32_t>(shape.R * shape.S * shape.group_c());
  map.output_channels = shape.K;
  map.pad_top = static_cast<int>(shape.pad_top);
  map.pad_left = static_cast<int>(shape.pad_left);
  const bool wide = copies_wide<T>(shape.group_c()) && is_aligned(input, kCopyBytes) && is_aligned(weight, kCopyBytes);
  map.packed = copies_wide<T>(shape.group_k()) && is_aligned(output, kCopyBytes);
  return launch_product<kMultiplier>(map, map.rows, 1, shape.groups, wide, stream);
}

}  // namespace d2l::cuda
