// Matrix products that read or write far more memory than they compute: those of few rows, and those of little depth.
// Each streams the large matrix once, in the order in which it lies in memory. Only for kernel sources.
#pragma once

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_microkernel.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// ---- b has its depth in contiguous memory: sums of products, vectorised over the depth ---------------------------

constexpr int kDotRows = 4;

// Columns summed at once: what the registers hold.
constexpr int dot_columns(int rows) {
#if defined(__AVX512F__)
  return rows <= 2 ? 8 : 6;
#else
  return rows == 1 ? 8 : rows == 2 ? 4 : rows == 3 ? 3 : 2;
#endif
}

template <typename T>
D2L_INLINE T sum_of_lanes(vec_t<T> value) {
  T sum = 0;
#pragma GCC unroll 16
  for (int i = 0; i < kLanes<T>; ++i) sum += value[i];
  return sum;
}

// Rows x Columns elements of c.
template <typename T, int Rows, int Columns>
D2L_INLINE void dot_tile(const Gemm<T>& problem, int64_t row, int64_t column) {
  vec_t<T> sums[Rows][Columns] = {};
  const T* a = problem.a + row * problem.a_row;
  const T* b = problem.b + column * problem.b_column;
  int64_t d = 0;
  for (; d + kLanes<T> <= problem.depth; d += kLanes<T>) {
    vec_t<T> values[Rows];
#pragma GCC unroll 4
    for (int i = 0; i < Rows; ++i) values[i] = load(a + i * problem.a_row + d);
#pragma GCC unroll 8
    for (int j = 0; j < Columns; ++j) {
      const vec_t<T> other = load(b + j * problem.b_column + d);
#pragma GCC unroll 4
      for (int i = 0; i < Rows; ++i) sums[i][j] = multiply_add<T>(values[i], other, sums[i][j]);
    }
  }
  if (d < problem.depth) {
    const int64_t rest = problem.depth - d;
    vec_t<T> values[Rows];
#pragma GCC unroll 4
    for (int i = 0; i < Rows; ++i) values[i] = load_partial(a + i * problem.a_row + d, rest);
#pragma GCC unroll 8
    for (int j = 0; j < Columns; ++j) {
      const vec_t<T> other = load_partial(b + j * problem.b_column + d, rest);
#pragma GCC unroll 4
      for (int i = 0; i < Rows; ++i) sums[i][j] = multiply_add<T>(values[i], other, sums[i][j]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < Columns; ++j) {
      const T sum = sum_of_lanes<T>(sums[i][j]);
      problem.c[(row + i) * problem.c_row + column + j] = problem.bias ? problem.bias[column + j] + sum : sum;
    }
  }
}

template <typename T, int Rows>
void dot_rows(const Gemm<T>& problem, int64_t row, int64_t begin, int64_t end) {
  constexpr int kColumns = dot_columns(Rows);
  int64_t column = begin;
  for (; column + kColumns <= end; column += kColumns) dot_tile<T, Rows, kColumns>(problem, row, column);
  for (; column < end; ++column) dot_tile<T, Rows, 1>(problem, row, column);
}

// Columns begin .. end of c.
template <typename T>
void multiply_by_dots(const Gemm<T>& problem, int64_t begin, int64_t end) {
  // A block of columns of b is in the cache for all rows.
  constexpr int64_t kBlock = 12;
  for (int64_t column = begin; column < end; column += kBlock) {
    const int64_t last = min(column + kBlock, end);
    for (int64_t row = 0; row < problem.rows; row += kDotRows) {
      switch (min(kDotRows, problem.rows - row)) {
        case 1:
          dot_rows<T, 1>(problem, row, column, last);
          break;
        case 2:
          dot_rows<T, 2>(problem, row, column, last);
          break;
        case 3:
          dot_rows<T, 3>(problem, row, column, last);
          break;
        default:
          dot_rows<T, 4>(problem, row, column, last);
      }
    }
  }
}

// ---- b has its columns in contiguous memory: sums of rows of b, vectorised over the columns ----------------------

constexpr int kSumRows = 8;

// Rows of b added at once: the fewer rows of c, the more.
constexpr int sum_depth(int rows) { return rows <= 2 ? 8 : 4; }

// Adds Depth rows of b, from `d` on, to Rows rows of c.
template <typename T, int Rows, int Depth>
void sum_tile(const Gemm<T>& problem, int64_t row, int64_t begin, int64_t end, int64_t d, bool streams = false) {
  const T* b[Depth];
  vec_t<T> factors[Rows][Depth];
#pragma GCC unroll 8
  for (int j = 0; j < Depth; ++j) {
    b[j] = problem.b + (d + j) * problem.b_depth;
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      factors[i][j] = broadcast(problem.a[(row + i) * problem.a_row + (d + j) * problem.a_depth]);
    }
  }
  T* c = problem.c + row * problem.c_row;
  const bool fetches = Rows > 2 && d + Depth < problem.depth;  // the next rows of b, to the L2 cache
  const auto step = [&](int64_t column, auto&& read, auto&& write) D2L_INLINE_LAMBDA {
    vec_t<T> sums[Rows];
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      sums[i] = d > 0          ? read(static_cast<const T*>(c + i * problem.c_row + column))
                : problem.bias ? read(problem.bias + column)
                               : vec_t<T>{};
    }
#pragma GCC unroll 8
    for (int j = 0; j < Depth; ++j) {
      if (fetches) __builtin_prefetch(b[j] + Depth * problem.b_depth + column, 0, 2);
      const vec_t<T> values = read(b[j] + column);
#pragma GCC unroll 8
      for (int i = 0; i < Rows; ++i) sums[i] = multiply_add<T>(factors[i][j], values, sums[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) write(c + i * problem.c_row + column, sums[i]);
  };
  const auto whole = [](const T* from) D2L_INLINE_LAMBDA { return load(from); };
  int64_t column = begin;
  if (streams) {
    for (; column + kLanes<T> <= end; column += kLanes<T>) {
      step(column, whole, [](T* to, vec_t<T> value) D2L_INLINE_LAMBDA { store_streaming(to, value); });
    }
  }
  for (; column + kLanes<T> <= end; column += kLanes<T>) {
    step(column, whole, [](T* to, vec_t<T> value) D2L_INLINE_LAMBDA { store(to, value); });
  }
  if (column < end) {
    const int64_t rest = end - column;
    step(
        column, [&](const T* from) D2L_INLINE_LAMBDA { return load_partial(from, rest); },
        [&](T* to, vec_t<T> value) D2L_INLINE_LAMBDA { store_partial(to, value, rest); });
  }
}

template <typename T, int Rows>
void sum_rows(const Gemm<T>& problem, int64_t row, int64_t begin, int64_t end) {
  constexpr int kDepth = sum_depth(Rows);
  int64_t d = 0;
  for (; d + kDepth <= problem.depth; d += kDepth) {
    sum_tile<T, Rows, kDepth>(problem, row, begin, end, d);
  }
  if (problem.depth - d >= 4) {
    sum_tile<T, Rows, 4>(problem, row, begin, end, d);
    d += 4;
  }
  if (problem.depth - d >= 2) {
    sum_tile<T, Rows, 2>(problem, row, begin, end, d);
    d += 2;
  }
  if (d < problem.depth) sum_tile<T, Rows, 1>(problem, row, begin, end, d);
}

// Rows from .. to, columns begin .. end of c.
template <typename T>
void multiply_by_sums(const Gemm<T>& problem, int64_t from, int64_t to, int64_t begin, int64_t end) {
  for (int64_t row = from; row < to; row += kSumRows) {
    switch (min(kSumRows, to - row)) {
      case 1:
        sum_rows<T, 1>(problem, row, begin, end);
        break;
      case 2:
        sum_rows<T, 2>(problem, row, begin, end);
        break;
      case 3:
        sum_rows<T, 3>(problem, row, begin, end);
        break;
      case 4:
        sum_rows<T, 4>(problem, row, begin, end);
        break;
      case 5:
        sum_rows<T, 5>(problem, row, begin, end);
        break;
      case 6:
        sum_rows<T, 6>(problem, row, begin, end);
        break;
      case 7:
        sum_rows<T, 7>(problem, row, begin, end);
        break;
      default:
        sum_rows<T, 8>(problem, row, begin, end);
    }
  }
}

// ---- the same for little depth and a result that is written past the cache: each line of it once -------------------

constexpr int kLittleDepth = 8;
// Columns of b that stay in the L1 cache for all rows.
constexpr int64_t kStreamedBlockBytes = 4096;

template <typename T, int Depth>
void stream_rows(const Gemm<T>& problem, int64_t from, int64_t to) {
  constexpr int64_t kBlock = kStreamedBlockBytes / static_cast<int64_t>(sizeof(T));
  for (int64_t column = 0; column < problem.columns; column += kBlock) {
    const int64_t last = min(column + kBlock, problem.columns);
    int64_t row = from;
    for (; row + 2 <= to; row += 2) sum_tile<T, 2, Depth>(problem, row, column, last, 0, true);
    if (row < to) sum_tile<T, 1, Depth>(problem, row, column, last, 0, true);
  }
}

// Rows from .. to of c, for a depth of at most kLittleDepth.
template <typename T>
void stream_sums(const Gemm<T>& problem, int64_t from, int64_t to) {
  constexpr void (*kFunctions[])(const Gemm<T>&, int64_t, int64_t) = {
      stream_rows<T, 1>, stream_rows<T, 2>, stream_rows<T, 3>, stream_rows<T, 4>,
      stream_rows<T, 5>, stream_rows<T, 6>, stream_rows<T, 7>, stream_rows<T, kLittleDepth>};
  kFunctions[problem.depth - 1](problem, from, to);
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
