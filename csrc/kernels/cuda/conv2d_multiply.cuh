// The two units that multiply tiles in shared memory: sums[rows][columns] += A[rows][depth] B[columns][depth].
//
// SimtMultiply       float32, float64 with all bits: each thread owns kRows/kDown x kColumns/kAcross sums.
// TensorCoreMultiply mma.sync with float32 sums: bfloat16, float16 as they are, float32 rounded to TF32 (to nearest, as
//                    fragments are read). Each of kDown x kAcross warps owns an equal rectangle of the sums.
//
// Both accept either order of either tile. visit() hands the sums out: for each row that a thread holds, kRun
// neighbouring columns at a time.
#pragma once

#include "kernels/cuda/conv2d_operand.cuh"

namespace d2l::cuda {

template <typename TileA, typename TileB, int kDown, int kAcross>
class SimtMultiply {
  using T = typename TileA::Element;
  using Sum = accumulate_t<T>;
  static_assert(std::is_same_v<T, Sum> && TileA::kDepth == TileB::kDepth);
  static constexpr int kVector = 16 / static_cast<int>(sizeof(T));

  // Row i of a thread. Rows are dealt out one by one if a 16-byte read runs along the depth, else in vectors.
  template <typename Tile, int kThreads>
  __device__ __forceinline__ static int row_of(int thread, int i) {
    if constexpr (Tile::kOrder == Order::depth_inner) return i * kThreads + thread;
    return (i / kVector * kThreads + thread) * kVector + i % kVector;
  }

  template <typename Tile, int kThreads, int kCount>
  __device__ __forceinline__ static void load(T (&values)[kVector][kCount], const T* tile, int thread, int depth) {
    static_assert(Tile::kRows == kThreads * kCount && kCount % kVector == 0);
    if constexpr (Tile::kOrder == Order::depth_inner) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const auto pack = load_pack<T, kVector>(tile + Tile::offset(row_of<Tile, kThreads>(thread, i), depth));
#pragma unroll
        for (int v = 0; v < kVector; ++v) values[v][i] = pack[v];
      }
    } else {
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
#pragma unroll
        for (int i = 0; i < kCount; i += kVector) {
          const auto pack = load_pack<T, kVector>(tile + Tile::offset(row_of<Tile, kThreads>(thread, i), depth + v));
#pragma unroll
          for (int j = 0; j < kVector; ++j) values[v][i + j] = pack[j];
        }
      }
    }
  }

 public:
  static constexpr int kThreads = kDown * kAcross;
  static constexpr int kRowCount = TileA::kRows / kDown;
  static constexpr int kColumnCount = TileB::kRows / kAcross;
  static constexpr int kRun = TileB::kOrder == Order::depth_inner ? 1 : kVector;

  __device__ __forceinline__ void multiply(const T* a, const T* b) {
#pragma unroll 2
    for (int depth = 0; depth < TileA::kDepth; depth += kVector) {
      T x[kVector][kRowCount], y[kVector][kColumnCount];
      load<TileA, kDown>(x, a, threadIdx.x / kAcross, depth);
      load<TileB, kAcross>(y, b, threadIdx.x % kAcross, depth);
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
#pragma unroll
        for (int i = 0; i < kRowCount; ++i) {
#pragma unroll
          for (int j = 0; j < kColumnCount; ++j) sums_[i][j] += x[v][i] * y[v][j];
        }
      }
    }
  }

  // begin_row(row) gives what store(that, column, sums) is called with.
  template <typename BeginRow, typename Store>
  __device__ __forceinline__ void visit(BeginRow&& begin_row, Store&& store) const {
#pragma unroll
    for (int i = 0; i < kRowCount; ++i) {
      const auto row = begin_row(row_of<TileA, kDown>(threadIdx.x / kAcross, i));
#pragma unroll
      for (int j = 0; j < kColumnCount; j += kRun) {
        Pack<Sum, kRun> run;
#pragma unroll
        for (int v = 0; v < kRun; ++v) run[v] = sums_[i][j + v];
        store(row, row_of<TileB, kAcross>(threadIdx.x % kAcross, j), run);
      }
    }
  }

 private:
  Sum sums_[kRowCount][kColumnCount] = {};
};

template <typename TileA, typename TileB, int kDown, int kAcross>
class TensorCoreMultiply {
  using T = typename TileA::Element;
  static_assert(sizeof(T) <= 4 && TileA::kDepth == TileB::kDepth);
  // A fragment is 16 rows by 32 bytes of depth. Its registers hold rows 0-7 and 8-15 of the first 16 bytes, then of the
  // second: what mma wants of A; of B, registers {0, 2} and {1, 3} are the fragments of two blocks of 8 columns.
  static constexpr int kFragmentRows = 16;
  static constexpr int kHalfDepth = 16 / static_cast<int>(sizeof(T));
  static constexpr int kFragmentDepth = 2 * kHalfDepth;
  static constexpr int kWarpRows = TileA::kRows / kDown;
  static constexpr int kWarpColumns = TileB::kRows / kAcross;
  static constexpr int kRowFragments = kWarpRows / kFragmentRows;
  static constexpr int kColumnFragments = kWarpColumns / kFragmentRows;
  static_assert(kWarpRows % kFragmentRows == 0 && kWarpColumns % kFragmentRows == 0);
  static_assert(TileA::kDepth % kFragmentDepth == 0);

  template <typename Tile>
  __device__ __forceinline__ static void load(uint32_t (&fragment)[4], const T* tile, int row, int depth) {
    const int lane = threadIdx.x % kWarpSize;
    if constexpr (Tile::kOrder == Order::depth_inner) {
      ptx::ldmatrix_x4(fragment, tile + Tile::offset(row + lane % 16, depth + lane / 16 * kHalfDepth));
    } else if constexpr (sizeof(T) == 2) {
      ptx::ldmatrix_x4_trans(fragment, tile + Tile::offset(row + lane / 8 % 2 * 8, depth + lane % 8 + lane / 16 * 8));
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        fragment[i] = ptx::round_tf32(tile[Tile::offset(row + lane / 4 + i % 2 * 8, depth + lane % 4 + i / 2 * 4)]);
      }
    }
    if constexpr (sizeof(T) == 4 && Tile::kOrder == Order::depth_inner) {
#pragma unroll
      for (int i = 0; i < 4; ++i) fragment[i] = ptx::round_tf32(__uint_as_float(fragment[i]));
    }
  }

  __device__ __forceinline__ static void multiply_add(float (&sums)[4], const uint32_t (&a)[4],
                                                      const uint32_t (&b)[2]) {
    if constexpr (std::is_same_v<T, float>) {
      ptx::mma_m16n8k8_tf32(sums, a, b);
    } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
      ptx::mma_m16n8k16_bf16(sums, a, b);
    } else {
      ptx::mma_m16n8k16_f16(sums, a, b);
    }
  }

  __device__ __forceinline__ static int first_row() { return threadIdx.x / kWarpSize / kAcross * kWarpRows; }
  __device__ __forceinline__ static int first_column() { return threadIdx.x / kWarpSize % kAcross * kWarpColumns; }

 public:
  static constexpr int kThreads = kDown * kAcross * kWarpSize;
  static constexpr int kRun = 2;

  __device__ __forceinline__ void multiply(const T* a, const T* b) {
#pragma unroll
    for (int depth = 0; depth < TileA::kDepth; depth += kFragmentDepth) {
      uint32_t x[kRowFragments][4], y[kColumnFragments][4];
#pragma unroll
      for (int i = 0; i < kRowFragments; ++i) load<TileA>(x[i], a, first_row() + i * kFragmentRows, depth);
#pragma unroll
      for (int j = 0; j < kColumnFragments; ++j) load<TileB>(y[j], b, first_column() + j * kFragmentRows, depth);
#pragma unroll
      for (int i = 0; i < kRowFragments; ++i) {
#pragma unroll
        for (int j = 0; j < 2 * kColumnFragments; ++j) {
          const uint32_t (&pair)[4] = y[j / 2];
          multiply_add(sums_[i][j], x[i], {pair[j % 2], pair[j % 2 + 2]});
        }
      }
    }
  }

  template <typename BeginRow, typename Store>
  __device__ __forceinline__ void visit(BeginRow&& begin_row, Store&& store) const {
    const int lane = threadIdx.x % kWarpSize;
#pragma unroll
    for (int i = 0; i < 2 * kRowFragments; ++i) {
      const auto row = begin_row(first_row() + i * 8 + lane / 4);
#pragma unroll
      for (int j = 0; j < 2 * kColumnFragments; ++j) {
        const Pack<float, kRun> run{{sums_[i / 2][j][i % 2 * 2], sums_[i / 2][j][i % 2 * 2 + 1]}};
        store(row, first_column() + j * 8 + lane % 4 * 2, run);
      }
    }
  }

 private:
  float sums_[kRowFragments][2 * kColumnFragments][4] = {};
};

}  // namespace d2l::cuda
