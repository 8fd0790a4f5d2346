// CUDA's vector types, with its sizes and alignments.
#pragma once

#include <cstdint>

#define D2L_VECTOR_2(T, name, alignment) \
  struct alignas(alignment) name {       \
    T x, y;                              \
  };                                     \
  inline name make_##name(T x, T y) { return {x, y}; }
#define D2L_VECTOR_3(T, name) \
  struct name {               \
    T x, y, z;                \
  };                          \
  inline name make_##name(T x, T y, T z) { return {x, y, z}; }
#define D2L_VECTOR_4(T, name, alignment) \
  struct alignas(alignment) name {       \
    T x, y, z, w;                        \
  };                                     \
  inline name make_##name(T x, T y, T z, T w) { return {x, y, z, w}; }

D2L_VECTOR_2(signed char, char2, 2)
D2L_VECTOR_4(signed char, char4, 4)
D2L_VECTOR_2(unsigned char, uchar2, 2)
D2L_VECTOR_4(unsigned char, uchar4, 4)
D2L_VECTOR_2(short, short2, 4)
D2L_VECTOR_4(short, short4, 8)
D2L_VECTOR_2(unsigned short, ushort2, 4)
D2L_VECTOR_4(unsigned short, ushort4, 8)
D2L_VECTOR_2(int, int2, 8)
D2L_VECTOR_3(int, int3)
D2L_VECTOR_4(int, int4, 16)
D2L_VECTOR_2(unsigned, uint2, 8)
D2L_VECTOR_3(unsigned, uint3)
D2L_VECTOR_4(unsigned, uint4, 16)
D2L_VECTOR_2(long long, longlong2, 16)
D2L_VECTOR_2(unsigned long long, ulonglong2, 16)
D2L_VECTOR_2(float, float2, 8)
D2L_VECTOR_3(float, float3)
D2L_VECTOR_4(float, float4, 16)
D2L_VECTOR_2(double, double2, 16)

#undef D2L_VECTOR_2
#undef D2L_VECTOR_3
#undef D2L_VECTOR_4

struct dim3 {
  unsigned x, y, z;

  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
