// The transforms of Winograd's minimal filtering F(m, r), one axis at a time, on registers, and the schemes that they
// make up. Only for kernel sources.
//
//   m outputs of a correlation with r taps = A^T [(G taps) * (B^T inputs)], n = m + r - 1 inputs, n products
//
// B^T, G and A^T follow from n - 1 points and infinity (Toom and Cook): 0, pairs +-p, and for an odd n one more, `odd`.
// All coefficients of B^T are exact. B^T depends on n alone, so one transform of the input serves F(4, 3), F(3, 4) and
// F(2, 5). The error depends on the points; these are the best of a search with multiples of 1/8. For n = 6 it is less
// than half of that of the usual 0, +-1, +-2.
#pragma once

#include <array>

#include "kernels/cpu/integers.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

using Floats = vec_t<float>;

constexpr int kMostPairs = 3;

template <int N>
struct Points {
  static_assert(N == 4 || N == 5 || N == 6 || N == 8);
  static constexpr int kPairs = (N - 2) / 2;
  static constexpr bool kHasOdd = N % 2 == 1;
  static constexpr double kOdd = 2;
  static constexpr double pair(int i) {
    constexpr double kAll[4][kMostPairs] = {{1}, {0.75}, {0.625, 1.5}, {0.5, 1, 2}};
    return kAll[N == 8 ? 3 : N - 4][i];
  }
  // In the order of the rows of B^T and G, infinity left out.
  static constexpr double at(int i) {
    if (i == 0) return 0;
    return kHasOdd && i == N - 2 ? kOdd : (i % 2 == 1 ? pair((i - 1) / 2) : -pair((i - 1) / 2));
  }
};

// The product of (x - p^2) over the pairs, pair `Except` left out (-1: none): coefficients of 1, x, x^2, ...
template <int N, int Except>
constexpr std::array<float, kMostPairs + 1> pair_polynomial() {
  double polynomial[kMostPairs + 1] = {1};
  for (int i = 0, degree = 0; i < Points<N>::kPairs; ++i) {
    if (i == Except) continue;
    ++degree;
    for (int j = degree; j >= 0; --j) {
      polynomial[j] = (j > 0 ? polynomial[j - 1] : 0) - Points<N>::pair(i) * Points<N>::pair(i) * polynomial[j];
    }
  }
  std::array<float, kMostPairs + 1> rounded{};
  for (int i = 0; i <= kMostPairs; ++i) rounded[i] = static_cast<float>(polynomial[i]);
  return rounded;
}

// That polynomial in the shift by two elements, applied to values[0], values[2], ...
template <int N, int Except>
D2L_INLINE Floats every_other(const Floats* values) {
  constexpr auto kPolynomial = pair_polynomial<N, Except>();
  constexpr int kDegree = Points<N>::kPairs - (Except >= 0 ? 1 : 0);
  Floats sum = values[2 * kDegree];
#pragma GCC unroll 8
  for (int i = kDegree - 1; i >= 0; --i) sum += kPolynomial[i] * values[2 * i];
  return sum;
}

// B^T: n inputs to n.
template <int N>
struct InputTransform {
  static constexpr int kIn = N, kOut = N;

  template <int Pair>
  static D2L_INLINE void apply_pair(const Floats* d, Floats* o) {
    constexpr float kPoint = static_cast<float>(Points<N>::pair(Pair));
    const Floats even = every_other<N, Pair>(d + 2), odd = every_other<N, Pair>(d + 1);
    o[1 + 2 * Pair] = even + kPoint * odd;
    o[2 + 2 * Pair] = even - kPoint * odd;
  }

  static D2L_INLINE void apply(const Floats (&d)[N], Floats (&o)[N]) {
    constexpr int kPairs = Points<N>::kPairs;
    const Floats* values = d;
    Floats shifted[N];
    if constexpr (Points<N>::kHasOdd) {
      // The factor (x - odd) of all polynomials but that of `odd`.
#pragma GCC unroll 8
      for (int i = 0; i + 1 < N; ++i) shifted[i] = d[i + 1] - static_cast<float>(Points<N>::kOdd) * d[i];
      o[N - 2] = every_other<N, -1>(d + 1);
      values = shifted;
    }
    o[0] = every_other<N, -1>(values);
    apply_pair<0>(values, o);
    if constexpr (kPairs > 1) apply_pair<1>(values, o);
    if constexpr (kPairs > 2) apply_pair<2>(values, o);
    o[N - 1] = every_other<N, -1>(values + 1);
  }
};

// G: r taps to n.
template <int N, int R>
struct TapTransform {
  static constexpr int kIn = R, kOut = N;
  static_assert(R >= 2 && R < N);

  static constexpr std::array<std::array<float, R>, N> matrix() {
    std::array<std::array<float, R>, N> rows{};
    for (int i = 0; i < N - 1; ++i) {
      double value = 1;
      for (int j = 0; j < N - 1; ++j) {
        if (j != i) value /= Points<N>::at(i) - Points<N>::at(j);
      }
      for (int j = 0; j < R; ++j, value *= Points<N>::at(i)) rows[i][j] = static_cast<float>(value);
    }
    rows[N - 1][R - 1] = 1;
    return rows;
  }

  static D2L_INLINE void apply(const Floats (&g)[R], Floats (&o)[N]) {
    constexpr auto kG = matrix();
    o[0] = kG[0][0] * g[0];
#pragma GCC unroll 8
    for (int i = 1; i + 1 < N - 1; i += 2) {
      Floats even = kG[i][0] * g[0], odd = kG[i][1] * g[1];
#pragma GCC unroll 8
      for (int j = 2; j < R; ++j) (j % 2 == 0 ? even : odd) += kG[i][j] * g[j];
      o[i] = even + odd;
      if constexpr (Points<N>::kHasOdd) {
        // The rows of +p and -p differ in their scale, too.
        even = kG[i + 1][0] * g[0], odd = kG[i + 1][1] * g[1];
#pragma GCC unroll 8
        for (int j = 2; j < R; ++j) (j % 2 == 0 ? even : odd) += kG[i + 1][j] * g[j];
        o[i + 1] = even + odd;
      } else {
        o[i + 1] = even - odd;
      }
    }
    if constexpr (Points<N>::kHasOdd) {
      o[N - 2] = kG[N - 2][0] * g[0];
#pragma GCC unroll 8
      for (int j = 1; j < R; ++j) o[N - 2] += kG[N - 2][j] * g[j];
    }
    o[N - 1] = g[R - 1];
  }
};

// A^T: n products to m outputs.
template <int N, int M>
struct OutputTransform {
  static constexpr int kIn = N, kOut = M;
  static_assert(M >= 2 && M < N);

  static constexpr std::array<std::array<float, N>, M> matrix() {
    std::array<std::array<float, N>, M> rows{};
    for (int j = 0; j < N - 1; ++j) {
      double value = 1;
      for (int i = 0; i < M; ++i, value *= Points<N>::at(j)) rows[i][j] = static_cast<float>(value);
    }
    rows[M - 1][N - 1] = 1;
    return rows;
  }

  static D2L_INLINE void apply(const Floats (&d)[N], Floats (&o)[M]) {
    constexpr auto kA = matrix();
    constexpr int kPairs = Points<N>::kPairs;
    Floats sums[kPairs], differences[kPairs];
#pragma GCC unroll 8
    for (int i = 0; i < kPairs; ++i) {
      sums[i] = d[1 + 2 * i] + d[2 + 2 * i];
      differences[i] = d[1 + 2 * i] - d[2 + 2 * i];
    }
#pragma GCC unroll 8
    for (int j = 0; j < M; ++j) {
      const Floats(&terms)[kPairs] = j % 2 == 0 ? sums : differences;
      o[j] = kA[j][1] * terms[0];
#pragma GCC unroll 8
      for (int i = 1; i < kPairs; ++i) o[j] += kA[j][1 + 2 * i] * terms[i];
      if constexpr (Points<N>::kHasOdd) o[j] += kA[j][N - 2] * d[N - 2];
    }
    o[0] += d[0];
    o[M - 1] += d[N - 1];
  }
};

// Three taps and a stride of two: the outer taps meet every other input, the inner tap those in between.
//
//   y[j] = (g[0] x[2 j] + g[2] x[2 (j + 1)]) + g[1] x[2 j + 1]
//
// The bracket is F(m, 2), the rest are m plain products: 2 m + 1 instead of 3 m. The transforms below work on the
// products of the bracket first, then on the plain ones.
template <typename Transform>
D2L_INLINE void apply_to_first(const Floats* d, Floats* o) {
  Floats from[Transform::kIn], to[Transform::kOut];
#pragma GCC unroll 8
  for (int i = 0; i < Transform::kIn; ++i) from[i] = d[i];
  Transform::apply(from, to);
#pragma GCC unroll 8
  for (int i = 0; i < Transform::kOut; ++i) o[i] = to[i];
}

// The input of the forward pass and of the weight gradient.
template <int M>
struct StridedInputTransform {
  static constexpr int kIn = 2 * M + 1, kOut = 2 * M + 1;

  static D2L_INLINE void apply(const Floats (&d)[kIn], Floats (&o)[kOut]) {
    Floats outer[M + 1];
#pragma GCC unroll 8
    for (int i = 0; i <= M; ++i) outer[i] = d[2 * i];
    apply_to_first<InputTransform<M + 1>>(outer, o);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) o[M + 1 + i] = d[2 * i + 1];
  }
};

// Taps in the order outer, outer, inner, which is that of TapOrder for the input gradient, or as they are.
template <int M, bool kInnerLast>
struct StridedTapTransform {
  static constexpr int kIn = 3, kOut = 2 * M + 1;

  static D2L_INLINE void apply(const Floats (&g)[kIn], Floats (&o)[kOut]) {
    const Floats outer[2] = {g[0], g[kInnerLast ? 1 : 2]};
    apply_to_first<TapTransform<M + 1, 2>>(outer, o);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) o[M + 1 + i] = g[kInnerLast ? 2 : 1];
  }
};

// The results of the forward pass.
template <int M>
struct StridedOutputTransform {
  static constexpr int kIn = 2 * M + 1, kOut = M;

  static D2L_INLINE void apply(const Floats (&d)[kIn], Floats (&o)[kOut]) {
    apply_to_first<OutputTransform<M + 1, M>>(d, o);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) o[i] += d[M + 1 + i];
  }
};

// grad_output, for the input gradient: all results but the outer ones of a tile meet both outer taps.
template <int M>
struct StridedGradientTransform {
  static constexpr int kIn = M + 1, kOut = 2 * M + 1;

  static D2L_INLINE void apply(const Floats (&d)[kIn], Floats (&o)[kOut]) {
    apply_to_first<InputTransform<M + 1>>(d, o);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) o[M + 1 + i] = d[i];
  }
};

// The input gradient, with a padding of one: the inner tap makes the even elements.
template <int M>
struct StridedInputGradientTransform {
  static constexpr int kIn = 2 * M + 1, kOut = 2 * M;

  static D2L_INLINE void apply(const Floats (&d)[kIn], Floats (&o)[kOut]) {
    Floats outer[M];
    apply_to_first<OutputTransform<M + 1, M>>(d, outer);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      o[2 * i] = d[M + 1 + i];
      o[2 * i + 1] = outer[i];
    }
  }
};

// grad_output, for the weight gradient.
template <int M>
struct StridedTileTransform {
  static constexpr int kIn = M, kOut = 2 * M + 1;

  static D2L_INLINE void apply(const Floats (&d)[kIn], Floats (&o)[kOut]) {
    apply_to_first<TapTransform<M + 1, M>>(d, o);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) o[M + 1 + i] = d[i];
  }
};

// The weight gradient.
template <int M>
struct StridedWeightGradientTransform {
  static constexpr int kIn = 2 * M + 1, kOut = 3;

  static D2L_INLINE void apply(const Floats (&d)[kIn], Floats (&o)[kOut]) {
    Floats outer[2];
    apply_to_first<OutputTransform<M + 1, 2>>(d, outer);
    o[0] = outer[0];
    o[2] = outer[1];
    o[1] = d[M + 1];
#pragma GCC unroll 8
    for (int i = 1; i < M; ++i) o[1] += d[M + 1 + i];
  }
};

// What the drivers are made of. Inputs, Taps and Outputs of a correlation: kStep source pixels from a tile to the next.
template <int M, int R>
struct UnitStride {
  using Inputs = InputTransform<M + R - 1>;
  using Taps = TapTransform<M + R - 1, R>;
  using Outputs = OutputTransform<M + R - 1, M>;
  static constexpr int kStep = M;
};

template <int M>
struct ForwardStride2 {
  using Inputs = StridedInputTransform<M>;
  using Taps = StridedTapTransform<M, false>;
  using Outputs = StridedOutputTransform<M>;
  static constexpr int kStep = 2 * M;
};

template <int M>
struct BackwardStride2 {
  using Inputs = StridedGradientTransform<M>;
  using Taps = StridedTapTransform<M, true>;
  using Outputs = StridedInputGradientTransform<M>;
  static constexpr int kStep = M;
};

// Inputs, Gradients and Sums of a weight gradient: kStep input pixels from a tile to the next.
template <int M, int R>
struct WeightUnitStride {
  using Inputs = InputTransform<M + R - 1>;
  using Gradients = TapTransform<M + R - 1, M>;
  using Sums = OutputTransform<M + R - 1, R>;
  static constexpr int kStep = M;
};

template <int M>
struct WeightStride2 {
  using Inputs = StridedInputTransform<M>;
  using Gradients = StridedTileTransform<M>;
  using Sums = StridedWeightGradientTransform<M>;
  static constexpr int kStep = 2 * M;
};

// Both axes: load(i, j) gives element j of row i, store(i, j, value) takes it.
template <typename Transform, typename Load, typename Store>
D2L_INLINE void transform_2d(Load&& load_at, Store&& store_at) {
  constexpr int kIn = Transform::kIn, kOut = Transform::kOut;
  Floats middle[kOut][kIn];
#pragma GCC unroll 8
  for (int j = 0; j < kIn; ++j) {
    Floats column[kIn], transformed[kOut];
#pragma GCC unroll 8
    for (int i = 0; i < kIn; ++i) column[i] = load_at(i, j);
    Transform::apply(column, transformed);
#pragma GCC unroll 8
    for (int i = 0; i < kOut; ++i) middle[i][j] = transformed[i];
  }
#pragma GCC unroll 8
  for (int i = 0; i < kOut; ++i) {
    Floats transformed[kOut];
    Transform::apply(middle[i], transformed);
#pragma GCC unroll 8
    for (int j = 0; j < kOut; ++j) store_at(i, j, transformed[j]);
  }
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
