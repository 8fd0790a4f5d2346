// Kernels with one fault each. Launches the one that is named; prints the error, or the result where there is none.
#include <cstdio>
#include <cstring>
#include <memory>

#include "kernels/cuda/common.cuh"

namespace {

using namespace d2l::cuda;

constexpr int kThreads = 64;

__global__ void divergent_barrier(float* out) {
  if (threadIdx.x < 40) __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void two_barriers(float* out) {
  if (threadIdx.x < kWarpSize) {
    __syncthreads();
  } else {
    out[threadIdx.x] = 1;
    __syncthreads();
  }
}

__global__ void misaligned_copy(const float* in) {
  D2L_DYNAMIC_SHARED(float, tile);
  ptx::cp_async<16>(tile + 4 * threadIdx.x, in + 1, true);
}

__global__ void misaligned_shared_copy(const float* in) {
  D2L_DYNAMIC_SHARED(float, tile);
  ptx::cp_async<16>(tile + threadIdx.x, in, true);
}

__global__ void copy_outside_shared(const float* in, float* out) { ptx::cp_async<4>(out, in, true); }

__global__ void partial_mask(float* out) {
  float x = static_cast<float>(threadIdx.x);
  if (threadIdx.x % kWarpSize < 16) x = __shfl_xor_sync(kFullWarp, x, 1);
  out[threadIdx.x] = x;
}

__global__ void mask_without_caller(float* out) {
  __syncwarp(0x0000ffffu);
  out[threadIdx.x] = 1;
}

__global__ void different_masks(float* out) {
  const unsigned mask = threadIdx.x % 2 == 0 ? kFullWarp : 0x7fffffffu;
  out[threadIdx.x] = static_cast<float>(__ballot_sync(threadIdx.x % kWarpSize == 31 ? kFullWarp : mask, 1));
}

__global__ void shuffle_from_outside_mask(float* out) {
  if (threadIdx.x % kWarpSize < 16) out[threadIdx.x] = __shfl_down_sync(0x0000ffffu, 1.0f, 8);
}

__global__ void uninitialised_shared(float* out) {
  D2L_SHARED(float, tile, [2][kThreads]);
  tile[0][threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[0][threadIdx.x] + tile[1][threadIdx.x];
}

__global__ void uninitialised_dynamic(float* out) {
  D2L_DYNAMIC_SHARED(float, tile);
  out[threadIdx.x] = tile[threadIdx.x];
}

__global__ void shared_overrun(float* out) {
  D2L_SHARED(float, tile, [kThreads]);
  tile[threadIdx.x + 1] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}

__global__ void large_static(float* out) {
  D2L_DYNAMIC_SHARED(float, dynamic);
  D2L_SHARED(float, tile, [kThreads]);
  tile[threadIdx.x] = 1;
  out[threadIdx.x] = tile[threadIdx.x] + dynamic[0];
}

__global__ void out_of_bounds(const float* in, float* out) { out[threadIdx.x] = in[threadIdx.x + 1]; }

__global__ void out_of_bounds_copy(const float* in, float* out) {
  D2L_DYNAMIC_SHARED(float, tile);
  ptx::cp_async<4>(tile + threadIdx.x, in + threadIdx.x + 1, true);
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  out[threadIdx.x] = tile[threadIdx.x];
}

__global__ void trap(float* out) {
  if (threadIdx.x == 3 && blockIdx.x == 1) __trap();
  out[threadIdx.x] = 1;
}

__global__ void correct(float* out) { out[threadIdx.x] = 1; }

}  // namespace

int main(int argc, char** argv) {
  const char* const fault = argc > 1 ? argv[1] : "";
  const auto is = [fault](const char* name) { return std::strcmp(fault, name) == 0; };
  // On the heap and of exactly this size, so that AddressSanitizer sees the end.
  const std::unique_ptr<float[]> in(new float[kThreads]()), out(new float[kThreads]());
  dim3 grid(1), block(kThreads);
  const int shared_bytes = 16 * kThreads;
  constexpr int kLimit80 = 163 * 1024;
  if (is("divergent_barrier")) D2L_LAUNCH(divergent_barrier, grid, block, 0, nullptr, out.get());
  if (is("two_barriers")) D2L_LAUNCH(two_barriers, grid, block, 0, nullptr, out.get());
  if (is("misaligned_copy")) D2L_LAUNCH(misaligned_copy, grid, block, shared_bytes, nullptr, in.get());
  if (is("misaligned_shared_copy")) D2L_LAUNCH(misaligned_shared_copy, grid, block, shared_bytes, nullptr, in.get());
  if (is("copy_outside_shared")) D2L_LAUNCH(copy_outside_shared, grid, block, 0, nullptr, in.get(), out.get());
  if (is("partial_mask")) D2L_LAUNCH(partial_mask, grid, block, 0, nullptr, out.get());
  if (is("mask_without_caller")) D2L_LAUNCH(mask_without_caller, grid, block, 0, nullptr, out.get());
  if (is("different_masks")) D2L_LAUNCH(different_masks, grid, block, 0, nullptr, out.get());
  if (is("shuffle_from_outside_mask")) D2L_LAUNCH(shuffle_from_outside_mask, grid, block, 0, nullptr, out.get());
  if (is("uninitialised_shared")) D2L_LAUNCH(uninitialised_shared, grid, block, 0, nullptr, out.get());
  if (is("uninitialised_dynamic")) D2L_LAUNCH(uninitialised_dynamic, grid, block, shared_bytes, nullptr, out.get());
  if (is("shared_overrun")) D2L_LAUNCH(shared_overrun, grid, block, 0, nullptr, out.get());
  if (is("out_of_bounds")) D2L_LAUNCH(out_of_bounds, grid, block, 0, nullptr, in.get(), out.get());
  if (is("out_of_bounds_copy")) D2L_LAUNCH(out_of_bounds_copy, grid, block, shared_bytes, nullptr, in.get(), out.get());
  if (is("trap")) D2L_LAUNCH(trap, grid = 2, block, 0, nullptr, out.get());
  if (is("not_allowed_shared")) D2L_LAUNCH(correct, grid, block, 48 * 1024 + 1, nullptr, out.get());
  if (is("most_shared_of_sm_80")) {
    allow_dynamic_shared(correct, kLimit80);
    D2L_LAUNCH(correct, grid, block, kLimit80, nullptr, out.get());
  }
  if (is("too_much_shared_of_sm_80")) {
    allow_dynamic_shared(correct, kLimit80 + 1);
    D2L_LAUNCH(correct, grid, block, kLimit80 + 1, nullptr, out.get());
  }
  if (is("too_much_static_shared")) {
    allow_dynamic_shared(large_static, kLimit80);
    D2L_LAUNCH(large_static, grid, block, kLimit80, nullptr, out.get());
  }
  if (is("large_block")) D2L_LAUNCH(correct, grid, block = 1025, 0, nullptr, out.get());
  if (is("empty_grid")) D2L_LAUNCH(correct, grid = 0, block, 0, nullptr, out.get());
  if (is("correct")) D2L_LAUNCH(correct, grid, block, 0, nullptr, out.get());
  const LaunchStatus status = launched(grid, block);
  if (status.error != 0) {
    std::printf("%s: %s\n", error_name(status.error), error_string(status.error));
    return launched(grid, block).error == 0 ? 1 : 3;  // reported once
  }
  for (int i = 0; i < kThreads; ++i) std::printf("%g ", out[i]);
  return 0;
}
