// Winograd's matrix products in the tiles of AMX (float_parts.h). Only for kernel sources.
//
// Such products wait for the L3 cache as soon as much of what they read comes from there. So one plane after the other
// is multiplied by all weights, which are read once for all tiles of a task; its pixels are split just before, and its
// products take their place.
#pragma once

#include "kernels/cpu/float_parts.h"
#include "kernels/cpu/line_prefetch.h"
#include "kernels/cpu/winograd_tiles.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

#if defined(__AMX_BF16__)
D2L_INLINE int64_t part_steps(int64_t depth) { return ceil_div(depth, kPartDepth); }

// Transformed weights of a block, as columns of b. Channels i and i + 16 of a step are a pair. As VectorWeights of
// winograd_kernel.cpp.
struct PartWeights {
  static constexpr int64_t kStep = kPartDepth;
  static constexpr int64_t kPerFloat = sizeof(float) / sizeof(uint16_t);
  // In floats. Rows of a, the pixels, are as large.
  static int64_t size(int64_t depth, int64_t width) {
    return part_steps(depth) * kParts * kPartDepth * width / kPerFloat;
  }

  template <typename Taps>
  static void transform(const float* packed, int64_t depth, int64_t width, float* to, int64_t plane) {
    constexpr int kIn = Taps::kIn, kOut = Taps::kOut;
    for (int64_t pair = 0; pair < part_steps(depth) * kTilePairs; ++pair) {
      const int64_t first_of_step = pair / kTilePairs * kPartDepth, row = pair % kTilePairs;
      auto* const row_to = reinterpret_cast<uint16_t*>(to + size(first_of_step, width)) + 2 * row * width;
      for (int64_t lane = 0; lane < width; lane += kLanes<float>) {
        const auto transform_channel = [&](int64_t d, auto&& put) D2L_INLINE_LAMBDA {
          const auto get = [&](int i, int j) D2L_INLINE_LAMBDA {
            return d < depth ? load(packed + ((i * kIn + j) * depth + d) * width + lane) : Floats{};
          };
          transform_2d<Taps>(get, put);
        };
        Floats first[kOut][kOut];
        transform_channel(first_of_step + row,
                          [&](int i, int j, Floats value) D2L_INLINE_LAMBDA { first[i][j] = value; });
        transform_channel(first_of_step + row + kTilePairs, [&](int i, int j, Floats value) D2L_INLINE_LAMBDA {
          store_parts(row_to + (i * kOut + j) * plane * kPerFloat + 2 * lane, kPartDepth * width,
                      paired_float_parts(first[i][j], value));
        });
      }
    }
  }
};

// Splits transformed pixels, a matrix of floats, into rows of a, some rows of a step at a time.
struct RowSplitter {
  const float* from;
  int64_t stride, rows, depth;
  uint16_t* to;
  int64_t left, row;

  static RowSplitter of(const float* from, int64_t stride, int64_t rows, int64_t depth, float* to) {
    return {from, stride, rows, depth, reinterpret_cast<uint16_t*>(to), part_steps(depth) * rows, 0};
  }

  D2L_INLINE void split(int64_t count) {
    left -= count;
    for (; count > 0; --count) {
      const Floats second = depth > kLanes<float> ? load(from + kLanes<float>) : Floats{};
      store_parts(to, rows * kPartDepth, paired_float_parts(load(from), second));
      from += stride;
      to += kPartDepth;
      if (++row == rows) next_step();
    }
  }

  D2L_INLINE void next_step() {
    row = 0;
    depth -= kPartDepth;
    from += kPartDepth - rows * stride;
    to += (kParts - 1) * rows * kPartDepth;
  }
};

// The product of a plane of tiles and all weights.
struct PlaneProduct {
  int64_t plane;
  const float* pixels;   // split
  const float* weights;  // [block][plane], in each PartWeights
  int64_t weight_block;  // stride between blocks
  int64_t depth, width;
  int64_t tiles;    // whole vectors
  float* products;  // [block][tile][channels of the block]
};

template <bool kSecondRows, bool kSecondColumns, typename Meanwhile>
D2L_INLINE void multiply_some(const PartOperands& operands, float* products, Meanwhile&& meanwhile) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  multiply_parts<kSecondRows, kSecondColumns>(operands, meanwhile);
  store_sums<kSecondRows, kSecondColumns>(products, products + kTileHeight * kBlock, kBlock * sizeof(float));
}

template <bool kSecondRows, typename Meanwhile>
D2L_INLINE void multiply_rows(const PartOperands& operands, bool two_vectors, float* products, Meanwhile&& meanwhile) {
  two_vectors ? multiply_some<kSecondRows, true>(operands, products, meanwhile)
              : multiply_some<kSecondRows, false>(operands, products, meanwhile);
}

// Meanwhile all rows of `splitter` are split and, as far as the time is enough, the lines of `next` fetched.
D2L_INLINE void multiply_plane(const PlaneProduct& m, RowSplitter& splitter, LinePrefetch& next) {
  constexpr int64_t kMostLines = 4;  // in a round, of about 64 cycles
  const int64_t steps = part_steps(m.depth), blocks = ceil_div(m.width, kBlock);
  const int64_t rounds = blocks * ceil_div(m.tiles, 2 * kTileHeight) * steps * kRoundsPerStep;
  const int64_t rows = ceil_div(splitter.left, rounds), lines = min(ceil_div(next.count, rounds), kMostLines);
  const auto meanwhile = [&]() D2L_INLINE_LAMBDA {
    splitter.split(min(rows, splitter.left));
    next.fetch(min(lines, next.count));
  };
  finish_stores();
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t width = width_of_block(m.width, b);
    const float* block = m.weights + b * m.weight_block + m.plane * plane_stride(PartWeights::size(m.depth, width));
    const auto* weights = reinterpret_cast<const uint16_t*>(block);
    for (int64_t i = 0; i < m.tiles; i += 2 * kTileHeight) {
      const auto* pixels = reinterpret_cast<const uint16_t*>(m.pixels) + i * kPartDepth;
      const PartOperands operands{pixels, weights, m.tiles, steps};
      float* products = m.products + (b * m.tiles + i) * kBlock;
      if (m.tiles - i > kTileHeight) {
        multiply_rows<true>(operands, width == kBlock, products, meanwhile);
      } else {
        multiply_rows<false>(operands, width == kBlock, products, meanwhile);
      }
    }
  }
}
#endif

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
