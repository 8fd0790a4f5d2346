// What the three index maps share that make a matrix product of a cross-correlation and of its derivatives. With G
// groups of k = K/G output and c = C/G input channels, for each group:
//
//                rows            columns     depth       A                       B
//   forward      N P Q           k           R S c       input under the window  weight
//   input grad   N H' W'         c           R' S' k     grad_output             weight      for each phase of pixels
//   weight grad  k               R S c       N P Q       grad_output             input under the window
//
// A map gives a block its Tile of the product, the sources of both operands (see conv2d_operand.cuh), the range of
// the depth and the place of the result. Pixel coordinates are below 2^30 (the launcher sees to it), offsets int64_t.
#pragma once

#include "kernels/cuda/conv2d_divisor.cuh"
#include "kernels/cuda/conv2d_operand.cuh"

namespace d2l::cuda {

// What one block computes: a tile of the product of one group and one slice (a phase, or a part of the depth).
struct TilePlace {
  int64_t row;
  int column, slice, group;
};

// Blocks in one dimension, so that none of CUDA's narrower limits matters. Neighbours share the rows of A.
struct TileGrid {
  uint32_t columns, rows, slices;

  __device__ __forceinline__ TilePlace place(uint32_t block, int tile_rows, int tile_columns) const {
    const uint32_t upper = block / columns, top = upper / rows;
    return {static_cast<int64_t>(upper % rows) * tile_rows, static_cast<int>(block % columns) * tile_columns,
            static_cast<int>(top % slices), static_cast<int>(top / slices)};
  }
};

// One part of the address of an element in a plain matrix; the sum of both parts is negative outside of it.
constexpr int64_t kOutside = INT64_MIN / 2;

// One part of the address of a pixel: coordinates and the offset that belongs to them.
struct PixelPart {
  int64_t offset;
  int h, w;
};

// Added to any coordinate it gives a negative one, which no map has.
constexpr int kNowhere = -(1 << 30);

// A map of pixels with channels innermost, read at (y * step + begin + tap * reach).
struct PixelWindow {
  int64_t pixels_h, pixels_w, channels;  // channels: elements from one pixel to the next
  int step_h, step_w;
  int reach_h, reach_w;

  __device__ __forceinline__ static PixelPart outside() { return {0, kNowhere, 0}; }
  __device__ __forceinline__ PixelPart position(int64_t image, int64_t y, int64_t x, int begin_h, int begin_w) const {
    const int h = static_cast<int>(y) * step_h + begin_h, w = static_cast<int>(x) * step_w + begin_w;
    return {((image * pixels_h + h) * pixels_w + w) * channels, h, w};
  }
  __device__ __forceinline__ PixelPart tap(int r, int s, int channel) const {
    const int h = r * reach_h, w = s * reach_w;
    return {(h * pixels_w + w) * channels + channel, h, w};
  }
  template <typename T>
  __device__ __forceinline__ Location<T> find(const T* base, const PixelPart& a, const PixelPart& b) const {
    const bool present = static_cast<unsigned>(a.h + b.h) < static_cast<unsigned>(pixels_h) &&
                         static_cast<unsigned>(a.w + b.w) < static_cast<unsigned>(pixels_w);
    return {present ? base + (a.offset + b.offset) : base, present};
  }
};

template <typename T>
__device__ __forceinline__ Location<T> find_plain(const T* base, int64_t a, int64_t b) {
  return {a + b >= 0 ? base + (a + b) : base, a + b >= 0};
}

// Stores neighbouring columns of a row, all at once if `packed` (then none of them lies outside alone).
template <typename T, typename Sum, int kRun>
__device__ __forceinline__ void store_columns(T* row, int column, int columns, bool packed,
                                              const Pack<Sum, kRun>& sums) {
  if (column >= columns) return;
  Pack<T, kRun> run;
#pragma unroll
  for (int i = 0; i < kRun; ++i) run[i] = narrow<T>(sums[i]);
  if (packed) {
    store_pack(row + column, run);
    return;
  }
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    if (column + i < columns) row[column + i] = run[i];
  }
}

}  // namespace d2l::cuda
