// The correlation of conv2d_driver.h on pairs of channels, with the tile registers of AMX (amx.h). Only for kernel
// sources.
//
// Pixels of the result that follow one another along an axis are the rows of a tile: their sources lie one stride apart
// in the strip, whatever the stride of the convolution. Where rows of the strip follow one another as well, tiles may
// run on from row to row, over the halo, whose sums are dropped. Two tiles of pixels by two of channels share what they
// load, while all taps and channels of the source stream past.
#pragma once

#include "kernels/cpu/amx.h"
#include "kernels/cpu/conv2d_microkernel.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

#if defined(__AMX_BF16__)
// Pixels along an axis, and their strides.
struct PixelAxis {
  int64_t count, source, result;

  int64_t tiles() const { return ceil_div(count, kTileHeight); }
  int64_t tile_height() const { return ceil_div(count, tiles()); }
};

// Pairs of a step: they divide the contiguous ones of a tap.
inline int64_t tile_step(int64_t depth) {
  int64_t pairs = min(depth, kTilePairs);
  while (depth % pairs != 0) --pairs;
  return pairs;
}

// Zeros to add to the pairs of a tap, where they have no good divisor, nor have those of a row of taps that follow one
// another.
inline int64_t depth_padding(int64_t depth, int64_t taps, bool taps_adjoin) {
  if (depth == 0) return 0;
  const int64_t run = taps_adjoin ? depth * taps : depth;
  const int64_t steps = depth * taps / tile_step(run), fewest = ceil_div(depth, kTilePairs);
  return 4 * steps > 5 * fewest * taps ? fewest * ceil_div(depth, fewest) - depth : 0;
}

// One block of channels and all pixels of a phase. Where the results are bfloat16, the sums are rounded.
template <typename To>
struct TilePhase {
  TileArguments<float> t;  // but for the result; of the first pixel
  PixelAxis columns, rows, images;
  To* result;
  int64_t channels;  // to store, of the block

  // Of tiles that run on from row to row: columns of the strip and of the result, and the way to the next row of the
  // result from behind a row of the strip.
  int64_t pitch = kNoRows, kept = kNoRows, next_row = 0;

  // Tiles want many rows, else products wait for one another.
  void choose_rows_of_tiles() {
    if (images.count == 1 || rows.count == 1) join(rows, images);
    if (joins(rows, images)) join(rows, images);
    if (joins(columns, rows)) {
      join(columns, rows);
      rows = images;
      images.count = 1;
    }
    if (images.source < columns.source && images.tile_height() >= kEnough - 1) {  // side by side in the strip
      exchange(columns, images);
      return;
    }
    if (runs_on()) return;
    for (PixelAxis* other : {&rows, &images}) {
      const int64_t height = columns.tile_height();
      if (height < kEnough && other->tile_height() >= height + height / 4 + 1) exchange(columns, *other);
    }
  }

  template <bool kSecondColumns>
  void run(TileRegisters& registers) const {
    const int64_t pairs = tile_step(t.depth), height = columns.tile_height();
    registers.shape(height, height, pairs);
    finish_stores();
    const int64_t tiles = images.count * rows.count * columns.tiles();
    alignas(64) float sums[2 * kTileHeight * kBlockWidth<float>];
    Stored stored{};
    for (int64_t i = 0; i < tiles; i += 2) {
      const Pixels first = pixels(i);
      if (i + 1 < tiles) {
        const Pixels second = pixels(i + 1);
        sum<true, kSecondColumns>(first.source, second.source, pairs, sums, stored);
        stored = {sums, height, first, second};
      } else {
        sum<false, kSecondColumns>(first.source, first.source, pairs, sums, stored);
        stored = {sums, height, first, {}};
      }
    }
    store_pixels<kSecondColumns>(stored, 2 * height);
  }

 private:
  static constexpr int64_t kNoRows = int64_t{1} << 62;
  static constexpr int64_t kEnough = 13;  // rows of a tile

  struct Pixels {
    const float* source;
    To* result;
    int64_t column;  // the first one, in its row of the strip
  };

  // Pixels of one or two tiles whose sums are still to become results.
  struct Stored {
    const float* sums;
    int64_t count;
    Pixels pixels, second;
  };

  static void exchange(PixelAxis& a, PixelAxis& b) {
    const PixelAxis first = a;
    a = b;
    b = first;
  }

  // Whether the pixels of both axes are those of one.
  static bool joins(const PixelAxis& inner, const PixelAxis& outer) {
    return outer.source == inner.count * inner.source && outer.result == inner.count * inner.result;
  }
  static void join(PixelAxis& inner, PixelAxis& outer) {
    if (inner.count == 1) inner = {1, outer.source, outer.result};
    inner.count *= outer.count;
    outer.count = 1;
  }

  // Joins rows and columns if that makes fewer tiles.
  bool runs_on() {
    if (columns.count == 1 || rows.source % columns.source != 0) return false;
    const int64_t width = rows.source / columns.source;
    if (width < columns.count || 2 * columns.count <= width) return false;
    const PixelAxis run{(rows.count - 1) * width + columns.count, columns.source, columns.result};
    if (run.tiles() * 16 > rows.count * columns.tiles() * 15) return false;
    // Images may fill the rows of a tile better.
    if (rows.count * columns.count < min(images.count, kEnough - 1) * run.tiles()) return false;
    pitch = width;
    kept = columns.count;
    next_row = rows.result - width * columns.result;
    columns = run;
    rows = images;
    images.count = 1;
    return true;
  }

  // The i-th tile. The last ones of an axis overlap, and store the same results twice.
  D2L_INLINE Pixels pixels(int64_t i) const {
    const int64_t column = min(i % columns.tiles() * columns.tile_height(), columns.count - columns.tile_height());
    const int64_t row = i / columns.tiles() % rows.count, image = i / columns.tiles() / rows.count;
    return {t.source + column * columns.source + row * rows.source + image * images.source,
            result + column * columns.result + column / pitch * next_row + row * rows.result + image * images.result,
            column % pitch};
  }

  // Adds up a pair of tiles. The results of the pair before it are stored meanwhile, as the products leave the machine
  // time for that.
  template <bool kSecondRows, bool kSecondColumns>
  D2L_INLINE void sum(const float* first, const float* second, int64_t pairs, float* sums, Stored& stored) const {
    constexpr int64_t kWidth = kSecondColumns ? 2 * kTileColumns : kTileColumns;
    const int64_t pixel_bytes = columns.source * static_cast<int64_t>(sizeof(float));
    const int64_t steps = max(1, t.taps_h * t.taps_w * t.depth / pairs);
    const int64_t pixels_per_step = ceil_div(2 * columns.tile_height(), steps);
    start_sums<kSecondRows, kSecondColumns>(t.bias);
    for (int64_t r = 0; r < t.taps_h; ++r) {
      const float* weights = t.weights + r * t.weight_row;
      for (int64_t s = 0; s < t.taps_w; ++s) {
        const int64_t tap = r * t.tap_row + s * t.tap_column + (r + 1 == t.taps_h ? t.last_tap_row : 0);
        for (int64_t d = tap; d < tap + t.depth; d += pairs, weights += pairs * kWidth) {
          multiply_tiles<kSecondRows, kSecondColumns>(first + d, second + d, pixel_bytes, weights,
                                                      kWidth * static_cast<int64_t>(sizeof(float)));
          store_pixels<kSecondColumns>(stored, pixels_per_step);
        }
      }
    }
    store_pixels<kSecondColumns>(stored, 2 * kTileHeight);
    store_sums<kSecondRows, kSecondColumns>(sums, sums + kTileHeight * kBlockWidth<float>,
                                            kBlockWidth<float> * static_cast<int64_t>(sizeof(float)));
  }

  // Up to `count` more pixels.
  template <bool kSecondColumns>
  D2L_INLINE void store_pixels(Stored& stored, int64_t count) const {
    for (; count > 0 && stored.count > 0; --count) {
      Pixels& pixels = stored.pixels;
      if (pixels.column < kept) store_pixel<kSecondColumns>(stored.sums, pixels.result);
      stored.sums += kBlockWidth<float>;
      pixels.result += columns.result;
      if (++pixels.column == pitch) {
        pixels.column = 0;
        pixels.result += next_row;
      }
      if (--stored.count == 0 && stored.second.result != nullptr) {
        const int64_t height = columns.tile_height();
        stored = {stored.sums + (kTileHeight - height) * kBlockWidth<float>, height, stored.second, {}};
      }
    }
  }

  template <bool kSecondColumns>
  D2L_INLINE void store_pixel(const float* sums, To* to) const {
    vec_t<float> first = load(sums), second = kSecondColumns ? load(sums + kTileColumns) : vec_t<float>{};
    if (t.relu) {
      first = relu<float>(first);
      second = relu<float>(second);
    }
    if constexpr (std::is_same_v<To, float>) {
      store(to, first);
      if (kSecondColumns) store(to + kTileColumns, second);
    } else if (t.streams) {
      uint16_t* const bits = &to->bits;
      store_value_streaming<float>(bits, first);
      if (kSecondColumns) store_value_streaming<float>(bits + kTileColumns, second);
    } else {
      _mm512_mask_storeu_epi16(to, static_cast<__mmask32>((uint64_t{1} << channels) - 1),
                               (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first));
    }
  }
};
#else
struct TileRegisters {
  void release() {}
};
template <typename To>
struct TilePhase;
#endif

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
