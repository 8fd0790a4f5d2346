#include "kernels/cpu/gemm_bfloat16.h"

namespace d2l::cpu {

#if defined(__x86_64__)
namespace avx512_bfloat16 {
void multiply_images(const BFloat16Gemm& problem);
}  // namespace avx512_bfloat16
namespace amx {
void multiply_images(const BFloat16Gemm& problem);
}  // namespace amx

bool has_bfloat16_gemm() {
  static const bool is_there = __builtin_cpu_supports("avx512bf16");
  return is_there && capability() >= Capability::avx512;
}

void gemm(const BFloat16Gemm& problem) {
  if (problem.rows * problem.columns * problem.images != 0) D2L_CALL_BFLOAT16(multiply_images, problem);
}
#else
bool has_bfloat16_gemm() { return false; }
void gemm(const BFloat16Gemm&) {}
#endif

}  // namespace d2l::cpu
