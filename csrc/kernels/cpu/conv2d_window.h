// The register tile of the weight gradient: Rows x Columns (kernel rows x neighbouring elements (s, c) of the window) x
// NV vectors of k stay in registers while the pixels of a strip stream past; per pixel NV loads of grad_output, Rows *
// Columns broadcasts of input and NV * Rows * Columns fused multiply-adds. A strip is summed up from zero and then
// added to what was there: many short sums are more accurate than a long one. Only for kernel sources.
#pragma once

#include <utility>

#include "kernels/cpu/conv2d_strip.h"
#include "kernels/cpu/gemm_product.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

#if defined(__AVX512F__)
constexpr int kWindowElements = 14;
#else
constexpr int kWindowElements = 6;
#endif
constexpr int kWindowRows = 4;

template <typename T>
struct WindowArguments {
  const T* input;
  int64_t input_image, input_row, input_pixel, input_tap_row;
  const T* grad;
  int64_t grad_image, grad_row, grad_pixel;
  int64_t images, rows, columns;
  T* sums;
  int64_t sums_tap_row;
  bool fresh;  // sums hold nothing yet
};

template <typename T>
using WindowFunction = void (*)(const WindowArguments<T>&);

// Fetches: the gradient or the input is not in the cache yet.
template <typename T, int Rows, int Columns, int NV, bool Fetches = false>
void window(const WindowArguments<T>& arguments) {
  vec_t<T> sums[Rows][Columns][NV] = {};
  const int64_t input_pixel = arguments.input_pixel, grad_pixel = arguments.grad_pixel;
  for (int64_t n = 0; n < arguments.images; ++n) {
    for (int64_t p = 0; p < arguments.rows; ++p) {
      const T* input[Rows];
#pragma GCC unroll 4
      for (int i = 0; i < Rows; ++i) {
        input[i] = arguments.input + n * arguments.input_image + p * arguments.input_row + i * arguments.input_tap_row;
        asm("" : "+r"(input[i]));
      }
      const T* grad = arguments.grad + n * arguments.grad_image + p * arguments.grad_row;
#pragma GCC unroll 1
      for (int64_t q = 0; q < arguments.columns; ++q) {
        vec_t<T> gradient[NV];
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) {
          gradient[v] = load(grad + v * kLanes<T>);
          if (Fetches) __builtin_prefetch(grad + kPixelsAhead * grad_pixel + v * kLanes<T>);
        }
        // The line of the first element came with the tile before, or follows in the next step.
        if (Fetches) __builtin_prefetch(input[0] + kPixelsAhead * input_pixel + Columns - 1);
#pragma GCC unroll 4
        for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 14
          for (int j = 0; j < Columns; ++j) {
            const vec_t<T> value = broadcast(input[i][j]);
#pragma GCC unroll 2
            for (int v = 0; v < NV; ++v) sums[i][j][v] = multiply_add<T>(value, gradient[v], sums[i][j][v]);
          }
          input[i] += input_pixel;
        }
        grad += grad_pixel;
      }
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 14
    for (int j = 0; j < Columns; ++j) {
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) {
        T* to = arguments.sums + i * arguments.sums_tap_row + (j * NV + v) * kLanes<T>;
        store(to, arguments.fresh ? sums[i][j][v] : load(static_cast<const T*>(to)) + sums[i][j][v]);
      }
    }
  }
}

template <typename T, int NV, bool Fetches, int... I>
D2L_INLINE WindowFunction<T> window_of(int rows, int columns, std::integer_sequence<int, I...>) {
  constexpr WindowFunction<T> kWindows[kWindowRows][kWindowElements] = {
      {window<T, 1, 1 + I % kWindowElements, NV, Fetches>...},
      {window<T, 2, 1 + I % (kWindowElements / 2), NV, Fetches>...},
      {window<T, 3, 1 + I % (kWindowElements / 3), NV, Fetches>...},
      {window<T, 4, 1 + I % (kWindowElements / 4), NV, Fetches>...},
  };
  return kWindows[rows - 1][columns - 1];
}

template <typename T>
D2L_INLINE WindowFunction<T> window_function(int rows, int columns, bool two_vectors, bool fetches) {
  constexpr auto kIndices = std::make_integer_sequence<int, kWindowElements>{};
  if (two_vectors) {
    return fetches ? window_of<T, 2, true>(rows, columns, kIndices) : window_of<T, 2, false>(rows, columns, kIndices);
  }
  return fetches ? window_of<T, 1, true>(rows, columns, kIndices) : window_of<T, 1, false>(rows, columns, kIndices);
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
