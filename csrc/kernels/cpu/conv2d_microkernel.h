// The register tile of the correlation: Rows x Columns pixels by NV vectors of result channels stay in registers while
// all taps and channels of the source stream past; per source channel NV loads, Rows * Columns broadcasts and
// NV * Rows * Columns fused multiply-adds. Only for kernel sources.
#pragma once

#include "kernels/cpu/activation.h"
#include "kernels/cpu/conv2d_pack.h"
#include "kernels/cpu/gemm_product.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// Pixels of a tile: as many as leave registers for the weights and one broadcast.
#if defined(__AVX512F__)
constexpr int kTilePixels = 14;
#else
constexpr int kTilePixels = 6;
#endif
constexpr int kTileRows = 4;

template <typename T>
struct TileArguments {
  const T* source;
  int64_t source_row, source_pixel;  // strides between pixels of the tile
  int64_t taps_h, taps_w;
  int64_t tap_row, tap_column;  // source strides between taps
  int64_t last_tap_row;         // added for the last row of taps
  int64_t depth;                // contiguous source elements per tap
  const T* weights;
  int64_t weight_row;  // stride between rows of taps; within one, taps are contiguous
  const T* bias;       // NV vectors
  bool relu;           // of the sums
  T* result;
  int64_t result_row, result_pixel;
  int64_t last_lanes;  // lanes to store of the last vector
  bool streams;        // the result goes past the cache: whole vectors, aligned
};

template <typename T>
using TileFunction = void (*)(const TileArguments<T>&);

// Pixels share base pointers, three to one (base, + stride, + 2 * stride are x86 addressing modes): x86 has too few
// integer registers for a pointer each.
constexpr int kPixelsPerBase = 3;

template <typename T, int Rows, int Columns, int NV>
void tile(const TileArguments<T>& arguments) {
  constexpr int kBases = (Columns + kPixelsPerBase - 1) / kPixelsPerBase;
  const int64_t pixel = arguments.source_pixel;
  // With several rows of taps the lines that are stored at the end arrive in the meantime.
  const bool fetches = arguments.taps_h > 1 && !arguments.streams;
  vec_t<T> sums[Rows][Columns][NV];
#pragma GCC unroll 4
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 14
    for (int j = 0; j < Columns; ++j) {
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) {
        sums[i][j][v] = load(arguments.bias + v * kLanes<T>);
        if (fetches) {
          __builtin_prefetch(arguments.result + i * arguments.result_row + j * arguments.result_pixel + v * kLanes<T>,
                             1);
        }
      }
    }
  }
  const T* weights = arguments.weights;
  for (int64_t r = 0; r < arguments.taps_h; ++r) {
    weights = arguments.weights + r * arguments.weight_row;
    for (int64_t s = 0; s < arguments.taps_w; ++s) {
      const T* base[Rows][kBases];
#pragma GCC unroll 4
      for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 5
        for (int b = 0; b < kBases; ++b) {
          base[i][b] = arguments.source + r * arguments.tap_row + s * arguments.tap_column + i * arguments.source_row +
                       b * kPixelsPerBase * pixel;
          // Hides that the bases are related; the compiler would make them a pointer per pixel again.
          asm("" : "+r"(base[i][b]));
        }
      }
#pragma GCC unroll 1
      for (int64_t d = 0; d < arguments.depth; ++d) {
        vec_t<T> weight[NV];
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) weight[v] = load(weights + v * kLanes<T>);
#pragma GCC unroll 4
        for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 14
          for (int j = 0; j < Columns; ++j) {
            const vec_t<T> value = broadcast(base[i][j / kPixelsPerBase][(j % kPixelsPerBase) * pixel]);
#pragma GCC unroll 2
            for (int v = 0; v < NV; ++v) sums[i][j][v] = multiply_add<T>(value, weight[v], sums[i][j][v]);
          }
        }
        weights += NV * kLanes<T>;
#pragma GCC unroll 4
        for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 5
          for (int b = 0; b < kBases; ++b) ++base[i][b];
        }
      }
    }
  }
  if (arguments.relu) {
#pragma GCC unroll 4
    for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 14
      for (int j = 0; j < Columns; ++j) {
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) sums[i][j][v] = relu<T>(sums[i][j][v]);
      }
    }
  }
  const bool whole = arguments.last_lanes == kLanes<T>;
#pragma GCC unroll 4
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 14
    for (int j = 0; j < Columns; ++j) {
      T* result = arguments.result + i * arguments.result_row + j * arguments.result_pixel;
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) {
        if (arguments.streams) {
          store_streaming(result + v * kLanes<T>, sums[i][j][v]);
        } else if (v + 1 < NV || whole) {
          store(result + v * kLanes<T>, sums[i][j][v]);
        } else {
          store_partial(result + v * kLanes<T>, sums[i][j][v], arguments.last_lanes);
        }
      }
    }
  }
}

// The tile of 1 .. kTileRows x 1 .. kTilePixels / rows pixels.
template <typename T, int NV, int... I>
D2L_INLINE TileFunction<T> tile_of(int rows, int columns, std::integer_sequence<int, I...>) {
  constexpr TileFunction<T> kTiles[kTileRows][kTilePixels] = {
      {tile<T, 1, 1 + I % kTilePixels, NV>...},
      {tile<T, 2, 1 + I % (kTilePixels / 2), NV>...},
      {tile<T, 3, 1 + I % (kTilePixels / 3), NV>...},
      {tile<T, 4, 1 + I % (kTilePixels / 4), NV>...},
  };
  return kTiles[rows - 1][columns - 1];
}

template <typename T>
D2L_INLINE TileFunction<T> tile_function(int rows, int columns, bool two_vectors) {
  constexpr auto kIndices = std::make_integer_sequence<int, kTilePixels>{};
  return two_vectors ? tile_of<T, 2>(rows, columns, kIndices) : tile_of<T, 1>(rows, columns, kIndices);
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
