// What every CUDA kernel file includes: the toolkit, or the SIMT emulator of tests/cuda_emulation in its place
// (-DD2L_EMULATE_CUDA), under one set of names. A .cu file is compiled unchanged by nvcc and, against the emulator,
// g++.
//
//   D2L_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...)  kernel: a name, or (template<instance>)
//   D2L_DYNAMIC_SHARED(float, tile);                                     float* tile, aligned to 128 bytes
//   D2L_SHARED(float, tile, [32][33]);                                   float tile[32][33], one per block
//   kernels/cuda/ptx.cuh                                                 every PTX instruction in use
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/shapes.h"

#if defined(D2L_EMULATE_CUDA)

#include "simt_emulator.h"

#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/ptx.cuh"

#define D2L_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
#define D2L_DYNAMIC_SHARED(T, name)                                    \
  extern __shared__ __align__(128) unsigned char d2l_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(d2l_dynamic_shared)
#define D2L_SHARED(T, name, extents) __shared__ T name extents

#endif

namespace d2l::cuda {

constexpr int kWarpSize = 32;
constexpr unsigned kFullWarp = 0xffffffffu;
// Dynamic shared memory that a kernel may use without asking (see allow_dynamic_shared).
constexpr int kDefaultSharedBytes = 48 * 1024;
constexpr unsigned kMaxGridYZ = 65535;

template <typename T>
D2L_HOST_DEVICE constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

inline bool is_aligned(const void* pointer, size_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

// The status of the launch just made. Takes the error away from the runtime: the glue reports it, nobody else should.
inline LaunchStatus launched(dim3 grid, dim3 block) {
  LaunchStatus status;
  status.error = static_cast<int>(cudaGetLastError());
  status.grid[0] = grid.x, status.grid[1] = grid.y, status.grid[2] = grid.z;
  status.block[0] = block.x, status.block[1] = block.y, status.block[2] = block.z;
  return status;
}

// Lets `kernel` use more than 48 KB of dynamic shared memory. A failure is seen by launched().
template <typename Kernel>
void allow_dynamic_shared(Kernel* kernel, int bytes) {
  if (bytes > kDefaultSharedBytes) {
    static_cast<void>(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                           cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  }
}

template <typename T>
struct TypeTag {
  using type = T;
};

// Calls function(TypeTag<T>{}) with the element type that dtype names.
template <typename Function>
LaunchStatus dispatch(DType dtype, Function&& function) {
  switch (dtype) {
    case DType::float64:
      return function(TypeTag<double>{});
    case DType::bfloat16:
      return function(TypeTag<__nv_bfloat16>{});
    case DType::float16:
      return function(TypeTag<__half>{});
    case DType::float32:
      break;
  }
  return function(TypeTag<float>{});
}

// The type that T is computed in: float for bfloat16 and float16.
template <typename T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};
template <typename T>
using accumulate_t = typename Accumulate<T>::type;

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }

// Rounds to T, to nearest even.
template <typename T>
__device__ __forceinline__ T narrow(accumulate_t<T> x) {
  return x;
}
template <>
__device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ __half narrow<__half>(float x) {
  return __float2half_rn(x);
}

// kCount elements that are loaded and stored at once (at most 16 bytes); the address must be a multiple of their size.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T values[kCount];

  __device__ __forceinline__ T& operator[](int i) { return values[i]; }
  __device__ __forceinline__ const T& operator[](int i) const { return values[i]; }
};

template <typename T, int kCount>
__device__ __forceinline__ Pack<T, kCount> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, kCount>*>(from);
}

template <typename T, int kCount>
__device__ __forceinline__ void store_pack(T* to, const Pack<T, kCount>& pack) {
  *reinterpret_cast<Pack<T, kCount>*>(to) = pack;
}

}  // namespace d2l::cuda
