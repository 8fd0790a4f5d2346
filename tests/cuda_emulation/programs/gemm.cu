// C = A B in TF32, with a kernel as the library writes them (cp.async in two stages, ldmatrix, mma, shuffles, an
// atomic sum) and a choice of synchronisation faults planted in it. Prints the largest error against float64, relative
// to the largest element, of C and of the sum of its squares.
//
//   gemm none | missing_wait | missing_barrier | missing_reuse_barrier
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/common.cuh"

namespace {

using namespace d2l::cuda;

enum class PlantedFault { none, missing_wait, missing_barrier, missing_reuse_barrier };

constexpr int kTileM = 32, kTileN = 32, kTileK = 16;
constexpr int kThreads = 64;         // two warps, each 16 rows of the tile
constexpr int kPitchA = kTileK + 4;  // floats; keeps rows 16-byte aligned and ldmatrix free of bank conflicts
constexpr int kPitchB = kTileN + 8;
constexpr int kStageFloats = kTileM * kPitchA + kTileK * kPitchB;

template <PlantedFault kFault>
__global__ void __launch_bounds__(kThreads)
    gemm(const float* a, const float* b, float* c, float* sum_of_squares, int m, int n, int k) {
  D2L_DYNAMIC_SHARED(float, stages);
  const int row0 = blockIdx.y * kTileM, column0 = blockIdx.x * kTileN;
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;

  const auto load = [&](int stage, int k0) {
    float* tile_a = stages + stage * kStageFloats;
    float* tile_b = tile_a + kTileM * kPitchA;
    for (int i = threadIdx.x; i < kTileM * kTileK / 4; i += kThreads) {
      const int row = i / (kTileK / 4), column = i % (kTileK / 4) * 4;
      const bool inside = row0 + row < m;
      ptx::cp_async<16>(tile_a + row * kPitchA + column, a + (inside ? row0 + row : 0) * k + k0 + column, inside);
    }
    for (int i = threadIdx.x; i < kTileK * kTileN / 4; i += kThreads) {
      const int row = i / (kTileN / 4), column = i % (kTileN / 4) * 4;
      ptx::cp_async<16>(tile_b + row * kPitchB + column, b + (k0 + row) * n + column0 + column, true);
    }
    ptx::cp_async_commit();
  };

  float sums[kTileN / 8][4] = {};
  load(0, 0);
  for (int k0 = 0, stage = 0; k0 < k; k0 += kTileK, stage ^= 1) {
    if (k0 + kTileK < k) {
      load(stage ^ 1, k0 + kTileK);
      if constexpr (kFault != PlantedFault::missing_wait) ptx::cp_async_wait<1>();
    } else {
      if constexpr (kFault != PlantedFault::missing_wait) ptx::cp_async_wait<0>();
    }
    if constexpr (kFault != PlantedFault::missing_barrier) __syncthreads();
    const float* tile_a = stages + stage * kStageFloats + warp * 16 * kPitchA;
    const float* tile_b = stages + stage * kStageFloats + kTileM * kPitchA;
    for (int kk = 0; kk < kTileK; kk += 8) {
      uint32_t fragment_a[4];  // ldmatrix moves pairs of 16-bit elements: a TF32 number each
      ptx::ldmatrix_x4(fragment_a, tile_a + (lane % 16) * kPitchA + kk + lane / 16 * 4);
      for (uint32_t& bits : fragment_a) bits = ptx::round_tf32(__uint_as_float(bits));
      for (int j = 0; j < kTileN / 8; ++j) {
        const float* column = tile_b + (kk + lane % 4) * kPitchB + j * 8 + lane / 4;
        const uint32_t fragment_b[2] = {ptx::round_tf32(column[0]), ptx::round_tf32(column[4 * kPitchB])};
        ptx::mma_m16n8k8_tf32(sums[j], fragment_a, fragment_b);
      }
    }
    if constexpr (kFault != PlantedFault::missing_reuse_barrier) __syncthreads();
  }

  float squares = 0;
  for (int j = 0; j < kTileN / 8; ++j) {
    for (int i = 0; i < 4; ++i) {
      const int row = row0 + warp * 16 + lane / 4 + i / 2 * 8, column = column0 + j * 8 + lane % 4 * 2 + i % 2;
      if (row >= m) continue;
      c[row * n + column] = sums[j][i];
      squares += sums[j][i] * sums[j][i];
    }
  }
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) squares += __shfl_xor_sync(kFullWarp, squares, offset);
  if (lane == 0) atomicAdd(sum_of_squares, squares);
}

template <PlantedFault kFault>
LaunchStatus launch_gemm(const float* a, const float* b, float* c, float* sum_of_squares, int m, int n, int k) {
  const dim3 grid(n / kTileN, ceil_div(m, kTileM)), block(kThreads);
  D2L_LAUNCH((gemm<kFault>), grid, block, 2 * kStageFloats * sizeof(float), nullptr, a, b, c, sum_of_squares, m, n, k);
  return launched(grid, block);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string fault = argc > 1 ? argv[1] : "none";
  constexpr int m = 72, n = 64, k = 96;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> a(m * k), b(k * n), c(m * n, std::numeric_limits<float>::quiet_NaN());
  for (float& x : a) x = normal(random);
  for (float& x : b) x = normal(random);
  float sum_of_squares = 0;
  const auto launch = fault == "missing_wait"            ? launch_gemm<PlantedFault::missing_wait>
                      : fault == "missing_barrier"       ? launch_gemm<PlantedFault::missing_barrier>
                      : fault == "missing_reuse_barrier" ? launch_gemm<PlantedFault::missing_reuse_barrier>
                                                         : launch_gemm<PlantedFault::none>;
  const LaunchStatus status = launch(a.data(), b.data(), c.data(), &sum_of_squares, m, n, k);
  if (status.error != 0) {
    std::printf("%s\n", error_string(status.error));
    return 1;
  }
  double error = 0, largest = 0, squares = 0;
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      double exact = 0;
      for (int l = 0; l < k; ++l) exact += static_cast<double>(a[i * k + l]) * b[l * n + j];
      const double difference = std::fabs(c[i * n + j] - exact);
      if (!std::isnan(error) && !(difference <= error)) error = difference;  // a NaN stays
      largest = std::fmax(largest, std::fabs(exact));
      squares += exact * exact;
    }
  }
  std::printf("%.3e %.3e\n", error / largest, std::fabs(sum_of_squares - squares) / squares);
  return 0;
}
