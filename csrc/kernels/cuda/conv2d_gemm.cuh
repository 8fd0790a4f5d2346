// The tiled loop of every convolution kernel: an implicit matrix product (no im2col in memory).
//
//   result[row, column] = sum over depth of A[row, depth] B[column, depth]    per group and slice (conv2d_map.cuh)
//
// Fused: bias and activation in the forward store, and the statistics of what is stored (conv2d_gather.cuh). Bytes:
// both tensors are read once per tile of the other's axis, mostly from L2, the result is written once; 2 rows columns
// depth FLOPs. A block computes kTile.rows x kTile.columns sums: all threads copy the next tiles of A and B with
// cp.async, kTile.stages - 1 steps ahead, while they multiply the current ones (threads on the sums:
// conv2d_multiply.cuh). Sums are float32 (float64 for float64) and rounded once, at the store. The order of the
// additions depends on shapes and alignment only: deterministic.
#pragma once

#include "kernels/cuda/conv2d_gather.cuh"
#include "kernels/cuda/conv2d_kernels.cuh"
#include "kernels/cuda/conv2d_map.cuh"
#include "kernels/cuda/conv2d_multiply.cuh"

namespace d2l::cuda {

struct GemmTile {
  int rows, columns, depth, stages;
  int down, across;  // how many threads (SIMT) or warps (tensor cores) share the rows, the columns
};

template <typename Map_, Multiplier kMultiplier, GemmTile kTile_, int kVector>
struct Gemm {
  using Map = Map_;
  using T = typename Map::T;
  static constexpr GemmTile kTile = kTile_;
  using TileA = OperandTile<T, kTile.rows, kTile.depth, Map::kOrderA>;
  using TileB = OperandTile<T, kTile.columns, kTile.depth, Map::kOrderB>;
  using Multiply =
      std::conditional_t<kMultiplier == Multiplier::simt, SimtMultiply<TileA, TileB, kTile.down, kTile.across>,
                         TensorCoreMultiply<TileA, TileB, kTile.down, kTile.across>>;
  static constexpr int kThreads = Multiply::kThreads;
  using LoaderA = TileLoader<typename Map::SourceA, TileA, kThreads, kVector>;
  using LoaderB = TileLoader<typename Map::SourceB, TileB, kThreads, kVector>;
  static constexpr int kStageElements = TileA::kElements + TileB::kElements;
  static constexpr int kSharedBytes = kTile.stages * kStageElements * static_cast<int>(sizeof(T));
};

template <typename Gemm>
__global__ void __launch_bounds__(Gemm::kThreads) conv2d_gemm(const typename Gemm::Map map) {
  using T = typename Gemm::T;
  using DepthIndex = typename Gemm::Map::SourceA::DepthIndex;
  constexpr int kStages = Gemm::kTile.stages, kDepth = Gemm::kTile.depth;
  D2L_DYNAMIC_SHARED(T, shared);

  const auto tile = map.tile(blockIdx.x, Gemm::kTile.rows, Gemm::kTile.columns);
  const typename Gemm::LoaderA loader_a(map.source_a(tile), tile.row);
  const typename Gemm::LoaderB loader_b(map.source_b(tile), tile.column);
  typename Gemm::Multiply multiply;

  const DepthIndex begin = map.depth_begin(tile), end = map.depth_end(tile);
  const int steps = begin < end ? static_cast<int>(ceil_div<int64_t>(end - begin, kDepth)) : 0;
  const auto copy = [&](int step) {
    if (step < steps) {
      T* const stage = shared + step % kStages * Gemm::kStageElements;
      const DepthIndex depth = begin + static_cast<DepthIndex>(step) * kDepth;
      loader_a.copy(stage, depth);
      loader_b.copy(stage + Gemm::TileA::kElements, depth);
    }
    ptx::cp_async_commit();  // even an empty group: the wait below counts them
  };
  for (int step = 0; step < kStages - 1; ++step) copy(step);
  for (int step = 0; step < steps; ++step) {
    ptx::cp_async_wait<kStages - 2>();
    __syncthreads();  // this step's tiles are there for all; nobody reads those of the step before, refilled next
    copy(step + kStages - 1);
    const T* const stage = shared + step % kStages * Gemm::kStageElements;
    multiply.multiply(stage, stage + Gemm::TileA::kElements);
  }

  if constexpr (Gemm::Map::kGathersMoments) {
    store_and_gather<Gemm>(map, tile, multiply, shared);
  } else {
    multiply.visit(
        [&](int row) { return map.begin_row(tile, tile.row + row); },
        [&](int64_t row, int column, const auto& sums) { map.store(tile, row, tile.column + column, sums); });
  }
}

}  // namespace d2l::cuda
