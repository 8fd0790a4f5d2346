// The emulated twin of kernels/cuda/ptx.cuh: same names, same fragments (described there).
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "emulator/bfloat16.h"
#include "emulator/block.h"
#include "emulator/half.h"

namespace d2l::emulator {

struct MmaArguments {
  float d[4];
  uint32_t a[4], b[2];
};

// Unpack turns one register into its elements (kPerRegister consecutive ones along k).
template <typename Unpack>
void mma_m16n8(const Lanes& lanes) {
  typedef float Row __attribute__((vector_size(8 * sizeof(float))));
  constexpr int kPerRegister = Unpack::kPerRegister;
  constexpr int kHalfK = 4 * kPerRegister;  // k of the registers a[0], a[1], b[0]; the others hold the second half
  float a[16][2 * kHalfK];
  Row b[2 * kHalfK], d[16];
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const auto& from = *static_cast<const MmaArguments*>(lanes.arguments[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < kPerRegister; ++i) {
      for (int half = 0; half < 2; ++half) {
        const int k = half * kHalfK + t * kPerRegister + i;
        a[g][k] = Unpack::element(from.a[2 * half], i);
        a[g + 8][k] = Unpack::element(from.a[2 * half + 1], i);
        b[k][g] = Unpack::element(from.b[half], i);
      }
    }
    for (int i = 0; i < 4; ++i) d[g + i / 2 * 8][2 * t + i % 2] = from.d[i];
  }
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 2 * kHalfK; ++k) d[row] += a[row][k] * b[k];
  }
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    auto& result = *static_cast<float (*)[4]>(lanes.results[lane]);
    for (int i = 0; i < 4; ++i) result[i] = d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
}

struct UnpackTf32 {
  static constexpr int kPerRegister = 1;
  static float element(uint32_t bits, int) { return std::bit_cast<float>(bits & 0xffffe000u); }
};
struct UnpackBfloat16 {
  static constexpr int kPerRegister = 2;
  static float element(uint32_t bits, int i) { return bfloat16_value(static_cast<uint16_t>(bits >> 16 * i)); }
};
struct UnpackFloat16 {
  static constexpr int kPerRegister = 2;
  static float element(uint32_t bits, int i) { return half_value(static_cast<uint16_t>(bits >> 16 * i)); }
};

template <typename Unpack>
void mma(const char* name, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const Location& where) {
  MmaArguments arguments;
  std::memcpy(arguments.d, d, sizeof(d));
  std::memcpy(arguments.a, a, sizeof(a));
  std::memcpy(arguments.b, b, sizeof(b));
  block().collective(name, 0xffffffffu, &mma_m16n8<Unpack>, &arguments, &d, where);
}

template <int kMatrices, bool kTranspose>
void ldmatrix(const char* name, uint32_t (&d)[kMatrices], const void* row, const Location& where) {
  if (block().lane() < 8 * kMatrices) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) {
      block().fail(cudaErrorMisalignedAddress, std::string(name) + ": misaligned row");
    }
    if (!block().shared().contains(row, 16)) {
      block().fail(cudaErrorInvalidAddressSpace, std::string(name) + ": row outside shared memory");
    }
  }
  block().collective(
      name, 0xffffffffu,
      [](const Lanes& lanes) {
        for (int lane = 0; lane < kWarpLanes; ++lane) {
          for (int matrix = 0; matrix < kMatrices; ++matrix) {
            uint32_t pair = 0;
            for (int i = 0; i < 2; ++i) {
              const int g = lane / 4, t = 2 * (lane % 4) + i;
              const auto* row =
                  *static_cast<const uint16_t* const*>(lanes.arguments[8 * matrix + (kTranspose ? t : g)]);
              pair |= static_cast<uint32_t>(row[kTranspose ? g : t]) << 16 * i;
            }
            static_cast<uint32_t*>(lanes.results[lane])[matrix] = pair;
          }
        }
      },
      &row, d, where);
}

}  // namespace d2l::emulator

namespace d2l::cuda::ptx {

using emulator::Location;

template <int kBytes>
void cp_async(void* shared, const void* global, bool predicate) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  emulator::block().copy(shared, global, kBytes, predicate);
}

inline void cp_async_commit() { emulator::block().commit_copies(); }

template <int kPending>
void cp_async_wait() {
  emulator::block().wait_for_copies(kPending);
}

inline uint32_t round_tf32(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fffffff;  // the rounding below would carry a NaN into its sign
  return (bits + 0x1000) & 0xffffe000u;
}

inline void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                             const Location& where = Location::current()) {
  emulator::mma<emulator::UnpackTf32>("mma_m16n8k8_tf32()", d, a, b, where);
}

inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                              const Location& where = Location::current()) {
  emulator::mma<emulator::UnpackBfloat16>("mma_m16n8k16_bf16()", d, a, b, where);
}

inline void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                             const Location& where = Location::current()) {
  emulator::mma<emulator::UnpackFloat16>("mma_m16n8k16_f16()", d, a, b, where);
}

inline void ldmatrix_x4(uint32_t (&d)[4], const void* row, const Location& where = Location::current()) {
  emulator::ldmatrix<4, false>("ldmatrix_x4()", d, row, where);
}

inline void ldmatrix_x4_trans(uint32_t (&d)[4], const void* row, const Location& where = Location::current()) {
  emulator::ldmatrix<4, true>("ldmatrix_x4_trans()", d, row, where);
}

inline void ldmatrix_x2(uint32_t (&d)[2], const void* row, const Location& where = Location::current()) {
  emulator::ldmatrix<2, false>("ldmatrix_x2()", d, row, where);
}

inline void ldmatrix_x2_trans(uint32_t (&d)[2], const void* row, const Location& where = Location::current()) {
  emulator::ldmatrix<2, true>("ldmatrix_x2_trans()", d, row, where);
}

}  // namespace d2l::cuda::ptx
