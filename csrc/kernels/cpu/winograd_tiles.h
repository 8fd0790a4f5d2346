// Transformed tiles of a map, as the matrix products of winograd_*_kernel.cpp read them: one plane per position in the
// transformed tile, in each a matrix of tiles by channels. Only for kernel sources.
#pragma once

#include "kernels/cpu/conv2d_pack.h"
#include "kernels/cpu/conv2d_strip.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/winograd_transform.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

constexpr int64_t kBlock = kBlockWidth<float>;
constexpr int64_t kLineElements = kLineBytes / sizeof(float);

// Of the planes. An odd number of cache lines: a tile is written to all planes at once, and planes a multiple of 4 KB
// apart would share one set of the L1 cache.
D2L_INLINE int64_t plane_stride(int64_t elements) { return (ceil_div(elements, kLineElements) | 1) * kLineElements; }

// Channels of block `block` of `channels`, filled up to whole vectors.
D2L_INLINE int64_t width_of_block(int64_t channels, int64_t block) {
  return channels - block * kBlock > kLanes<float> ? kBlock : kLanes<float>;
}

// The tiles of all images, in the order image, row, column. Tile (row, column) starts at pixel
// (first_row + row * step, first_column + column * step), which may lie outside.
struct TileGrid {
  int64_t images, rows, columns;
  int64_t step, first_row, first_column;
  int64_t count() const { return images * rows * columns; }
};

// A row of tiles, or a part of it.
struct TileRun {
  int64_t tile;  // its first, counted over all
  int64_t image, row, column;
  int64_t count;
};

// Calls visit(run) for the runs of at most `longest` tiles that the tiles [begin, end) consist of.
template <typename Visit>
D2L_INLINE void for_each_tile_run(const TileGrid& grid, int64_t begin, int64_t end, int64_t longest, Visit&& visit) {
  for (int64_t tile = begin; tile < end;) {
    const int64_t column = tile % grid.columns, row = tile / grid.columns;
    const int64_t count = min(min(longest, grid.columns - column), end - tile);
    visit(TileRun{tile, row / grid.rows, row % grid.rows, column, count});
    tile += count;
  }
}

// Where transformed tiles go: element (position, tile, channel) is at
// data + position * plane + tile * (tile_stride or the width of the block) + channel / kBlock * block + channel %
// kBlock.
struct TransformedTiles {
  float* data;
  int64_t plane, block;
  int64_t tile_stride;  // 0: each block of channels is a dense matrix
};

// What every thread may transform for itself: the copies share the L3 cache with what else is in it.
constexpr int64_t kOwnBytes = int64_t{5} << 20;

// Whether every thread transforms for itself what all need, and has at most 5/4 of its share of the work then. To write
// lines that another core has read, and to read what it has written, takes up to ten times as long as the transform
// where the cores have different L3 caches. `work` is that of the transform, `all` that of all steps.
D2L_INLINE bool has_own_copy(int64_t bytes, int64_t work, int64_t all) {
  return bytes <= kOwnBytes && 4 * (max_threads() - 1) * work <= all;
}

// Cycles for the transforms of one channel of these tiles, per position. A product of one channel and a vector takes
// half a cycle.
D2L_INLINE int64_t pixel_work(int64_t tiles) { return 4 * tiles / kLanes<float>; }

// Maps in NCHW go through a strip of this size.
constexpr int64_t kTileStripBytes = 192 << 10;

D2L_INLINE int64_t tiles_per_strip(const TileGrid& grid, int size, int64_t channels) {
  const int64_t bytes = size * grid.step * channels * static_cast<int64_t>(sizeof(float));
  return clamp(kTileStripBytes / max(1, bytes), 1, grid.columns);
}

// Scratch elements that transform_tiles needs: pixels of zeros, and the strip.
D2L_INLINE int64_t transform_scratch(const Map<const float>& map, const TileGrid& grid, int size) {
  const int64_t zeros = strip_elements<float>(map.depth);
  if (map.layout == Layout::nhwc) return zeros;
  const int64_t columns = (tiles_per_strip(grid, size, map.depth) - 1) * grid.step + size;
  return zeros + strip_elements<float>(size * columns * map.depth);
}

// One image or a strip of it.
struct PixelView {
  const float* data;
  int64_t row_stride, pixel_stride;
  int64_t rows, columns;
};

// The addresses of the Size x Size pixels from (row, column) on; pixels outside read as zeros.
template <int Size>
D2L_INLINE void tile_pixels(const PixelView& view, int64_t row, int64_t column, const float* zeros,
                            const float* (&pixels)[Size * Size]) {
  const float* first = view.data + row * view.row_stride + column * view.pixel_stride;
  const bool inside = row >= 0 && row + Size <= view.rows && column >= 0 && column + Size <= view.columns;
#pragma GCC unroll 8
  for (int i = 0; i < Size; ++i, first += view.row_stride) {
    const bool row_inside = row + i >= 0 && row + i < view.rows;
#pragma GCC unroll 8
    for (int j = 0; j < Size; ++j) {
      const bool is_pixel = inside || (row_inside && column + j >= 0 && column + j < view.columns);
      pixels[i * Size + j] = is_pixel ? first + j * view.pixel_stride : zeros;
    }
  }
}

template <typename Transform>
void transform_tile(const float* const* pixels, int64_t channels, int64_t tile, const TransformedTiles& to,
                    int64_t ahead = 0) {
  for (int64_t block = 0; block * kBlock < channels; ++block) {
    const int64_t width = width_of_block(channels, block);
    float* block_to = to.data + block * to.block + tile * (to.tile_stride > 0 ? to.tile_stride : width);
    for (int64_t lane = 0; lane < width; lane += kLanes<float>) {
      const int64_t channel = block * kBlock + lane;
      const int64_t rest = channels - channel;
      const auto put = [&](int i, int j, Floats value)
                           D2L_INLINE_LAMBDA { store(block_to + (i * Transform::kOut + j) * to.plane + lane, value); };
      const auto whole = [&](int i, int j) D2L_INLINE_LAMBDA {
        const float* from = pixels[i * Transform::kIn + j] + channel;
        __builtin_prefetch(from + ahead);
        return load(from);
      };
      const auto part = [&](int i, int j)
                            D2L_INLINE_LAMBDA { return load_partial(pixels[i * Transform::kIn + j] + channel, rest); };
      if (rest >= kLanes<float>) {
        transform_2d<Transform>(whole, put);
      } else {
        transform_2d<Transform>(part, put);
      }
    }
  }
}

// Transforms the tiles [begin, end) of the map; tile `begin` becomes tile `to_tile` of the target.
template <typename Transform>
void transform_tiles(const Map<const float>& map, const TileGrid& grid, int64_t begin, int64_t end, float* scratch,
                     const TransformedTiles& to, int64_t to_tile) {
  constexpr int kSize = Transform::kIn;
  const float* zeros = scratch;
  float* strip = scratch + strip_elements<float>(map.depth);
  zero(scratch, map.depth);
  const bool nhwc = map.layout == Layout::nhwc;
  const int64_t longest = nhwc ? grid.columns : tiles_per_strip(grid, kSize, map.depth);
  for_each_tile_run(grid, begin, end, longest, [&](const TileRun& run) {
    int64_t row = grid.first_row + run.row * grid.step, column = grid.first_column + run.column * grid.step;
    PixelView view{map.data + run.image * map.rows * map.columns * map.channels + map.first_channel,
                   map.columns * map.channels, map.channels, map.rows, map.columns};
    if (!nhwc) {
      const int64_t columns = (run.count - 1) * grid.step + kSize;
      copy_strip(map, Box{run.image, 1, row, kSize, 1, column, columns, 1}, strip, map.depth);
      view = {strip, columns * map.depth, map.depth, kSize, columns};
      row = column = 0;
    }
    for (int64_t i = 0; i < run.count; ++i, column += grid.step) {
      const float* pixels[kSize * kSize];
      tile_pixels<kSize>(view, row, column, zeros, pixels);
      transform_tile<Transform>(pixels, map.depth, to_tile + run.tile - begin + i, to, grid.step * view.pixel_stride);
    }
  });
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
