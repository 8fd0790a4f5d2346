// Products of float32 in the tiles of AMX, which multiply bfloat16 twelve times as fast as vector registers multiply
// float32. Only for kernel sources.
//
// A float32 is the sum of three bfloat16, its parts, exactly: each has the next 8 bits of what the one before leaves.
// Of the nine products of the parts of two values six are added up,
//
//   a b = a0 b0 + (a0 b1 + a1 b0) + (a0 b2 + a1 b1 + a2 b0) + error,   |error| <= 2^-22 |a b|, mostly below 2^-26 |a b|
//
// Tiles add 32 products up before these meet the sum, so that a sum is rounded less often than by multiply-adds: the
// relative L2 error is about half of theirs. The small products of a depth go before the large ones, while the sum is
// small itself.
//
// As with all products of bfloat16, what is smaller than 2^-126 counts as zero, parts included: values below 2^-102
// may lose bits. An infinity, a NaN or a value that rounds to infinity (from 2^128 - 2^119 on) makes the sum NaN or
// infinite, even where it would be infinite or finite in float32: who promises more checks is_finite and computes such
// sums anew.
#pragma once

#include <utility>

#include "kernels/cpu/amx.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

#if defined(__AMX_BF16__)
constexpr int kParts = 3;
constexpr int64_t kPartDepth = 2 * kTilePairs;  // of a step

// Values of two registers in each part.
struct FloatParts {
  __m512i part[kParts];
};

// Word i of each part is of lane Lane{}(i) of both registers, one after the other.
template <typename Lane>
D2L_INLINE FloatParts parts_of(vec_t<float> first, vec_t<float> second, Lane) {
  typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));
  typedef short Words __attribute__((vector_size(kVectorBytes)));
  constexpr uint32_t kUpper = 0xffff0000, kHalf = 0x8000;
  const auto uppers = [&]<int... I>(std::integer_sequence<int, I...>) D2L_INLINE_LAMBDA {
    return (__m512i)Words{static_cast<short>(2 * Lane{}(I) + 1)...};
  }(std::make_integer_sequence<int, 32>{});
  FloatParts parts;
  // The first part is rounded, so that the second may have either sign. That is cut, which leaves the third 8 bits.
  const Bits low = (Bits)first + kHalf, high = (Bits)second + kHalf;
  parts.part[0] = _mm512_maskz_permutex2var_epi16(0xffffffff, (__m512i)low, uppers, (__m512i)high);
  first -= (vec_t<float>)(low & kUpper);
  second -= (vec_t<float>)(high & kUpper);
  parts.part[1] = _mm512_maskz_permutex2var_epi16(0xffffffff, (__m512i)first, uppers, (__m512i)second);
  first -= (vec_t<float>)((Bits)first & kUpper);
  second -= (vec_t<float>)((Bits)second & kUpper);
  parts.part[2] = _mm512_maskz_permutex2var_epi16(0xffffffff, (__m512i)first, uppers, (__m512i)second);
  return parts;
}

// In their order: a row of a, at a step.
D2L_INLINE FloatParts float_parts(vec_t<float> first, vec_t<float> second) {
  return parts_of(first, second, [](int i) { return i; });
}

// In pairs (first[i], second[i]): a row of b, of two that follow one another along the depth; or rows of both a and b,
// where the pairs are to be 16 of a step apart.
D2L_INLINE FloatParts paired_float_parts(vec_t<float> first, vec_t<float> second) {
  return parts_of(first, second, [](int i) { return i / 2 + i % 2 * kLanes<float>; });
}

// `stride` values (of bfloat16) from one part to the next.
D2L_INLINE void store_parts(uint16_t* to, int64_t stride, const FloatParts& parts) {
#pragma GCC unroll 3
  for (int i = 0; i < kParts; ++i) _mm512_storeu_si512(to + i * stride, parts.part[i]);
}

// Whether all lanes are neither infinite nor NaN.
D2L_INLINE bool is_finite(vec_t<float> values) {
  constexpr int kQuietNan = 0x01, kInfinity = 0x08, kNegativeInfinity = 0x10, kNan = 0x80;
  return _mm512_fpclass_ps_mask((__m512)values, kQuietNan | kInfinity | kNegativeInfinity | kNan) == 0;
}

// Rows of a:    [step][part][row][kPartDepth]
// Columns of b: [step][part][kTilePairs][columns][2], of 16 or 32 columns
// The depth is filled up with zeros to whole steps in both.
struct PartOperands {
  const uint16_t *a, *b;
  int64_t a_rows;  // that each part has room for
  int64_t steps;
};

template <bool kSecondRows, bool kSecondColumns>
struct PartTiles {
  static constexpr int64_t kBytes = sizeof(uint16_t);
  static constexpr int64_t kBRow = kTileColumns * 2 * (kSecondColumns ? 2 : 1), kBPart = kTilePairs * kBRow;
  const uint16_t *a, *b;
  int64_t a_part;

  D2L_INLINE void load_a(int part) const {
    _tile_loadd(4, a + part * a_part, kPartDepth * kBytes);
    if (kSecondRows) _tile_loadd(5, a + part * a_part + kTileHeight * kPartDepth, kPartDepth * kBytes);
  }
  D2L_INLINE void load_b(int part) const {
    _tile_loadd(6, b + part * kBPart, kBRow * kBytes);
    if (kSecondColumns) _tile_loadd(7, b + part * kBPart + 2 * kTileColumns, kBRow * kBytes);
  }
  D2L_INLINE void multiply() const {
    _tile_dpbf16ps(0, 4, 6);
    if (kSecondColumns) _tile_dpbf16ps(1, 4, 7);
    if (kSecondRows) _tile_dpbf16ps(2, 5, 6);
    if (kSecondRows && kSecondColumns) _tile_dpbf16ps(3, 5, 7);
  }
  D2L_INLINE void next() {
    a += kParts * a_part;
    b += kParts * kBPart;
  }
};

constexpr int64_t kRoundsPerStep = 6;  // of products

// Adds all products to the sums, which load_sums of amx.h or _tile_zero have started. The tiles have the shape of their
// rows and 16 pairs. A round takes 64 cycles, in which all but the tiles is idle: meanwhile() is called once a round.
template <bool kSecondRows, bool kSecondColumns, typename Meanwhile>
D2L_INLINE void multiply_parts(const PartOperands& operands, Meanwhile&& meanwhile) {
  const PartTiles<kSecondRows, kSecondColumns> first{operands.a, operands.b, operands.a_rows * kPartDepth};
  auto tiles = first;
  for (int64_t i = 0; i < operands.steps; ++i, tiles.next()) {  // each product shares a factor with the next
    tiles.load_a(2);
    tiles.load_b(0);
    tiles.multiply();
    meanwhile();
    tiles.load_a(1);
    tiles.multiply();
    meanwhile();
    tiles.load_b(1);
    tiles.multiply();
    meanwhile();
    tiles.load_a(0);
    tiles.multiply();
    meanwhile();
    tiles.load_b(2);
    tiles.multiply();
    meanwhile();
  }
  tiles = first;
  for (int64_t i = 0; i < operands.steps; ++i, tiles.next()) {
    tiles.load_a(0);
    tiles.load_b(0);
    tiles.multiply();
    meanwhile();
  }
}
#endif

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
