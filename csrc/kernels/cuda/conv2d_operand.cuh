// One operand of the matrix product that a convolution is: its tile in shared memory, and how a block copies it there.
//
// An operand is a matrix of rows by depth (depth: the index that is summed over) that is gathered from a tensor by a
// Source, which splits the address in a part that a row gives and a part that a depth gives:
//
//   Row row(int64_t row), Depth depth(DepthIndex depth)    rows and depths outside the matrix are allowed
//   Location<T> find(const Row&, const Depth&)             where the element lies, or that it is zero
//
// Elements that are neighbours in memory are neighbours in shared memory, so that 16 bytes can be copied at once. They
// lie along the depth or along the rows; the parts that belong to a thread's rows are worked out only once.
#pragma once

#include "kernels/cuda/common.cuh"

namespace d2l::cuda {

enum class Order {
  depth_inner,  // [rows][depth]
  depth_outer,  // [depth][rows]
};

template <typename T>
struct Location {
  const T* pointer;
  bool present;  // else the element is zero
};

template <typename T, int kRows_, int kDepth_, Order kOrder_>
struct OperandTile {
  using Element = T;
  static constexpr int kRows = kRows_;
  static constexpr int kDepth = kDepth_;
  static constexpr Order kOrder = kOrder_;
  static constexpr int kInner = kOrder == Order::depth_inner ? kDepth : kRows;
  static constexpr int kOuter = kOrder == Order::depth_inner ? kRows : kDepth;
  // Keeps reads of one column free of bank conflicts. With the depth inside, rows are an odd number of 16-byte units
  // apart (ldmatrix and 16-byte reads take 8 rows at a time). With the rows inside, depths are 8 words apart (four
  // depths of 8 neighbouring 32-bit rows are read at a time) or an odd number of 16-byte units (16-bit elements).
  static constexpr int kPad = kOrder == Order::depth_inner ? 16 / static_cast<int>(sizeof(T)) : 8;
  static constexpr int kStride = kInner + kPad;
  static constexpr int kElements = kOuter * kStride;
  static_assert(kInner * sizeof(T) % 32 == 0 && kStride * sizeof(T) % 16 == 0);
  static_assert(kOrder == Order::depth_inner || kRows * sizeof(T) % 128 == 0);

  __device__ __forceinline__ static int offset(int row, int depth) {
    return kOrder == Order::depth_inner ? row * kStride + depth : depth * kStride + row;
  }
};

// Starts the copy of kVector elements. Less than 4 bytes are copied at once, not asynchronously.
template <int kVector, typename T>
__device__ __forceinline__ void copy_to_shared(T* shared, const Location<T>& from) {
  constexpr int kBytes = kVector * static_cast<int>(sizeof(T));
  if constexpr (kBytes >= 4) {
    ptx::cp_async<kBytes>(shared, from.pointer, from.present);
  } else {
    static_assert(kVector == 1);
    *shared = from.present ? *from.pointer : narrow<T>(0.0f);
  }
}

// Copies tiles of kVector neighbours at a time; a thread always copies the same rows.
template <typename Source, typename Tile, int kThreads, int kVector>
class TileLoader {
  using T = typename Tile::Element;
  static constexpr bool kDepthInner = Tile::kOrder == Order::depth_inner;
  static constexpr int kAcross = Tile::kInner / kVector;
  static constexpr int kDown = kThreads / kAcross;
  static constexpr int kCopies = Tile::kOuter / kDown;
  static constexpr int kRows = kDepthInner ? kCopies : 1;
  static_assert(Tile::kInner % kVector == 0 && kThreads % kAcross == 0 && Tile::kOuter % kDown == 0);

 public:
  __device__ __forceinline__ TileLoader(const Source& source, int64_t first_row)
      : source_(source), inner_(threadIdx.x % kAcross * kVector), outer_(threadIdx.x / kAcross) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) rows_[i] = source_.row(first_row + (kDepthInner ? outer_ + i * kDown : inner_));
  }

  __device__ __forceinline__ void copy(T* tile, typename Source::DepthIndex first_depth) const {
    T* const to = tile + outer_ * Tile::kStride + inner_;
    if constexpr (kDepthInner) {
      const auto depth = source_.depth(first_depth + inner_);
#pragma unroll
      for (int i = 0; i < kCopies; ++i) {
        copy_to_shared<kVector>(to + i * kDown * Tile::kStride, source_.find(rows_[i], depth));
      }
    } else {
#pragma unroll
      for (int i = 0; i < kCopies; ++i) {
        const auto depth = source_.depth(first_depth + outer_ + i * kDown);
        copy_to_shared<kVector>(to + i * kDown * Tile::kStride, source_.find(rows_[0], depth));
      }
    }
  }

 private:
  Source source_;
  int inner_, outer_;
  typename Source::Row rows_[kRows];
};

}  // namespace d2l::cuda
