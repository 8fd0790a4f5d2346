// Small kernels over single features of the emulator, called through ctypes by test_emulator_features.py.
#include "kernels/cuda/common.cuh"

namespace {

using namespace d2l::cuda;

constexpr int kThreads = 64;
constexpr unsigned kLowHalf = 0x0000ffffu, kHighHalf = 0xffff0000u;

// Row i of out holds what thread by thread the i-th function returns, for the value 10 * thread.
__global__ void collectives(int* out) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize, x = 10 * thread;
  int row = 0;
  const auto put = [&](int value) { out[kThreads * row++ + thread] = value; };
  put(__shfl_sync(kFullWarp, x, 5));
  put(__shfl_sync(kFullWarp, x, lane + 1, 8));
  put(__shfl_up_sync(kFullWarp, x, 3));
  put(__shfl_up_sync(kFullWarp, x, 1, 8));
  put(__shfl_down_sync(kFullWarp, x, 3));
  put(__shfl_down_sync(kFullWarp, x, 1, 8));
  put(__shfl_xor_sync(kFullWarp, x, 9));
  put(__reduce_add_sync(kFullWarp, x));
  put(__reduce_max_sync(kFullWarp, -x));
  put(static_cast<int>(__ballot_sync(kFullWarp, lane % 3 == 0)));
  put(__any_sync(kFullWarp, thread == 40));
  put(__all_sync(kFullWarp, thread != 40));
  put(lane < 16 ? __reduce_add_sync(kLowHalf, x) : __reduce_min_sync(kHighHalf, x));
  put(__syncthreads_count(thread % 5 == 0));
  put(__syncthreads_or(thread == 40));
  put(__syncthreads_and(thread != 40));
}

// Every thread adds 1 to one sum and 0.5 to the other; the last block writes both to out.
__global__ void last_block(int* sum, float* float_sum, unsigned* blocks_done, float* out) {
  D2L_SHARED(bool, last, [1]);
  atomicAdd(sum, 1);
  atomicAdd(float_sum, 0.5f);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last[0] = atomicInc(blocks_done, gridDim.x - 1) == gridDim.x - 1;
  __syncthreads();
  if (last[0] && threadIdx.x == 0) out[0] = static_cast<float>(*sum), out[1] = *float_sum;
}

template <typename T>
__device__ uint32_t pair(const T* low, const T* high) {
  return static_cast<uint32_t>(reinterpret_cast<const uint16_t&>(*low)) |
         static_cast<uint32_t>(reinterpret_cast<const uint16_t&>(*high)) << 16;
}

// d[16, 8] = a[16, 16] b[16, 8]. Fragments are gathered as the PTX ISA lays them out, and by ldmatrix; the number of
// registers in which the two differ is written too.
template <typename T>
__global__ void mma(const T* a, const T* b, float* d, int* differences) {
  D2L_SHARED(T, tile_a, [16 * 16]);
  D2L_SHARED(T, tile_b, [16 * 8]);
  D2L_SHARED(T, tile_b_transposed, [8 * 16]);
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  for (int i = lane; i < 16 * 16; i += kWarpSize) tile_a[i] = a[i];
  for (int i = lane; i < 16 * 8; i += kWarpSize) {
    tile_b[i] = b[i];
    tile_b_transposed[i % 8 * 16 + i / 8] = b[i];
  }
  __syncwarp();
  uint32_t fragment_a[4], fragment_b[2], loaded_a[4], loaded_b[2], loaded_b_transposed[2], untransposed[4];
  for (int i = 0; i < 4; ++i) {
    const T* const element = a + (g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
    fragment_a[i] = pair(element, element + 1);
  }
  for (int i = 0; i < 2; ++i) fragment_b[i] = pair(b + (2 * t + i * 8) * 8 + g, b + (2 * t + 1 + i * 8) * 8 + g);
  const T* const row_a = tile_a + lane % 16 * 16 + lane / 16 * 8;
  ptx::ldmatrix_x4(loaded_a, row_a);
  ptx::ldmatrix_x2_trans(loaded_b, tile_b + lane % 16 * 8);
  ptx::ldmatrix_x2(loaded_b_transposed, tile_b_transposed + lane % 8 * 16 + lane / 8 % 2 * 8);
  ptx::ldmatrix_x4_trans(untransposed, row_a);
  int different = 0;
  for (int i = 0; i < 4; ++i) {
    different += loaded_a[i] != fragment_a[i];
    const T* const element = a + (2 * t + i % 2 * 8) * 16 + g + i / 2 * 8;
    different += untransposed[i] != pair(element, element + 16);
  }
  for (int i = 0; i < 2; ++i) {
    different += (loaded_b[i] != fragment_b[i]) + (loaded_b_transposed[i] != fragment_b[i]);
  }
  different = __reduce_add_sync(kFullWarp, different);
  if (lane == 0) *differences = different;
  float sums[4] = {0, 0, 0, 0};
  if constexpr (std::is_same_v<T, __half>) {
    ptx::mma_m16n8k16_f16(sums, fragment_a, fragment_b);
  } else {
    ptx::mma_m16n8k16_bf16(sums, fragment_a, fragment_b);
  }
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}

template <typename T>
__global__ void convert(const float* in, T* rounded, float* back, int n) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    rounded[i] = narrow<T>(in[i]);
    back[i] = widen(rounded[i]);
  }
}

__global__ void round_tf32(const float* in, float* out, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = __uint_as_float(ptx::round_tf32(in[i]));
}

int status(dim3 grid, dim3 block) { return launched(grid, block).error; }

}  // namespace

extern "C" {

int run_collectives(int* out) {
  D2L_LAUNCH(collectives, 1, kThreads, 0, nullptr, out);
  return status(1, kThreads);
}

int run_last_block(int* sum, float* float_sum, unsigned* blocks_done, float* out) {
  D2L_LAUNCH(last_block, dim3(3, 2, 2), dim3(4, 4, 2), 0, nullptr, sum, float_sum, blocks_done, out);
  return status(12, 32);
}

int run_mma(bool half, const void* a, const void* b, float* d, int* differences) {
  if (half) {
    D2L_LAUNCH((mma<__half>), 1, kWarpSize, 0, nullptr, static_cast<const __half*>(a), static_cast<const __half*>(b), d,
               differences);
  } else {
    D2L_LAUNCH((mma<__nv_bfloat16>), 1, kWarpSize, 0, nullptr, static_cast<const __nv_bfloat16*>(a),
               static_cast<const __nv_bfloat16*>(b), d, differences);
  }
  return status(1, kWarpSize);
}

int run_convert(bool half, const float* in, void* rounded, float* back, int n) {
  if (half) {
    D2L_LAUNCH((convert<__half>), 16, 256, 0, nullptr, in, static_cast<__half*>(rounded), back, n);
  } else {
    D2L_LAUNCH((convert<__nv_bfloat16>), 16, 256, 0, nullptr, in, static_cast<__nv_bfloat16*>(rounded), back, n);
  }
  return status(16, 256);
}

int run_round_tf32(const float* in, float* out, int n) {
  D2L_LAUNCH(round_tf32, 1, 256, 0, nullptr, in, out, n);
  return status(1, 256);
}

}  // extern "C"
