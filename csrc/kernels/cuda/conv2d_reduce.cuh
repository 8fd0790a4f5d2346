// Sums the slices of a weight gradient: result[i] = partial_sums[0, i] + partial_sums[1, i] + ...
//
// Reads slices * elements sums, writes each element once. A block takes 32 neighbouring elements; its 8 rows of threads
// each add every 8th slice, then one row adds the 8 sums. The order is fixed: deterministic. Float32 sums (float64 for
// float64), rounded once.
#pragma once

#include "kernels/cuda/common.cuh"

namespace d2l::cuda {

constexpr int kReduceColumns = 32;
constexpr int kReduceRows = 8;

template <typename T>
__global__ void __launch_bounds__(kReduceColumns* kReduceRows)
    conv2d_reduce(const accumulate_t<T>* __restrict__ partial_sums, T* __restrict__ result, int64_t elements,
                  int slices) {
  D2L_SHARED(accumulate_t<T>, row_sums, [kReduceRows][kReduceColumns]);
  const int64_t element = static_cast<int64_t>(blockIdx.x) * kReduceColumns + threadIdx.x;
  accumulate_t<T> sum = 0;
  if (element < elements) {
#pragma unroll 4
    for (int slice = threadIdx.y; slice < slices; slice += kReduceRows) sum += partial_sums[slice * elements + element];
  }
  row_sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && element < elements) {
#pragma unroll
    for (int row = 1; row < kReduceRows; ++row) sum += row_sums[row][threadIdx.x];
    result[element] = narrow<T>(sum);
  }
}

}  // namespace d2l::cuda
