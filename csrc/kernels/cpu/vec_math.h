// exp, log, sigmoid and tanh of a register of float or double. Only for *_kernel.cpp (see vec.h).
//
// Each is within 2.5 units in the last place (tanh 2.6), subnormal results included, and gives what the C library gives
// for zeros, infinities and NaN; arguments beyond the range neither overflow on the way nor raise NaN. Written out as
// arithmetic on whole registers, without tables or branches: about 15 instructions for exp, 25 for the others. AVX-512
// scales by a power of 2 in one instruction.
//
// Sources: the reduction of exp and its float polynomial are those of Cephes (Moshier), log is fdlibm's (Sun).
#pragma once

#include "kernels/cpu/vec.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

namespace vec_math {

// What a type looks like in memory, and the constants that depend on its precision.
template <typename T>
struct Format;

template <>
struct Format<float> {
  using Bits = int32_t;
  static constexpr int kMantissa = 23;
  static constexpr Bits kBias = 127;
  static constexpr float kRound = 0x1.8p23f;  // adding it leaves the nearest integer in the low bits
  static constexpr Bits kRoundBits = 0x4b400000;
  static constexpr float kLn2Hi = 0.693359375f, kLn2Lo = -2.12194440e-4f;  // n * kLn2Hi is exact
  static constexpr float kExpMin = -104.0f, kExpMax = 89.0f;               // beyond: 0 and infinity
  static constexpr float kTanhMax = 10.0f;                                 // beyond: 1
  static constexpr float kSmallestNormal = 0x1p-126f;
  static constexpr float kLogLn2Hi = 0x1.62e3p-1f, kLogLn2Lo = 0x1.2fefa2p-17f;
  static constexpr Bits kSqrtHalf = 0x3f3504f3;
  static constexpr float kInfinity = __builtin_inff(), kNan = __builtin_nanf("");
};

template <>
struct Format<double> {
  using Bits = int64_t;
  static constexpr int kMantissa = 52;
  static constexpr Bits kBias = 1023;
  static constexpr double kRound = 0x1.8p52;
  static constexpr Bits kRoundBits = 0x4338000000000000;
  static constexpr double kLn2Hi = 6.93147180369123816490e-01, kLn2Lo = 1.90821492927058770002e-10;
  static constexpr double kExpMin = -746.0, kExpMax = 710.0;
  static constexpr double kTanhMax = 20.0;
  static constexpr double kSmallestNormal = 0x1p-1022;
  static constexpr double kLogLn2Hi = kLn2Hi, kLogLn2Lo = kLn2Lo;
  static constexpr Bits kSqrtHalf = 0x3fe6a09e667f3bcd;
  static constexpr double kInfinity = __builtin_inf(), kNan = __builtin_nan("");
};

template <typename T>
using bits_t = typename Format<T>::Bits;
template <typename T>
using vec_bits_t = vec_t<bits_t<T>>;

template <typename T>
D2L_INLINE vec_t<T> abs(vec_t<T> x) {
  return (vec_t<T>)((vec_bits_t<T>)x & ~((vec_bits_t<T>)broadcast<T>(T(-0.0))));
}

// |magnitude| with the sign of `sign`.
template <typename T>
D2L_INLINE vec_t<T> with_sign(vec_t<T> magnitude, vec_t<T> sign) {
  const vec_bits_t<T> mask = (vec_bits_t<T>)broadcast<T>(T(-0.0));
  return (vec_t<T>)(((vec_bits_t<T>)magnitude & ~mask) | ((vec_bits_t<T>)sign & mask));
}

// 2^n of normal results.
template <typename T>
D2L_INLINE vec_t<T> power_of_2(vec_bits_t<T> n) {
  return (vec_t<T>)((n + Format<T>::kBias) << Format<T>::kMantissa);
}

// (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2.
D2L_INLINE vec_t<float> exp_tail(vec_t<float> r) {
  // In pairs, which do not wait for each other.
  const vec_t<float> square = r * r, low = 1.6666665459e-1f * r + 5.0000001201e-1f;
  const vec_t<float> middle = 8.3334519073e-3f * r + 4.1665795894e-2f, high = 1.9875691500e-4f * r + 1.3981999507e-3f;
  return (high * square + middle) * square + low;
}

// The Taylor series, which ends at r^13 / 13!: the rest is below 4e-18.
D2L_INLINE vec_t<double> exp_tail(vec_t<double> r) {
  vec_t<double> p = 1.60590438368216145994e-10 * r + 2.08767569878680989792e-9;
  p = p * r + 2.50521083854417187751e-8;
  p = p * r + 2.75573192239858906526e-7;
  p = p * r + 2.75573192239858906526e-6;
  p = p * r + 2.48015873015873015873e-5;
  p = p * r + 1.98412698412698412698e-4;
  p = p * r + 1.38888888888888888889e-3;
  p = p * r + 8.33333333333333333333e-3;
  p = p * r + 4.16666666666666666667e-2;
  p = p * r + 1.66666666666666666667e-1;
  return p * r + 0.5;
}

// exp(x) = 2^n (1 + tail), for x in the range of exp.
template <typename T>
struct Reduced {
  vec_t<T> shifted;  // n + kRound
  vec_t<T> tail;

  D2L_INLINE explicit Reduced(vec_t<T> x) {
    using F = Format<T>;
    shifted = x * T(1.44269504088896340736) + F::kRound;
    const vec_t<T> whole = shifted - F::kRound, r = (x - whole * F::kLn2Hi) - whole * F::kLn2Lo;
    tail = exp_tail(r) * (r * r) + r;
  }

  D2L_INLINE vec_bits_t<T> n() const { return (vec_bits_t<T>)shifted - Format<T>::kRoundBits; }

#if defined(__AVX512F__)
  // Of the lanes in the mask; 0 in the others.
  D2L_INLINE vec_t<T> exp(uint32_t mask = 0xffff) const {
    const vec_t<T> whole = shifted - Format<T>::kRound;
    if constexpr (sizeof(T) == 4) {
      return _mm512_maskz_scalef_ps(static_cast<__mmask16>(mask), 1 + tail, whole);
    } else {
      return _mm512_maskz_scalef_pd(static_cast<__mmask8>(mask), 1 + tail, whole);
    }
  }
#else
  D2L_INLINE vec_t<T> exp() const {
    // 2^n itself may be out of range where the result is not. The shifts of power_of_2 drop the bits of kRound.
    const vec_bits_t<T> whole = (vec_bits_t<T>)shifted, half = whole >> 1;
    return (1 + tail) * power_of_2<T>(half) * power_of_2<T>(whole - half);
  }
#endif
};

// The sum s (|f| small) of log(1 + f) = f - f^2 / 2 + s, less its first two terms, by fdlibm's series in z = s^2.
D2L_INLINE vec_t<float> log_series(vec_t<float> z) {
  const vec_t<float> w = z * z;
  return z * (0xaaaaaa.0p-24f + w * 0x91e9ee.0p-25f) + w * (0xccce13.0p-25f + w * 0xf89e26.0p-26f);
}

D2L_INLINE vec_t<double> log_series(vec_t<double> z) {
  const vec_t<double> w = z * z;
  const vec_t<double> odd =
      z * (6.666666666666735130e-01 +
           w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
  const vec_t<double> even =
      w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
  return odd + even;
}

}  // namespace vec_math

template <typename T>
D2L_INLINE vec_t<T> exp(vec_t<T> x) {
  using F = vec_math::Format<T>;
  const vec_t<T> low = broadcast<T>(F::kExpMin), high = broadcast<T>(F::kExpMax);
#if defined(__AVX512F__)
  // What is beyond the range, -infinity above all, is masked: scaled down to 0 it would take 150 cycles.
  if constexpr (sizeof(T) == 4) {
    const __mmask16 counts = _mm512_cmp_ps_mask(x, low, _CMP_NLT_UQ);  // NaN stays
    return vec_math::Reduced<T>(_mm512_maskz_min_ps(counts, high, x)).exp(counts);
  } else {
    const __mmask8 counts = _mm512_cmp_pd_mask(x, low, _CMP_NLT_UQ);
    return vec_math::Reduced<T>(_mm512_maskz_min_pd(counts, high, x)).exp(counts);
  }
#else
  return vec_math::Reduced<T>(smaller<T>(high, larger<T>(low, x))).exp();  // NaN stays
#endif
}

template <typename T>
D2L_INLINE vec_t<T> log(vec_t<T> x) {
  using F = vec_math::Format<T>;
  using B = vec_math::vec_bits_t<T>;
  const auto subnormal = x < F::kSmallestNormal;
  constexpr T kScale = T(int64_t{1} << F::kMantissa);
  // x = 2^n (1 + f) with 1 + f between sqrt(1/2) and sqrt(2).
  constexpr auto kOne = F::kBias << F::kMantissa;
  const B bits = (B)(subnormal ? x * kScale : x) + (kOne - F::kSqrtHalf);
  const B n = (bits >> F::kMantissa) - F::kBias - (subnormal ? B{} + F::kMantissa : B{});
  const B mantissa = (bits & ((typename F::Bits(1) << F::kMantissa) - 1)) + F::kSqrtHalf;
  const vec_t<T> f = (vec_t<T>)mantissa - 1;
  const vec_t<T> whole = (vec_t<T>)(n + F::kRoundBits) - F::kRound;
  const vec_t<T> s = f / (2 + f), half_square = T(0.5) * f * f;
  const vec_t<T> series = s * (half_square + vec_math::log_series(s * s));
  vec_t<T> result = ((series + whole * F::kLogLn2Lo) - half_square + f) + whole * F::kLogLn2Hi;
  result = x < F::kInfinity ? result : x;  // infinity and NaN are their own logarithms
  result = x == 0 ? broadcast<T>(-F::kInfinity) : result;
  return x < 0 ? broadcast<T>(F::kNan) : result;
}

// 1 / (1 + exp(-x)), by the exponential that does not overflow.
template <typename T>
D2L_INLINE vec_t<T> sigmoid(vec_t<T> x) {
  using F = vec_math::Format<T>;
  const vec_t<T> a = smaller<T>(broadcast<T>(-F::kExpMin), vec_math::abs<T>(x)), e = vec_math::Reduced<T>(-a).exp();
  return (x < 0 ? e : broadcast<T>(1)) / (1 + e);
}

// tanh(|x|) = m / (m + 2) with m = exp(2 |x|) - 1, which keeps its digits near zero.
template <typename T>
D2L_INLINE vec_t<T> tanh(vec_t<T> x) {
  using F = vec_math::Format<T>;
  const vec_t<T> a = smaller<T>(broadcast<T>(F::kTanhMax), vec_math::abs<T>(x));
  const vec_math::Reduced<T> reduced(2 * a);
  const vec_t<T> scale = vec_math::power_of_2<T>(reduced.n());
  const vec_t<T> m = scale * reduced.tail + (scale - 1);
  return vec_math::with_sign<T>(m / (m + 2), x);
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
