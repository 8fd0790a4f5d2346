// What the launcher of gemm.h chooses between.
#pragma once

#include "kernels/cpu/capability.h"
#include "kernels/cpu/gemm.h"

namespace d2l::cpu {

#define D2L_GEMM_KERNELS(capability)     \
  namespace capability {                 \
  template <typename T>                  \
  void multiply(const Gemm<T>& problem); \
  }
D2L_FOR_EACH_CAPABILITY(D2L_GEMM_KERNELS)
#undef D2L_GEMM_KERNELS

#if defined(__x86_64__)
namespace amx {
// By the parts of float_parts.h.
void multiply_by_parts(const Gemm<float>& problem);
}  // namespace amx
#endif

}  // namespace d2l::cpu
