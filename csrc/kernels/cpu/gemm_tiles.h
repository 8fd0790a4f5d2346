// The register tile of gemm_microkernel.h with the tiles of AMX: up to 32 rows by 32 columns, 16 pairs of the depth at
// a time. Rows of a lie in memory with their depth contiguous, at any distance. Only for kernel sources.
#pragma once

#include "kernels/cpu/amx.h"
#include "kernels/cpu/gemm_microkernel.h"
#include "kernels/cpu/gemm_skinny.h"
#include "kernels/cpu/transpose.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

#if defined(__AMX_BF16__)
// Pairs of a step that a depth is cut to, or 0 where steps would be poor and both operands are padded with zeros.
D2L_INLINE int64_t step_pairs(int64_t depth) {
  constexpr int64_t kLeast = 12;
  if (depth <= kTilePairs) return depth;
  for (int64_t pairs = kTilePairs; pairs >= kLeast; --pairs) {
    if (depth % pairs == 0) return pairs;
  }
  return 0;
}

D2L_INLINE bool is_whole_steps(int64_t depth) { return step_pairs(depth) > 0; }

// Of copied operands.
D2L_INLINE int64_t padded_depth(int64_t depth) {
  return step_pairs(depth) > 0 ? depth : ceil_div(depth, kTilePairs) * kTilePairs;
}

// Rows of an operand with their depth contiguous, padded. Where rows are neighbours in memory they are transposed.
template <typename T>
void copy_rows(const Operand<T>& from, Steps steps, int64_t row, int64_t count, T* to, int64_t to_row) {
  const int64_t padded = padded_depth(steps.size());
  if (!from.adjacent) {
    for (int64_t i = 0; i < count; ++i, to += to_row) {
      __builtin_memcpy(to, from.at(row + i, steps.begin, steps.run), static_cast<size_t>(steps.size()) * sizeof(T));
      for (int64_t d = steps.size(); d < padded; ++d) to[d] = 0;
    }
    return;
  }
  for (int64_t d = 0; d < padded; d += kLanes<T>) {
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      const int64_t rows = min(kLanes<T>, count - i);
      vec_t<T> block[kLanes<T>];
#pragma GCC unroll 16
      for (int j = 0; j < kLanes<T>; ++j) {
        block[j] =
            d + j < steps.size() ? from.neighbours(row + i, steps.begin + d + j, steps.run).at(0, rows) : vec_t<T>{};
      }
      transpose_registers<T>(block);
#pragma GCC unroll 16
      for (int j = 0; j < kLanes<T>; ++j) {
        if (j < rows) store(to + (i + j) * to_row + d, block[j]);
      }
    }
  }
}

// Complete sums are rounded and stored while the next tile is multiplied: tiles keep their unit busy, not the others.
template <typename T>
struct TileState {
  TileRegisters registers;
  alignas(kVectorBytes) T blocks[2][kGemmBlock<T>];
  int64_t used = 0;  // the block that waits, while row < rows
  int64_t row = 0, rows = 0;
  Value<T>* to;
  int64_t to_row, last_lanes;
  bool two_vectors, is_relu;

  D2L_INLINE void round(int64_t count) {
    const T* from = blocks[used] + row * kGemmColumns<T>;
    for (const int64_t end = min(rows, row + count); row < end; ++row, from += kGemmColumns<T>, to += to_row) {
      vec_t<T> first = load(from), second = load(from + kLanes<T>);
      if (is_relu) first = relu<T>(first), second = relu<T>(second);
      if (two_vectors && last_lanes == kLanes<T>) {
        store_values<T>(to, first, second);
      } else if (two_vectors) {
        store_value<T>(to, first);
        store_value<T>(to + kLanes<T>, second, last_lanes);
      } else {
        store_value<T>(to, first, last_lanes);
      }
    }
  }

  D2L_INLINE void finish() { round(rows); }
  D2L_INLINE void release() { registers.release(); }

  // The block that is not waiting takes its place.
  D2L_INLINE void wait_for(const GemmTile<T>& t, int64_t row_count, bool has_two_vectors) {
    used = 1 - used;
    row = 0;
    rows = row_count;
    to = t.rounded;
    to_row = t.rounded_row;
    last_lanes = t.last_lanes;
    two_vectors = has_two_vectors;
    is_relu = t.is_relu;
  }
};

template <typename T, bool kSecondRows, bool kSecondColumns>
void multiply_by_tiles(const GemmTile<T>& t, int64_t rows, int64_t pairs, TileState<T>& state) {
  T* const block = state.blocks[1 - state.used];
  constexpr int64_t kBlockRow = kGemmColumns<T>, kHalf = kTileHeight, kSize = sizeof(T);
  // Rows of c that have just this tile are padded to it.
  const bool whole = t.last_lanes == kLanes<T> || t.c_row == kBlockRow;
  const int64_t last = kSecondColumns ? kLanes<T> : 0;  // of the vectors of columns
  const bool in_place = whole && t.rounded == nullptr;
  if (t.adds && whole) {
    finish_stores();
    load_sums<kSecondRows, kSecondColumns>(t.c, t.c + kHalf * t.c_row, t.c_row * kSize);
  } else if (t.adds) {
    for (int64_t i = 0; i < rows; ++i) {
      const T* from = t.c + i * t.c_row;
      if (kSecondColumns) store(block + i * kBlockRow, load(from));
      store(block + i * kBlockRow + last, load_partial(from + last, t.last_lanes));
    }
    finish_stores();
    load_sums<kSecondRows, kSecondColumns>(block, block + kHalf * kBlockRow, kBlockRow * kSize);
  } else {
    finish_stores();
    load_sums<kSecondRows, kSecondColumns>(t.start, t.start + kHalf * t.start_row, t.start_row * kSize);
  }
  const T* first = t.a;
  const T* second = t.a + kHalf * t.a_row;
  const T* b = t.b;
  // With each step.
  const int64_t lines = ceil_div(t.share * pairs, t.depth), rounded_rows = ceil_div(kGemmRows * pairs, t.depth);
  for (int64_t d = 0; d < t.depth; d += pairs) {
    if (t.share > 0) t.next->fetch(min(lines, t.next->count));
    state.round(rounded_rows);
    multiply_tiles<kSecondRows, kSecondColumns>(first + d, second + d, t.a_row * kSize, b, t.b_depth * kSize);
    b += pairs * t.b_depth;
  }
  if (in_place) {
    store_sums<kSecondRows, kSecondColumns>(t.c, t.c + kHalf * t.c_row, t.c_row * kSize);
    return;
  }
  store_sums<kSecondRows, kSecondColumns>(block, block + kHalf * kBlockRow, kBlockRow * kSize);
  if (t.rounded != nullptr) {
    state.finish();
    state.wait_for(t, rows, kSecondColumns);
    return;
  }
  for (int64_t i = 0; i < rows; ++i) {
    T* to = t.c + i * t.c_row;
    if (kSecondColumns) store(to, load(block + i * kBlockRow));
    store_partial(to + last, load(block + i * kBlockRow + last), t.last_lanes);
  }
}

template <typename T>
D2L_INLINE void run_tile(const GemmTile<T>& t, int64_t rows, bool two_vectors, bool, TileState<T>& state) {
  const int64_t found = step_pairs(t.depth), pairs = found > 0 ? found : kTilePairs;
  state.registers.shape(min(rows, kTileHeight), max(0, rows - kTileHeight), pairs);
  if (rows > kTileHeight) {
    two_vectors ? multiply_by_tiles<T, true, true>(t, rows, pairs, state)
                : multiply_by_tiles<T, true, false>(t, rows, pairs, state);
  } else {
    two_vectors ? multiply_by_tiles<T, false, true>(t, rows, pairs, state)
                : multiply_by_tiles<T, false, false>(t, rows, pairs, state);
  }
}
#else
D2L_INLINE bool is_whole_steps(int64_t) { return true; }
D2L_INLINE int64_t padded_depth(int64_t depth) { return depth; }
#endif

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
