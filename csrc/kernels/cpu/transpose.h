// Transposition of a matrix in memory, a register block of kLanes x kLanes elements at a time. Only for kernel sources.
#pragma once

#include <utility>

#include "kernels/cpu/integers.h"
#include "kernels/cpu/vec_element.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

template <int Offset, typename V, int... I>
D2L_INLINE V interleave(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (Offset + I / 2 + (I % 2) * static_cast<int>(sizeof...(I)))...);
}

// rows[i][j] becomes rows[j][i]: log2(lanes) perfect shuffles of the whole block.
template <typename T>
D2L_INLINE void transpose_registers(vec_t<T> (&rows)[kLanes<T>]) {
  constexpr int kHalf = kLanes<T> / 2;
  constexpr auto kIndices = std::make_integer_sequence<int, kLanes<T>>{};
#pragma GCC unroll 4
  for (int distance = 1; distance < kLanes<T>; distance *= 2) {
    vec_t<T> shuffled[kLanes<T>];
#pragma GCC unroll 16
    for (int i = 0; i < kHalf; ++i) {
      shuffled[2 * i] = interleave<0>(rows[i], rows[i + kHalf], kIndices);
      shuffled[2 * i + 1] = interleave<kHalf>(rows[i], rows[i + kHalf], kIndices);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; ++i) rows[i] = shuffled[i];
  }
}

// to[column * to_stride + row] = from[row * from_stride + column]. Elements go through registers of T.
// With kSpill, which needs rows <= kLanes, up to kLanes elements are written from each target column's start, columns
// in ascending order: whole stores are faster than masked ones.
template <typename T, bool kSpill = false, typename From, typename To>
void transpose(const From* from, int64_t from_stride, int64_t rows, int64_t columns, To* to, int64_t to_stride) {
  constexpr int kBlock = kLanes<T>;
  for (int64_t row = 0; row < rows; row += kBlock) {
    const int64_t row_count = min(kBlock, rows - row);
    for (int64_t column = 0; column < columns; column += kBlock) {
      const int64_t column_count = min(kBlock, columns - column);
      const From* source = from + row * from_stride + column;
      To* target = to + column * to_stride + row;
      vec_t<T> block[kBlock];
      if (row_count == kBlock && column_count == kBlock) {
#pragma GCC unroll 16
        for (int i = 0; i < kBlock; ++i) block[i] = read(source + i * from_stride);
        transpose_registers<T>(block);
#pragma GCC unroll 16
        for (int i = 0; i < kBlock; ++i) write(target + i * to_stride, block[i]);
      } else if (kVectorBytes == 64) {
#pragma GCC unroll 16
        for (int i = 0; i < kBlock; ++i) {
          block[i] = i < row_count ? read_partial(source + i * from_stride, column_count) : vec_t<T>{};
        }
        transpose_registers<T>(block);
        if (kSpill) {
#pragma GCC unroll 16
          for (int i = 0; i < kBlock; ++i) {
            if (i < column_count) write(target + i * to_stride, block[i]);
          }
          continue;
        }
        if (column_count <= kBlock / 2) {  // half of the shuffles fall away
#pragma GCC unroll 8
          for (int i = 0; i < kBlock / 2; ++i) {
            if (i < column_count) write_partial(target + i * to_stride, block[i], row_count);
          }
          continue;
        }
#pragma GCC unroll 16
        for (int i = 0; i < kBlock; ++i) {
          if (i < column_count) write_partial(target + i * to_stride, block[i], row_count);
        }
      } else {
        for (int64_t j = 0; j < column_count; ++j) {
          for (int64_t i = 0; i < row_count; ++i)
            target[j * to_stride + i] = rounded_one<To>(read_one(source[i * from_stride + j]));
        }
      }
    }
  }
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
