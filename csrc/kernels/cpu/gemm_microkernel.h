// The register tile of the matrix product: Rows rows by NV vectors of columns stay in registers while the depth streams
// past; per step NV loads of b, Rows broadcasts of a and NV * Rows fused multiply-adds. A block of the depth is summed
// up by itself and then added to what was there: many short sums are more accurate than a long one. Only for kernel
// sources.
#pragma once

#include <utility>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/amx.h"
#include "kernels/cpu/gemm_product.h"
#include "kernels/cpu/integers.h"
#include "kernels/cpu/line_prefetch.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// Rows of a tile: as many as leave registers for b and one broadcast.
#if defined(__AMX_BF16__)
constexpr int kGemmRows = 2 * kTileHeight;
#elif defined(__AVX512F__)
constexpr int kGemmRows = 14;
#else
constexpr int kGemmRows = 6;
#endif

// Columns of a tile: two vectors.
template <typename T>
constexpr int64_t kGemmColumns = 2 * kLanes<T>;

template <typename T>
constexpr int64_t kGemmBlock = kGemmRows * kGemmColumns<T>;

template <typename T>
struct GemmTile {
  const T* a;
  int64_t a_row, a_depth;  // one of them is 1
  const T* b;
  int64_t b_depth;
  int64_t depth;
  const T* start;  // NV vectors that the sums of a row start from
  int64_t start_row;
  bool adds;  // the sums to what is in c
  T* c;
  int64_t c_row;
  int64_t last_lanes;  // lanes of the last vector that c has
  bool streams;        // c is whole vectors, aligned, and not read soon
  // Where the sums go, c included, once they are complete; null before.
  Value<T>* rounded;
  int64_t rounded_row;
  bool is_relu;        // of the rounded ones
  LinePrefetch* next;  // what the tiles bring into the cache for later
  int64_t share;       // lines of it to fetch, at most
};

template <typename T>
using GemmFunction = void (*)(const GemmTile<T>&);

#if !defined(__AMX_BF16__)  // else: gemm_tiles.h
// Rows share base pointers, three to one: x86 has addressing modes for that, but no integer register for every row.
constexpr int kRowsPerBase = 3;

// Stores complete sums, those in c included.
template <typename T, int Rows, int NV>
D2L_INLINE void round_tile(const GemmTile<T>& arguments, vec_t<T> (&sums)[Rows][NV]) {
  const int64_t lanes = arguments.last_lanes;
#pragma GCC unroll 14
  for (int i = 0; i < Rows; ++i) {
    const T* from = arguments.c + i * arguments.c_row;
    Value<T>* to = arguments.rounded + i * arguments.rounded_row;
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v, from += kLanes<T>) {
      const bool is_whole = v + 1 < NV || lanes == kLanes<T>;
      if (arguments.adds) sums[i][v] += is_whole ? load(from) : load_partial(from, lanes);
      if (arguments.is_relu) sums[i][v] = relu<T>(sums[i][v]);
    }
    if (NV == 2 && lanes == kLanes<T>) {
      store_values<T>(to, sums[i][0], sums[i][NV - 1]);
      continue;
    }
    if (NV == 2) store_value<T>(to, sums[i][0]);
    store_value<T>(to + (NV - 1) * kLanes<T>, sums[i][NV - 1], lanes);
  }
}

// So many steps of the depth are the rows of a ahead that have to come from the L2 cache.
constexpr int64_t kFetchedSteps = 4;

// kAdjacent: the rows of a are neighbours in memory (a_row is 1), else its depth is (a_depth is 1). kFetches: they lie
// in the L2 cache, in lines that the machine's own prefetch does not see coming.
template <typename T, int Rows, int NV, bool kAdjacent, bool kFetches = false>
void gemm_tile(const GemmTile<T>& arguments) {
  constexpr int kBases = kAdjacent ? 1 : (Rows + kRowsPerBase - 1) / kRowsPerBase;
  const int64_t row = arguments.a_row;
  const bool whole = arguments.last_lanes == kLanes<T>;
  const int64_t start_row = kRounds ? arguments.start_row : 0;
  vec_t<T> sums[Rows][NV];
#pragma GCC unroll 14
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      // Fetched while the tile is summed up.
      if (kRounds && arguments.rounded != nullptr) {
        if (v == 0) __builtin_prefetch(arguments.rounded + i * arguments.rounded_row, 1);
      } else if (!arguments.streams) {
        __builtin_prefetch(arguments.c + i * arguments.c_row + v * kLanes<T>, 1);
      }
      sums[i][v] = load(arguments.start + i * start_row + v * kLanes<T>);
    }
  }
  const T* base[kBases];
#pragma GCC unroll 5
  for (int i = 0; i < kBases; ++i) {
    base[i] = arguments.a + i * kRowsPerBase * row;
    // Hides that the bases are related; the compiler would make them a pointer per row again.
    asm("" : "+r"(base[i]));
  }
  const T* b = arguments.b;
  const int64_t a_step = kAdjacent ? arguments.a_depth : 1, b_step = arguments.b_depth;
  const auto step = [&]() D2L_INLINE_LAMBDA {
    vec_t<T> columns[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) columns[v] = load(b + v * kLanes<T>);
#pragma GCC unroll 14
    for (int i = 0; i < Rows; ++i) {
      const vec_t<T> value =
          broadcast(kAdjacent ? base[0][i] : base[i / kRowsPerBase % kBases][(i % kRowsPerBase) * row]);
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) sums[i][v] = multiply_add<T>(value, columns[v], sums[i][v]);
    }
    if (kFetches) __builtin_prefetch(base[0] + kFetchedSteps * a_step + Rows - 1);
    b += b_step;
#pragma GCC unroll 5
    for (int i = 0; i < kBases; ++i) base[i] += a_step;
  };
  run_steps(arguments.depth, arguments.share, *arguments.next, step);
  if constexpr (kRounds) {
    if (arguments.rounded != nullptr) {
      round_tile<T, Rows, NV>(arguments, sums);
      return;
    }
  }
#pragma GCC unroll 14
  for (int i = 0; i < Rows; ++i) {
    T* to = arguments.c + i * arguments.c_row;
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v, to += kLanes<T>) {
      const int64_t lanes = arguments.last_lanes;
      if (arguments.streams) {
        store_streaming(to, sums[i][v]);
      } else if (v + 1 < NV || whole) {
        if (arguments.adds) sums[i][v] += load(static_cast<const T*>(to));
        store(to, sums[i][v]);
      } else {
        if (arguments.adds) sums[i][v] += load_partial(static_cast<const T*>(to), lanes);
        store_partial(to, sums[i][v], lanes);
      }
    }
  }
}

template <typename T, int... I>
D2L_INLINE GemmFunction<T> gemm_function_of(int rows, bool two_vectors, bool adjacent,
                                            std::integer_sequence<int, I...>) {
  constexpr GemmFunction<T> kTiles[2][2][kGemmRows] = {
      {{gemm_tile<T, 1 + I, 1, false>...}, {gemm_tile<T, 1 + I, 1, true>...}},
      {{gemm_tile<T, 1 + I, 2, false>...}, {gemm_tile<T, 1 + I, 2, true>...}},
  };
  return kTiles[two_vectors][adjacent][rows - 1];
}

// The same for adjacent rows that are read in place, from the L2 cache.
template <typename T, int... I>
D2L_INLINE GemmFunction<T> fetching_function_of(int rows, bool two_vectors, std::integer_sequence<int, I...>) {
  constexpr GemmFunction<T> kTiles[2][kGemmRows] = {
      {gemm_tile<T, 1 + I, 1, true, true>...},
      {gemm_tile<T, 1 + I, 2, true, true>...},
  };
  return kTiles[two_vectors][rows - 1];
}

// What goes on from one tile to the next.
template <typename T>
struct TileState {
  void finish() {}
  void release() {}
};

// The tile of 1 .. kGemmRows rows and one or two vectors of columns.
template <typename T>
D2L_INLINE void run_tile(const GemmTile<T>& arguments, int64_t rows, bool two_vectors, bool adjacent, TileState<T>&) {
  gemm_function_of<T>(static_cast<int>(rows), two_vectors, adjacent,
                      std::make_integer_sequence<int, kGemmRows>{})(arguments);
}

template <typename T>
D2L_INLINE void run_fetching_tile(const GemmTile<T>& arguments, int64_t rows, bool two_vectors) {
  fetching_function_of<T>(static_cast<int>(rows), two_vectors, std::make_integer_sequence<int, kGemmRows>{})(arguments);
}
#endif

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
