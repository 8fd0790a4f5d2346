// Which instruction set the kernels run with. Kernel sources (*_kernel.cpp) are compiled once per capability, each time
// inside the namespace d2l::cpu::D2L_CPU_CAPABILITY; launchers choose one at run time:
//
//   #define D2L_EXAMPLE_KERNELS(capability) namespace capability { void example(const float* x, int64_t n); }
//   D2L_FOR_EACH_CAPABILITY(D2L_EXAMPLE_KERNELS)
//   ...
//   D2L_CALL_BEST(example, x, n);
//
// Kernels of bfloat16 (*_bfloat16_kernel.cpp) are compiled for AVX512-BF16 and for AMX instead, see gemm_bfloat16.h.
//
// A kernel source must not use templates or inline functions from outside its own namespace that the compiler could
// leave uninlined (std::vector and the like): the linker keeps one copy of each for the whole library, and that copy
// could be the one with instructions that the machine lacks.
#pragma once

#include <cstdint>

namespace d2l::cpu {

// amx: bfloat16 is multiplied in tiles, and float32 by its parts (see float_parts.h); for all else it is avx512.
enum class Capability { baseline, avx2, avx512, amx };

inline constexpr Capability kCapabilities[] = {Capability::baseline, Capability::avx2, Capability::avx512,
                                               Capability::amx};

// The best that machine and build offer, or what D2LKERNELS_CPU_CAPABILITY or set_capability ask for.
Capability capability();
bool is_supported(Capability capability);
// Throws std::invalid_argument, naming what is supported, for one that machine or build lacks.
void set_capability(Capability capability);

const char* name_of(Capability capability);

// Of a register of the capability in use.
int64_t vector_bytes();

}  // namespace d2l::cpu

#if defined(__x86_64__)
#define D2L_FOR_EACH_CAPABILITY(MACRO) MACRO(baseline) MACRO(avx2) MACRO(avx512)
#define D2L_FOR_EACH_TILED_CAPABILITY(MACRO) D2L_FOR_EACH_CAPABILITY(MACRO) MACRO(amx)
#define D2L_CALL_BEST(function, ...)                 \
  do {                                               \
    switch (::d2l::cpu::capability()) {              \
      case ::d2l::cpu::Capability::amx:              \
      case ::d2l::cpu::Capability::avx512:           \
        ::d2l::cpu::avx512::function(__VA_ARGS__);   \
        break;                                       \
      case ::d2l::cpu::Capability::avx2:             \
        ::d2l::cpu::avx2::function(__VA_ARGS__);     \
        break;                                       \
      case ::d2l::cpu::Capability::baseline:         \
        ::d2l::cpu::baseline::function(__VA_ARGS__); \
        break;                                       \
    }                                                \
  } while (false)
// For kernels that are compiled for amx, too.
#define D2L_CALL_TILED(function, ...)                              \
  do {                                                             \
    if (::d2l::cpu::capability() == ::d2l::cpu::Capability::amx) { \
      ::d2l::cpu::amx::function(__VA_ARGS__);                      \
    } else {                                                       \
      D2L_CALL_BEST(function, __VA_ARGS__);                        \
    }                                                              \
  } while (false)
#else
#define D2L_FOR_EACH_CAPABILITY(MACRO) MACRO(baseline)
#define D2L_FOR_EACH_TILED_CAPABILITY(MACRO) MACRO(baseline)
#define D2L_CALL_BEST(function, ...) ::d2l::cpu::baseline::function(__VA_ARGS__)
#define D2L_CALL_TILED(function, ...) D2L_CALL_BEST(function, __VA_ARGS__)
#endif
