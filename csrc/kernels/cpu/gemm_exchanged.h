// Products of few rows with a large b whose depth is contiguous: b's columns take the place of the rows of a, each read
// once and in place, and the rows of a that of packed columns. No sum across lanes is left over. Only for kernel
// sources.
#pragma once

#include "kernels/cpu/gemm_tiles.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// Rows this far apart all compete for one set of the L1 cache.
constexpr int64_t kAliasedBytes = kHasTiles ? 2048 : 4096;
// Blocks of the depth, and what a block of columns may be copied to.
constexpr int64_t kExchangedBytes = 2048;
template <typename T>
constexpr int64_t kExchangedDepth = kExchangedBytes / static_cast<int64_t>(sizeof(T));

// Few enough for one tile, and enough for its lanes: tiles of AMX can afford most of them empty, and the instruction
// for bfloat16, which is no faster than that of float32 on some machines, next to none.
template <typename T>
bool suits_exchange(const Product<T>& problem) {
  constexpr int64_t kTooFew = (kHasTiles ? 1 : 2) * kDotRows;
  constexpr int64_t kMostEmpty = kRounds && !kHasTiles ? kLanes<T> / 4 : kLanes<T>;
  const int64_t empty = ceil_div(problem.rows, kLanes<T>) * kLanes<T> - problem.rows;
  return problem.rows > kTooFew && problem.rows <= kGemmColumns<T> && empty < kMostEmpty &&
         is_whole_steps(problem.depth);
}

// The sums of `count` columns as rows of a block, c[j][i].
#if defined(__AMX_BF16__)
// A step of the depth of `count` columns from `b` on as the rows of a: where it lies, or rounded to `rows`.
template <typename T>
D2L_INLINE const T* rows_of_step(const T* b, int64_t, int64_t, int64_t, T*) {
  return b;
}
template <typename T>
D2L_INLINE const T* rows_of_step(const FloatPair* b, int64_t distance, int64_t count, int64_t pairs, T* rows) {
  for (int64_t i = 0; i < count; ++i) store(rows + i * kTilePairs, factor<T>(b + i * distance, pairs));
  finish_stores();
  return rows;
}

template <typename T, bool kSecondRows, bool kSecondColumns, typename Step>
D2L_INLINE void multiply_exchanged(const Product<T>& problem, const Step* b, const T* packed, int64_t pairs,
                                   int64_t count, T* block) {
  constexpr int64_t kSize = sizeof(T), kWidth = kSecondColumns ? kGemmColumns<T> : kLanes<T>;
  constexpr int64_t kAhead = 512, kLine = 64;
  constexpr bool kInPlace = sizeof(Step) == sizeof(T);
  alignas(kVectorBytes) static constexpr T kZeros[kGemmColumns<T>] = {};
  alignas(kVectorBytes) T rows[kInPlace ? 1 : kGemmRows * kTilePairs];
  const int64_t distance = problem.b.distance(), row = kInPlace ? distance : kTilePairs;
  finish_stores();
  start_sums<kSecondRows, kSecondColumns>(kZeros);
  for (int64_t d = 0; d < problem.depth; d += pairs) {
    // Too many rows of memory for the machine to fetch them by itself.
#pragma GCC unroll 1
    for (int64_t i = 0; i < count; ++i) {
      const char* from = reinterpret_cast<const char*>(b + i * distance + d) + kAhead;
      for (int64_t byte = 0; byte < kTilePairs * static_cast<int64_t>(sizeof(Step)); byte += kLine) {
        __builtin_prefetch(from + byte, 0, 2);
      }
    }
    const T* first = rows_of_step<T>(b + d, distance, count, pairs, rows);
    multiply_tiles<kSecondRows, kSecondColumns>(first, first + kTileHeight * row, row * kSize, packed + d * kWidth,
                                                kWidth * kSize);
  }
  store_sums<kSecondRows, kSecondColumns>(block, block + kTileHeight * kGemmColumns<T>, kGemmColumns<T> * kSize);
}

template <typename T, typename Step>
D2L_INLINE void multiply_block(const Product<T>& problem, const Step* b, const T* packed, int64_t, int64_t count,
                               LinePrefetch&, TileState<T>& state, T* block) {
  const int64_t pairs = step_pairs(problem.depth);
  const bool two_vectors = problem.rows > kLanes<T>;
  state.registers.shape(min(count, kTileHeight), max(0, count - kTileHeight), pairs);
  if (count > kTileHeight) {
    two_vectors ? multiply_exchanged<T, true, true>(problem, b, packed, pairs, count, block)
                : multiply_exchanged<T, true, false>(problem, b, packed, pairs, count, block);
  } else {
    two_vectors ? multiply_exchanged<T, false, true>(problem, b, packed, pairs, count, block)
                : multiply_exchanged<T, false, false>(problem, b, packed, pairs, count, block);
  }
}
#else
template <typename T>
D2L_INLINE void copy_steps(const T* from, int64_t depth, T* to) {
  __builtin_memcpy(to, from, static_cast<size_t>(depth) * sizeof(T));
}
#if defined(__AVX512BF16__)
template <typename T>
D2L_INLINE void copy_steps(const FloatPair* from, int64_t depth, T* to) {
  for (int64_t d = 0; d < depth; d += kLanes<T>) store(to + d, factor<T>(from + d, min(kLanes<T>, depth - d)));
}
#endif

template <typename T, typename Step>
D2L_INLINE void multiply_block(const Product<T>& problem, const Step* b, const T* packed, int64_t width, int64_t count,
                               LinePrefetch& next, TileState<T>& state, T* block) {
  alignas(kVectorBytes) static constexpr T kZeros[kGemmColumns<T>] = {};
  constexpr int64_t kCopiedRow = kExchangedDepth<T> + kLanes<T>;
  alignas(kVectorBytes) T copied[kGemmRows * kCopiedRow];
  const int64_t distance = problem.b.distance();
  // Floats are rounded on the way, and columns that far apart would compete for one set of the L1 cache.
  const bool copies = sizeof(Step) != sizeof(T) || distance * static_cast<int64_t>(sizeof(T)) % kAliasedBytes == 0;
  GemmTile<T> t{};
  t.a_row = copies ? kCopiedRow : distance;
  t.a_depth = 1;
  t.b_depth = width;
  t.start = kZeros;
  t.c = block;
  t.c_row = kGemmColumns<T>;
  t.last_lanes = kLanes<T>;
  t.next = &next;
  for (int64_t d = 0; d < problem.depth; d += kExchangedDepth<T>) {
    t.depth = min(kExchangedDepth<T>, problem.depth - d);
    for (int64_t i = 0; i < count && copies; ++i) {
      copy_steps(b + i * distance + d, t.depth, copied + i * kCopiedRow);
    }
    t.a = copies ? copied : reinterpret_cast<const T*>(b + d);
    t.b = packed + d * width;
    t.adds = d > 0;
    t.share = next.share(ceil_div(problem.depth - d, kExchangedDepth<T>), t.depth);
    run_tile<T>(t, count, width > kLanes<T>, false, state);
  }
}
#endif

// Columns begin .. end of c.
template <typename T, typename Step>
void multiply_exchanged_columns(const Product<T>& problem, const Sums<T>& to, const Step* b, const T* packed,
                                int64_t width, int64_t begin, int64_t end) {
  alignas(kVectorBytes) T block[kGemmBlock<T>];
  TileState<T> state;
  for (int64_t column = begin; column < end; column += kGemmRows) {
    const int64_t count = min(kGemmRows, end - column), left = min(kGemmRows, end - column - count);
    const Step* const from = b + column * problem.b.distance();
    LinePrefetch next{};
    if (left > 0) {
      next = LinePrefetch::of(from + count * problem.b.distance(), problem.depth, left, problem.b.distance());
    }
    multiply_block(problem, from, packed, width, count, next, state, block);
    T* const c = to.data + column;
    transpose<T>(static_cast<const T*>(block), kGemmColumns<T>, count, problem.rows, c, to.row);
    if (problem.bias == nullptr) continue;
    for (int64_t i = 0; i < problem.rows; ++i) {
      for (int64_t j = 0; j < count; j += kLanes<T>) {
        const int64_t lanes = min(kLanes<T>, count - j);
        T* const at = c + i * to.row + j;
        const vec_t<T> sum = load_partial(static_cast<const T*>(at), lanes);
        store_partial(at, sum + load_partial(problem.bias + column + j, lanes), lanes);
      }
    }
  }
  state.release();
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
