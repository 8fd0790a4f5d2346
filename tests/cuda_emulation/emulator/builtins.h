// Qualifiers, built-in variables, barriers and arithmetic of CUDA C++.
#pragma once

#include <math.h>

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "emulator/block.h"
#include "emulator/vector_types.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __grid_constant__

#define threadIdx (::d2l::emulator::block().thread_index())
#define blockIdx (::d2l::emulator::block().block_index())
#define blockDim (::d2l::emulator::block().block_size())
#define gridDim (::d2l::emulator::block().grid_size())
constexpr int warpSize = 32;

// The address of `key` tells one variable from another; a template's instances have one each.
#define D2L_SHARED(T, name, extents)                                                                     \
  using name##_shared_type = T extents;                                                                  \
  static char name##_shared_key;                                                                         \
  name##_shared_type& name = *static_cast<name##_shared_type*>(::d2l::emulator::block().shared_variable( \
      &name##_shared_key, sizeof(name##_shared_type), alignof(name##_shared_type)))
#define D2L_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::d2l::emulator::block().shared().dynamic())

inline void __syncthreads(const d2l::emulator::Location& where = d2l::emulator::Location::current()) {
  d2l::emulator::block().barrier(d2l::emulator::Reduction::none, 0, where);
}
inline int __syncthreads_count(int predicate,
                               const d2l::emulator::Location& where = d2l::emulator::Location::current()) {
  return d2l::emulator::block().barrier(d2l::emulator::Reduction::count, predicate, where);
}
inline int __syncthreads_or(int predicate, const d2l::emulator::Location& where = d2l::emulator::Location::current()) {
  return d2l::emulator::block().barrier(d2l::emulator::Reduction::any, predicate, where);
}
inline int __syncthreads_and(int predicate, const d2l::emulator::Location& where = d2l::emulator::Location::current()) {
  return d2l::emulator::block().barrier(d2l::emulator::Reduction::all, predicate, where);
}

inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() {}
[[noreturn]] inline void __trap() { d2l::emulator::block().fail(cudaErrorIllegalInstruction, "__trap()"); }

template <typename T>
T __ldg(const T* pointer) {
  return *pointer;
}
template <typename T>
T __ldcs(const T* pointer) {
  return *pointer;
}
template <typename T>
T __ldcg(const T* pointer) {
  return *pointer;
}
template <typename T>
void __stcs(T* pointer, std::type_identity_t<T> value) {
  *pointer = value;
}
template <typename T>
void __stcg(T* pointer, std::type_identity_t<T> value) {
  *pointer = value;
}

// Of a number and a NaN, min and max give the number.
template <typename A, typename B>
  requires std::is_arithmetic_v<A> && std::is_arithmetic_v<B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  const T x = static_cast<T>(a), y = static_cast<T>(b);
  return y < x || x != x ? y : x;
}
template <typename A, typename B>
  requires std::is_arithmetic_v<A> && std::is_arithmetic_v<B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  const T x = static_cast<T>(a), y = static_cast<T>(b);
  return y > x || x != x ? y : x;
}

inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((uint64_t{a} * b) >> 32); }
inline int __mul24(int a, int b) { return static_cast<int>(static_cast<int64_t>(a << 8 >> 8) * (b << 8 >> 8)); }

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __saturatef(float x) { return x >= 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline int __float2int_rn(float x) { return static_cast<int>(lrintf(x)); }
inline int __float2int_rz(float x) { return static_cast<int>(x); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
