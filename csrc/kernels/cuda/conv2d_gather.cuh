// The store of a block of the forward product that gathers the statistics of its tile, for the batch normalisation
// behind it.
//
//   partials[tile of rows][channel] = count, mean and squared deviations of the stored values
//
// On their way the values also go to the shared memory that held the operands; then each thread takes some rows of one
// column. It sums distances from the first of them, as batch_norm_sums.cu does: nothing is lost where the mean
// is much larger than the deviation. No atomics: deterministic. Bytes: 24 (12 of 16-bit maps) for each column of a tile
// of 64 or 128 rows; the map itself is not read again.
#pragma once

#include "kernels/cuda/batch_norm_moments.cuh"
#include "kernels/cuda/conv2d_map.cuh"

namespace d2l::cuda {

template <typename Gemm>
__device__ __forceinline__ void store_and_gather(const typename Gemm::Map& map, const TilePlace& tile,
                                                 const typename Gemm::Multiply& multiply, void* shared) {
  using T = typename Gemm::T;
  using Value = accumulate_t<T>;
  using Stat = statistic_t<T>;
  constexpr int kRows = Gemm::kTile.rows, kColumns = Gemm::kTile.columns;
  constexpr int kParts = Gemm::kThreads / kColumns, kPartRows = kRows / kParts;
  static_assert(Gemm::kThreads % kColumns == 0 && kRows % kParts == 0);
  static_assert(kRows * kColumns * sizeof(Value) <= Gemm::kSharedBytes);
  static_assert(Gemm::kThreads * sizeof(Moments<Stat>) <= Gemm::kSharedBytes);
  // Columns change places, so that the rows that a warp writes fall on different banks.
  const auto place = [](int row, int column) { return row * kColumns + (column ^ (row % 4 * 8 + row / 4 % 2)); };

  Value* const values = static_cast<Value*>(shared);
  __syncthreads();  // the operands have been read
  struct Row {
    int64_t offset;
    int index;
  };
  multiply.visit([&](int row) { return Row{map.begin_row(tile, tile.row + row), row}; },
                 [&](const Row& row, int column, const auto& sums) {
                   map.store(tile, row.offset, tile.column + column, sums);
#pragma unroll
                   for (int i = 0; i < Gemm::Multiply::kRun; ++i) {
                     values[place(row.index, column + i)] = map.stored(tile, tile.column + column + i, sums[i]);
                   }
                 });
  __syncthreads();

  const int column = threadIdx.x % kColumns, part = threadIdx.x / kColumns, begin = part * kPartRows;
  const int64_t left = map.rows - tile.row - begin;
  const int rows = left < 0 ? 0 : left < kPartRows ? static_cast<int>(left) : kPartRows;
  const Value first = values[place(begin, column)];
  Value sum = 0, squares = 0;
#pragma unroll 4
  for (int row = begin; row < begin + rows; ++row) {
    const Value distance = values[place(row, column)] - first;
    sum += distance;
    squares += distance * distance;
  }
  Moments<Stat> moments = moments_around(first, static_cast<Stat>(rows), sum, squares);

  Moments<Stat>* const parts = static_cast<Moments<Stat>*>(shared);
  __syncthreads();  // the values have been read
  parts[threadIdx.x] = moments;
  __syncthreads();
  if (part > 0 || tile.column + column >= map.columns) return;
#pragma unroll
  for (int other = 1; other < kParts; ++other) moments.join(parts[other * kColumns + column]);
  map.partials[tile.row / kRows * map.channels + tile.group * map.columns + tile.column + column] = moments;
}

}  // namespace d2l::cuda
