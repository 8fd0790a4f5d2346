// The transforms of Winograd's minimal filtering F(m, r), one axis at a time, on registers. Only for kernel sources.
//
//   m outputs of a correlation with r taps = A^T [(G taps) * (B^T inputs)], n = m + r - 1 inputs, n products
//
// B^T, G and A^T follow from n - 1 points and infinity (Toom and Cook). For n = 4 they are 0, +-1. For n = 6 they are
// 0, +-5/8, +-3/2: all coefficients of B^T are exact, and the error is less than half of that of the usual
// 0, +-1, +-2. B^T depends on n alone, so one transform of the input serves F(4, 3) and F(3, 4).
#pragma once

#include "kernels/cpu/integers.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

using Floats = vec_t<float>;

constexpr float kNear = 0.625f, kFar = 1.5f;
constexpr float kNear2 = kNear * kNear, kFar2 = kFar * kFar;

// B^T: n inputs to n.
template <int N>
struct InputTransform {
  static constexpr int kIn = N, kOut = N;
  static D2L_INLINE void apply(const Floats (&d)[N], Floats (&o)[N]) {
    if constexpr (N == 4) {
      o[0] = d[2] - d[0];
      o[1] = d[2] + d[1];
      o[2] = d[2] - d[1];
      o[3] = d[3] - d[1];
    } else {
      static_assert(N == 6);
      const Floats near_even = d[4] - kFar2 * d[2], near_odd = d[3] - kFar2 * d[1];
      const Floats far_even = d[4] - kNear2 * d[2], far_odd = d[3] - kNear2 * d[1];
      o[0] = (kNear2 * kFar2) * d[0] + (d[4] - (kNear2 + kFar2) * d[2]);
      o[1] = near_even + kNear * near_odd;
      o[2] = near_even - kNear * near_odd;
      o[3] = far_even + kFar * far_odd;
      o[4] = far_even - kFar * far_odd;
      o[5] = (kNear2 * kFar2) * d[1] + (d[5] - (kNear2 + kFar2) * d[3]);
    }
  }
};

// G: r taps to n.
template <int N, int R>
struct TapTransform {
  static constexpr int kIn = R, kOut = N;
  static D2L_INLINE void apply(const Floats (&g)[R], Floats (&o)[N]) {
    static_assert(R >= 2 && R <= 4);
    if constexpr (N == 4) {
      Floats even = 0.5f * g[0];
      if constexpr (R == 3) even += 0.5f * g[2];
      o[0] = -g[0];
      o[1] = even + 0.5f * g[1];
      o[2] = even - 0.5f * g[1];
    } else {
      static_assert(N == 6);
      constexpr float kZeroScale = 1 / (kNear2 * kFar2);
      constexpr float kNearScale = 1 / (2 * kNear2 * (kNear2 - kFar2)), kFarScale = 1 / (2 * kFar2 * (kFar2 - kNear2));
      o[0] = kZeroScale * g[0];
      Floats even = kNearScale * g[0], odd = (kNear * kNearScale) * g[1];
      if constexpr (R > 2) even += (kNear2 * kNearScale) * g[2];
      if constexpr (R > 3) odd += (kNear2 * kNear * kNearScale) * g[3];
      o[1] = even + odd;
      o[2] = even - odd;
      even = kFarScale * g[0], odd = (kFar * kFarScale) * g[1];
      if constexpr (R > 2) even += (kFar2 * kFarScale) * g[2];
      if constexpr (R > 3) odd += (kFar2 * kFar * kFarScale) * g[3];
      o[3] = even + odd;
      o[4] = even - odd;
    }
    o[N - 1] = g[R - 1];
  }
};

// A^T: n products to m outputs.
template <int N, int M>
struct OutputTransform {
  static constexpr int kIn = N, kOut = M;
  static D2L_INLINE void apply(const Floats (&d)[N], Floats (&o)[M]) {
    static_assert(M >= 2 && M <= 4);
    const Floats near_sum = d[1] + d[2], near_difference = d[1] - d[2];
    if constexpr (N == 4) {
      o[0] = d[0] + near_sum;
      o[1] = near_difference;
      if constexpr (M > 2) o[2] = near_sum;
    } else {
      static_assert(N == 6);
      const Floats far_sum = d[3] + d[4], far_difference = d[3] - d[4];
      o[0] = d[0] + (near_sum + far_sum);
      o[1] = kNear * near_difference + kFar * far_difference;
      if constexpr (M > 2) o[2] = kNear2 * near_sum + kFar2 * far_sum;
      if constexpr (M > 3) o[3] = (kNear2 * kNear) * near_difference + (kFar2 * kFar) * far_difference;
    }
    o[M - 1] += d[N - 1];
  }
};

// Both axes: load(i, j) gives element j of row i, store(i, j, value) takes it.
template <typename Transform, typename Load, typename Store>
D2L_INLINE void transform_2d(Load&& load_at, Store&& store_at) {
  constexpr int kIn = Transform::kIn, kOut = Transform::kOut;
  Floats middle[kOut][kIn];
#pragma GCC unroll 6
  for (int j = 0; j < kIn; ++j) {
    Floats column[kIn], transformed[kOut];
#pragma GCC unroll 6
    for (int i = 0; i < kIn; ++i) column[i] = load_at(i, j);
    Transform::apply(column, transformed);
#pragma GCC unroll 6
    for (int i = 0; i < kOut; ++i) middle[i][j] = transformed[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < kOut; ++i) {
    Floats transformed[kOut];
    Transform::apply(middle[i], transformed);
#pragma GCC unroll 6
    for (int j = 0; j < kOut; ++j) store_at(i, j, transformed[j]);
  }
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
