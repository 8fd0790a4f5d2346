// Matrix products that read or write far more memory than they compute: those of few rows, and those of little depth.
// Each streams the large matrix once, in the order in which it lies in memory. Only for kernel sources.
#pragma once

#include <type_traits>

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

// A register of the depth of b, whole or in part: its values, or floats that are rounded to pairs.
template <typename T>
D2L_INLINE vec_t<T> factor(const T* b) {
  return load(b);
}
template <typename T>
D2L_INLINE vec_t<T> factor(const T* b, int64_t count) {
  return load_partial(b, count);
}
#if defined(__AVX512BF16__)
struct FloatPair {
  float first, second;
};
template <typename T>
D2L_INLINE vec_t<T> factor(const FloatPair* b) {
  return rounded_pairs<T>(_mm512_loadu_ps(b), _mm512_loadu_ps(b + kLanes<T> / 2));
}
template <typename T>
D2L_INLINE vec_t<T> factor(const FloatPair* b, int64_t count) {
  const uint32_t lanes = static_cast<uint32_t>((uint64_t{1} << 2 * count) - 1);
  return rounded_pairs<T>(_mm512_maskz_loadu_ps(static_cast<__mmask16>(lanes), b),
                          _mm512_maskz_loadu_ps(static_cast<__mmask16>(lanes >> kLanes<T>), b + kLanes<T> / 2));
}
#endif

// Rows x Columns elements of c. Steps of b are of type Step.
template <typename T, int Rows, int Columns, typename Step>
D2L_INLINE void dot_tile(const Product<T>& problem, const Sums<T>& to, const Step* b, int64_t row, int64_t column) {
  vec_t<T> sums[Rows][Columns] = {};
  const T* a = problem.a.at(row, 0, 0);
  b += column * problem.b.distance();
  const int64_t a_row = problem.a.distance(), b_column = problem.b.distance();
  int64_t d = 0;
  for (; d + kLanes<T> <= problem.depth; d += kLanes<T>) {
    vec_t<T> values[Rows];
#pragma GCC unroll 4
    for (int i = 0; i < Rows; ++i) values[i] = load(a + i * a_row + d);
#pragma GCC unroll 8
    for (int j = 0; j < Columns; ++j) {
      const vec_t<T> other = factor<T>(b + j * b_column + d);
#pragma GCC unroll 4
      for (int i = 0; i < Rows; ++i) sums[i][j] = multiply_add<T>(values[i], other, sums[i][j]);
    }
  }
  if (d < problem.depth) {
    const int64_t rest = problem.depth - d;
    vec_t<T> values[Rows];
#pragma GCC unroll 4
    for (int i = 0; i < Rows; ++i) values[i] = load_partial(a + i * a_row + d, rest);
#pragma GCC unroll 8
    for (int j = 0; j < Columns; ++j) {
      const vec_t<T> other = factor<T>(b + j * b_column + d, rest);
#pragma GCC unroll 4
      for (int i = 0; i < Rows; ++i) sums[i][j] = multiply_add<T>(values[i], other, sums[i][j]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < Columns; ++j) {
      const T sum = sum_of_lanes<T>(sums[i][j]);
      to.data[(row + i) * to.row + column + j] = problem.bias ? problem.bias[column + j] + sum : sum;
    }
  }
}

template <typename T, int Rows, typename Step>
void dot_rows(const Product<T>& problem, const Sums<T>& to, const Step* b, int64_t row, int64_t begin, int64_t end) {
  constexpr int kColumns = dot_columns(Rows);
  int64_t column = begin;
  for (; column + kColumns <= end; column += kColumns) dot_tile<T, Rows, kColumns>(problem, to, b, row, column);
  for (; column < end; ++column) dot_tile<T, Rows, 1>(problem, to, b, row, column);
}

// Columns begin .. end of c.
template <typename T, typename Step>
void multiply_by_dots(const Product<T>& problem, const Sums<T>& to, const Step* b, int64_t begin, int64_t end) {
  // A block of columns of b is in the cache for all rows.
  constexpr int64_t kBlock = 12;
  for (int64_t column = begin; column < end; column += kBlock) {
    const int64_t last = min(column + kBlock, end);
    for (int64_t row = 0; row < problem.rows; row += kDotRows) {
      switch (min(kDotRows, problem.rows - row)) {
        case 1:
          dot_rows<T, 1>(problem, to, b, row, column, last);
          break;
        case 2:
          dot_rows<T, 2>(problem, to, b, row, column, last);
          break;
        case 3:
          dot_rows<T, 3>(problem, to, b, row, column, last);
          break;
        default:
          dot_rows<T, 4>(problem, to, b, row, column, last);
      }
    }
  }
}

// function(b), of steps of either type.
template <typename T, typename Function>
D2L_INLINE void visit_steps(const Operand<T>& b, Function&& function) {
#if defined(__AVX512BF16__)
  if (b.floats != nullptr) return function(reinterpret_cast<const FloatPair*>(b.floats));
#endif
  function(b.at(0, 0, 0));
}

// ---- b has its columns in contiguous memory: sums of rows of b, vectorised over the columns ----------------------

constexpr int kSumRows = 8;

// Rows of b added at once: the fewer rows of c, the more.
constexpr int sum_depth(int rows) { return rows <= 2 ? 8 : 4; }

// Lanes of a whole vector are a constant, of the type of one.
template <typename Lanes>
constexpr bool is_whole = !std::is_same_v<Lanes, int64_t>;

// Adds Depth rows of b, from `d` on, to Rows rows of sums, which read(i, column, lanes) reads unless d is 0 and
// write(i, column, sum, lanes) writes.
template <typename T, int Rows, int Depth, typename Read, typename Write>
D2L_INLINE void sum_tile(const Product<T>& problem, int64_t row, int64_t begin, int64_t end, int64_t d, Read&& read,
                         Write&& write) {
  Neighbours<T> b[Depth];
  vec_t<T> factors[Rows][Depth];
#pragma GCC unroll 8
  for (int j = 0; j < Depth; ++j) {
    b[j] = problem.b.neighbours(0, d + j, 0);
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) factors[i][j] = broadcast(problem.a.element(row + i, d + j));
  }
  const bool fetches = Rows > 2 && d + Depth < problem.depth;  // the next rows of b, to the L2 cache
  const int64_t ahead = Depth * kStepValues * problem.b.depth;
  const auto step = [&](int64_t column, auto lanes) D2L_INLINE_LAMBDA {
    constexpr bool kWhole = is_whole<decltype(lanes)>;
    vec_t<T> sums[Rows];
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      if (d > 0) {
        sums[i] = read(i, column, lanes);
      } else if (problem.bias == nullptr) {
        sums[i] = vec_t<T>{};
      } else if (problem.is_row_bias) {
        sums[i] = broadcast(problem.bias[row + i]);
      } else {
        sums[i] = kWhole ? load(problem.bias + column) : load_partial(problem.bias + column, lanes);
      }
    }
#pragma GCC unroll 8
    for (int j = 0; j < Depth; ++j) {
      if (fetches) b[j].prefetch(column + ahead);
      const vec_t<T> values = kWhole ? b[j].at(column) : b[j].at(column, lanes);
#pragma GCC unroll 8
      for (int i = 0; i < Rows; ++i) sums[i] = multiply_add<T>(factors[i][j], values, sums[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) write(i, column, sums[i], lanes);
  };
  int64_t column = begin;
  for (; column + kLanes<T> <= end; column += kLanes<T>) step(column, std::integral_constant<int64_t, kLanes<T>>{});
  if (column < end) step(column, end - column);
}

template <typename T, int Rows, int Depth>
void add_tile(const Product<T>& problem, const Sums<T>& to, int64_t row, int64_t begin, int64_t end, int64_t d) {
  T* const c = to.data + row * to.row;
  sum_tile<T, Rows, Depth>(
      problem, row, begin, end, d,
      [&](int i, int64_t column, auto lanes) D2L_INLINE_LAMBDA {
        const T* from = c + i * to.row + column;
        return is_whole<decltype(lanes)> ? load(from) : load_partial(from, lanes);
      },
      [&](int i, int64_t column, vec_t<T> sum, auto lanes) D2L_INLINE_LAMBDA {
        T* result = c + i * to.row + column;
        is_whole<decltype(lanes)> ? store(result, sum) : store_partial(result, sum, lanes);
      });
}

template <typename T, int Rows>
void sum_rows(const Product<T>& problem, const Sums<T>& to, int64_t row, int64_t begin, int64_t end) {
  constexpr int kDepth = sum_depth(Rows);
  int64_t d = 0;
  for (; d + kDepth <= problem.depth; d += kDepth) add_tile<T, Rows, kDepth>(problem, to, row, begin, end, d);
  if (problem.depth - d >= 4) {
    add_tile<T, Rows, 4>(problem, to, row, begin, end, d);
    d += 4;
  }
  if (problem.depth - d >= 2) {
    add_tile<T, Rows, 2>(problem, to, row, begin, end, d);
    d += 2;
  }
  if (d < problem.depth) add_tile<T, Rows, 1>(problem, to, row, begin, end, d);
}

// Rows from .. to, columns begin .. end of c.
template <typename T>
void multiply_by_sums(const Product<T>& problem, const Sums<T>& sums, int64_t from, int64_t to, int64_t begin,
                      int64_t end) {
  for (int64_t row = from; row < to; row += kSumRows) {
    switch (min(kSumRows, to - row)) {
      case 1:
        sum_rows<T, 1>(problem, sums, row, begin, end);
        break;
      case 2:
        sum_rows<T, 2>(problem, sums, row, begin, end);
        break;
      case 3:
        sum_rows<T, 3>(problem, sums, row, begin, end);
        break;
      case 4:
        sum_rows<T, 4>(problem, sums, row, begin, end);
        break;
      case 5:
        sum_rows<T, 5>(problem, sums, row, begin, end);
        break;
      case 6:
        sum_rows<T, 6>(problem, sums, row, begin, end);
        break;
      case 7:
        sum_rows<T, 7>(problem, sums, row, begin, end);
        break;
      default:
        sum_rows<T, 8>(problem, sums, row, begin, end);
    }
  }
}

// ---- the same for little depth and a result that is written only once: past the cache, or rounded
// --------------------

constexpr int kLittleDepth = 8;
// Columns of b that stay in the L1 cache for all rows.
constexpr int64_t kOnceBlockBytes = 4096;

template <typename T, int Rows, int Depth>
void once_tile(const Product<T>& problem, bool streams, int64_t row, int64_t begin, int64_t end) {
  const bool is_relu = problem.activation == Activation::relu;
  const auto write_to = [&](auto* result, vec_t<T> sum, auto lanes) D2L_INLINE_LAMBDA {
    if constexpr (!is_whole<decltype(lanes)>) {
      store_value<T>(result, sum, lanes);
    } else if (streams) {
      store_value_streaming<T>(result, sum);
    } else {
      store_value<T>(result, sum);
    }
  };
  sum_tile<T, Rows, Depth>(
      problem, row, begin, end, 0, [](int, int64_t, auto) D2L_INLINE_LAMBDA { return vec_t<T>{}; },
      [&](int i, int64_t column, vec_t<T> sum, auto lanes) D2L_INLINE_LAMBDA {
        if (is_relu) sum = relu<T>(sum);
        if (is_exact(problem)) {
          write_to(problem.exact.data + (row + i) * problem.exact.row + column, sum, lanes);
        } else {
          write_to(problem.c + (row + i) * problem.c_row + column, sum, lanes);
        }
      });
}

template <typename T, int Depth>
void once_rows(const Product<T>& problem, bool streams, int64_t from, int64_t to) {
  constexpr int64_t kBlock = kOnceBlockBytes / static_cast<int64_t>(sizeof(T));
  for (int64_t column = 0; column < problem.columns; column += kBlock) {
    const int64_t last = min(column + kBlock, problem.columns);
    int64_t row = from;
    for (; row + 2 <= to; row += 2) once_tile<T, 2, Depth>(problem, streams, row, column, last);
    if (row < to) once_tile<T, 1, Depth>(problem, streams, row, column, last);
  }
}

// Rows from .. to of c, for a depth of at most kLittleDepth and no activation but relu.
template <typename T>
void multiply_once(const Product<T>& problem, bool streams, int64_t from, int64_t to) {
  constexpr void (*kFunctions[])(const Product<T>&, bool, int64_t, int64_t) = {
      once_rows<T, 1>, once_rows<T, 2>, once_rows<T, 3>, once_rows<T, 4>,
      once_rows<T, 5>, once_rows<T, 6>, once_rows<T, 7>, once_rows<T, kLittleDepth>};
  kFunctions[problem.depth - 1](problem, streams, from, to);
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
