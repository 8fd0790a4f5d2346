// The matrix products of Winograd's weight gradients in tiles of AMX: of a plane, transposed input tiles times
// grad_output tiles, the depth being the tiles. Only for kernel sources.
//
// Transformed pixels are float32; their parts (float_parts.h) are packed right before they are multiplied, a unit of 32
// tiles by 32 channels between two steps of the products before: tiles and vectors work at the same time.
#pragma once

#include "kernels/cpu/float_parts.h"
#include "kernels/cpu/winograd_tiles.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// Four channels of 16 tiles, which lie `stride` apart: a register for each channel.
D2L_INLINE void transpose_four(const float* from, int64_t stride, Floats (&channels)[4]) {
  // Lane i of row j is the tile 4 i + j.
  constexpr __mmask16 kAll = 0xffff;
  __m512 rows[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const auto tile = [&](int i) D2L_INLINE_LAMBDA { return _mm_loadu_ps(from + (4 * i + j) * stride); };
    rows[j] = _mm512_maskz_broadcast_f32x4(kAll, tile(0));
    rows[j] = _mm512_mask_broadcast_f32x4(rows[j], 0x00f0, tile(1));
    rows[j] = _mm512_mask_broadcast_f32x4(rows[j], 0x0f00, tile(2));
    rows[j] = _mm512_mask_broadcast_f32x4(rows[j], 0xf000, tile(3));
  }
  const auto first = (__m512d)_mm512_maskz_unpacklo_ps(kAll, rows[0], rows[1]);
  const auto second = (__m512d)_mm512_maskz_unpacklo_ps(kAll, rows[2], rows[3]);
  const auto third = (__m512d)_mm512_maskz_unpackhi_ps(kAll, rows[0], rows[1]);
  const auto fourth = (__m512d)_mm512_maskz_unpackhi_ps(kAll, rows[2], rows[3]);
  channels[0] = (Floats)_mm512_maskz_unpacklo_pd(0xff, first, second);
  channels[1] = (Floats)_mm512_maskz_unpackhi_pd(0xff, first, second);
  channels[2] = (Floats)_mm512_maskz_unpacklo_pd(0xff, third, fourth);
  channels[3] = (Floats)_mm512_maskz_unpackhi_pd(0xff, third, fourth);
}

// kPartDepth tiles of `width` channels as rows of a: [part][channel][tile]
inline void pack_rows(const float* from, int64_t width, uint16_t* to) {
  for (int64_t c = 0; c < width; c += 4) {
    Floats first[4], second[4];
    transpose_four(from + c, width, first);
    transpose_four(from + kLanes<float> * width + c, width, second);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      store_parts(to + (c + i) * kPartDepth, width * kPartDepth, float_parts(first[i], second[i]));
    }
  }
}

// The same as columns of b: [part][pair of tiles][channel][2]
inline void pack_columns(const float* from, int64_t width, uint16_t* to) {
  for (int64_t i = 0; i < kTilePairs; ++i, from += 2 * width) {
    for (int64_t c = 0; c < width; c += kLanes<float>) {
      store_parts(to + 2 * (i * width + c), width * kPartDepth,
                  paired_float_parts(load(from + c), load(from + width + c)));
    }
  }
}

// A plane's transformed pixels: [block of channels][tile][width of the block]
struct PixelMatrix {
  const float* data;
  int64_t channels, tiles;  // that there is room for

  int64_t blocks() const { return ceil_div(channels, kBlock); }
  int64_t width(int64_t block) const { return width_of_block(channels, block); }
  const float* at(int64_t block, int64_t tile) const { return data + block * kBlock * tiles + tile * width(block); }
};

// Sums of input channels x channels of k over the tiles [first, first + tiles).
struct PlaneProduct {
  PixelMatrix input, gradient;  // all channels of the input, some blocks of k
  int64_t first, tiles;
  float* sums;         // [block of k][channel][width of the block]
  int64_t sums_block;  // from one block to the next
  bool fresh;          // sums hold nothing yet

  int64_t steps() const { return ceil_div(tiles, kPartDepth); }
  int64_t units() const { return steps() * (input.blocks() + gradient.blocks()); }
};

D2L_INLINE int64_t packed_size(int64_t channels, int64_t tiles) {
  return kParts * ceil_div(tiles, kPartDepth) * kPartDepth * channels;
}

// Packs a product's operands, unit by unit: the blocks of the input, then those of the gradient, each [step][unit].
class Packer {
 public:
  Packer(const PlaneProduct& product, uint16_t* to) : product_(product), to_(to) {}

  int64_t left() const { return product_.units() - unit_; }

  void pack_unit() {
    const int64_t steps = product_.steps(), step = unit_ % steps, i = unit_ / steps;
    const bool is_input = i < product_.input.blocks();
    const PixelMatrix& from = is_input ? product_.input : product_.gradient;
    const int64_t block = is_input ? i : i - product_.input.blocks();
    const int64_t width = from.width(block), tiles = product_.tiles - step * kPartDepth;
    const float* pixels = from.at(block, product_.first + step * kPartDepth);
    alignas(kLineBytes) float filled[kPartDepth * kBlock];
    if (tiles < kPartDepth) {
      __builtin_memcpy(filled, pixels, static_cast<size_t>(tiles * width) * sizeof(float));
      zero(filled + tiles * width, (kPartDepth - tiles) * width);
      pixels = filled;
    }
    uint16_t* const to = to_ + packed_size(kBlock, product_.tiles) * i + packed_size(width, kPartDepth) * step;
    is_input ? pack_rows(pixels, width, to) : pack_columns(pixels, width, to);
    ++unit_;
  }

 private:
  PlaneProduct product_;
  uint16_t* to_;
  int64_t unit_ = 0;
};

// Multiplies one product after the other. While one is multiplied, the next is packed.
class ProductPipeline {
 public:
  // Of the memory for products of so many blocks of channels and tiles.
  static int64_t buffer_size(int64_t blocks, int64_t tiles) { return 2 * packed_size(blocks * kBlock, tiles); }

  ProductPipeline(uint16_t* buffer, int64_t size) : packed_{buffer, buffer + size / 2} {
    registers_.shape(kTileHeight, kTileHeight, kTilePairs);
  }

  // The pixels may be overwritten afterwards; the sums are not there before finish().
  void add(const PlaneProduct& product) {
    Packer packer(product, packed_[next_]);
    if (has_current_) multiply(&packer);
    while (packer.left() > 0) packer.pack_unit();
    finish_stores();
    current_ = product;
    has_current_ = true;
    next_ = 1 - next_;
  }

  void finish() {
    if (has_current_) multiply(nullptr);
    add_pending();
    registers_.release();
  }

 private:
  void multiply(Packer* packer) {
    const PlaneProduct& p = current_;
    const int64_t rows = p.input.blocks(), columns = p.gradient.blocks(), stride = packed_size(kBlock, p.tiles);
    const uint16_t* const packed = packed_[1 - next_];
    int64_t rounds_left = p.steps() * rows * columns * kRoundsPerStep;
    const auto between = [&]() D2L_INLINE_LAMBDA {
      add_pending();
      const int64_t steps_left = rounds_left / kRoundsPerStep;
      if (rounds_left-- % kRoundsPerStep != 0 || packer == nullptr) return;  // once a step
      for (int64_t units = ceil_div(packer->left(), steps_left); units > 0; --units) packer->pack_unit();
    };
    for (int64_t column = 0; column < columns; ++column) {
      const int64_t width = p.gradient.width(column);
      for (int64_t row = 0; row < rows; ++row) {
        const PartOperands operands{packed + row * stride, packed + (rows + column) * stride, p.input.width(row),
                                    p.steps()};
        float* const sums = p.sums + column * p.sums_block + row * kBlock * width;
        if (operands.a_rows > kTileHeight) {
          width > kTileColumns ? multiply_block<true, true>(operands, sums, p.fresh, between)
                               : multiply_block<true, false>(operands, sums, p.fresh, between);
        } else {
          width > kTileColumns ? multiply_block<false, true>(operands, sums, p.fresh, between)
                               : multiply_block<false, false>(operands, sums, p.fresh, between);
        }
      }
    }
  }

  // Sums over the tiles start from zero and are added to those that are there later: long sums are less accurate.
  template <bool kSecondRows, bool kSecondColumns, typename Between>
  void multiply_block(const PartOperands& operands, float* sums, bool fresh, const Between& between) {
    constexpr int64_t kRow = (kSecondColumns ? 2 : 1) * kTileColumns;
    constexpr int64_t kRowBytes = kRow * static_cast<int64_t>(sizeof(float));
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    multiply_parts<kSecondRows, kSecondColumns>(operands, between);
    float* const to = fresh ? sums : new_sums_;
    store_sums<kSecondRows, kSecondColumns>(to, to + kTileHeight * kRow, kRowBytes);
    finish_stores();
    if (fresh) return;
    pending_ = sums;
    pending_size_ = (kSecondRows ? 2 : 1) * kTileHeight * kRow;
  }

  D2L_INLINE void add_pending() {
    if (pending_ == nullptr) return;
    for (int64_t i = 0; i < pending_size_; i += kLanes<float>) {
      store(pending_ + i,
            load(static_cast<const float*>(pending_ + i)) + load(static_cast<const float*>(new_sums_ + i)));
    }
    pending_ = nullptr;
  }

  alignas(kLineBytes) float new_sums_[2 * kTileHeight * 2 * kTileColumns];
  TileRegisters registers_;
  uint16_t* packed_[2];
  int64_t next_ = 0;
  PlaneProduct current_{};
  bool has_current_ = false;
  float* pending_ = nullptr;  // sums that new_sums_ have to be added to
  int64_t pending_size_ = 0;
};

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
