// The tile registers of AMX: up to 16 rows of 64 bytes each. Only for kernel sources.
//
// A product of tiles adds, for each row i of a and column j of b, sum_k a[i, k] * b[k, j] to the sums [i, j]. Of a, a
// row holds up to 16 pairs of bfloat16 along the depth; of b, a row holds one pair for each of 16 columns; sums are
// float32. As with AVX512-BF16, subnormal factors and results count as zero. A product takes about as many cycles as a
// has rows, whatever the depth and the columns: tiles want full rows of 16 pairs and 16 columns.
//
// Here, four tiles of sums, (first, second rows of a) x (first, second columns of b), take turns with two of a and two
// of b, so that each load serves two products.
#pragma once

#include "kernels/cpu/integers.h"
#include "kernels/cpu/vec.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

#if defined(__AMX_BF16__)
constexpr bool kHasTiles = true;
constexpr int64_t kTileHeight = 16;   // rows, at most
constexpr int64_t kTilePairs = 16;    // of the depth, at most
constexpr int64_t kTileColumns = 16;  // of b and of the sums

// Gives this thread tiles of a shape, until release(). Their contents are lost with each change of shape.
class TileRegisters {
 public:
  // Until then every switch between threads saves and restores 8 KB. No destructor: it would add code for exceptions to
  // all around it, which kernels must not have (see capability.h).
  D2L_INLINE void release() {
    if (pairs_ > 0) _tile_release();
    pairs_ = 0;
  }

  // Rows of the first and of the second tile of a (where there is none: 0), and pairs of the depth of a step.
  D2L_INLINE void shape(int64_t first_rows, int64_t second_rows, int64_t pairs) {
    if (first_rows == first_rows_ && second_rows == second_rows_ && pairs == pairs_) return;
    first_rows_ = first_rows;
    second_rows_ = second_rows;
    pairs_ = pairs;
    Configuration configuration{};
    const int64_t second = second_rows > 0 ? second_rows : first_rows;
    const int64_t rows[8] = {first_rows, first_rows, second, second, first_rows, second, pairs, pairs};
    for (int i = 0; i < 8; ++i) {
      configuration.rows[i] = static_cast<uint8_t>(rows[i]);
      configuration.row_bytes[i] = static_cast<uint16_t>(i == 4 || i == 5 ? 4 * pairs : 4 * kTileColumns);
    }
    // Its intrinsic tells the compiler of the first 8 bytes only.
    asm volatile("" : : "r"(&configuration) : "memory");
    _tile_loadconfig(&configuration);
  }

 private:
  struct alignas(64) Configuration {
    uint8_t palette = 1, start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  };
  static_assert(sizeof(Configuration) == 64);

  int64_t first_rows_ = 0, second_rows_ = 0, pairs_ = 0;
};

// What follows does not tell the compiler which memory it reads: call this between the last store there and the loads.
D2L_INLINE void finish_stores() { asm volatile("" ::: "memory"); }

// What the sums start from, rows of 16 or 32 floats; the stride is in bytes.
template <bool kSecondRows, bool kSecondColumns>
D2L_INLINE void load_sums(const float* first, const float* second, int64_t row) {
  _tile_loadd(0, first, row);
  if (kSecondColumns) _tile_loadd(1, first + kTileColumns, row);
  if (kSecondRows) {
    _tile_loadd(2, second, row);
    if (kSecondColumns) _tile_loadd(3, second + kTileColumns, row);
  }
}

// The same from one row, which all rows of a share.
template <bool kSecondRows, bool kSecondColumns>
D2L_INLINE void start_sums(const float* row) {
  load_sums<kSecondRows, kSecondColumns>(row, row, 0);
}

// Adds the products of a step. Strides are in bytes.
template <bool kSecondRows, bool kSecondColumns>
D2L_INLINE void multiply_tiles(const void* first_a, const void* second_a, int64_t a_row, const float* first_b,
                               const float* second_b, int64_t b_row) {
  _tile_loadd(6, first_b, b_row);
  _tile_loadd(4, first_a, a_row);
  _tile_dpbf16ps(0, 4, 6);
  if (kSecondColumns) {
    _tile_loadd(7, second_b, b_row);
    _tile_dpbf16ps(1, 4, 7);
  }
  if (kSecondRows) {
    _tile_loadd(5, second_a, a_row);
    _tile_dpbf16ps(2, 5, 6);
    if (kSecondColumns) _tile_dpbf16ps(3, 5, 7);
  }
}

// Both tiles of b lie side by side.
template <bool kSecondRows, bool kSecondColumns>
D2L_INLINE void multiply_tiles(const void* first_a, const void* second_a, int64_t a_row, const float* b,
                               int64_t b_row) {
  multiply_tiles<kSecondRows, kSecondColumns>(first_a, second_a, a_row, b, b + kTileColumns, b_row);
}

// The sums as rows of 16 or 32 floats; the stride is in bytes.
template <bool kSecondRows, bool kSecondColumns>
D2L_INLINE void store_sums(float* first, float* second, int64_t row) {
  _tile_stored(0, first, row);
  if (kSecondColumns) _tile_stored(1, first + kTileColumns, row);
  if (kSecondRows) {
    _tile_stored(2, second, row);
    if (kSecondColumns) _tile_stored(3, second + kTileColumns, row);
  }
}
#else
constexpr bool kHasTiles = false;
#endif

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
