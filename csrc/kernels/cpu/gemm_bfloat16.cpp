#include "kernels/cpu/gemm_bfloat16.h"

#include "kernels/cpu/capability.h"

namespace d2l::cpu {

#if defined(__x86_64__)
namespace avx512_bfloat16 {
void multiply_pairs(const BFloat16Gemm& problem);
void interleave_pairs(const uint16_t* from, int64_t stride, int64_t rows, int64_t depth, BFloat16Pair* to);
}  // namespace avx512_bfloat16

bool has_bfloat16_gemm() {
  static const bool is_there = __builtin_cpu_supports("avx512bf16");
  return is_there && capability() == Capability::avx512;
}

void gemm(const BFloat16Gemm& problem) {
  if (problem.rows * problem.columns != 0) avx512_bfloat16::multiply_pairs(problem);
}

void pair_neighbours(const uint16_t* from, int64_t stride, int64_t rows, int64_t depth, BFloat16Pair* to) {
  avx512_bfloat16::interleave_pairs(from, stride, rows, depth, to);
}
#else
bool has_bfloat16_gemm() { return false; }
void gemm(const BFloat16Gemm&) {}
void pair_neighbours(const uint16_t*, int64_t, int64_t, int64_t, BFloat16Pair*) {}
#endif

}  // namespace d2l::cpu
