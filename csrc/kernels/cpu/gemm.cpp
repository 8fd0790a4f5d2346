#include "kernels/cpu/gemm.h"

#include <type_traits>

#include "kernels/cpu/gemm_kernel.h"

namespace d2l::cpu {
template <typename T>
bool gemm_suits_parts(const Gemm<T>& problem) {
  if (!std::is_same_v<T, float> || capability() != Capability::amx || problem.depth < 24) return false;
  // Packing an operand takes more than it saves where few lines of the other share it. Multiply-adds have to pack
  // transposed rows, too.
  if (problem.a_depth != 1) return problem.rows >= (problem.columns <= 1024 ? 16 : 48);
  return problem.rows >= 48 && problem.columns >= 48;
}

template <typename T>
void gemm(const Gemm<T>& problem) {
  if (problem.rows * problem.columns == 0) return;
#if defined(__x86_64__)
  if constexpr (std::is_same_v<T, float>) {
    if (gemm_suits_parts(problem)) {
      amx::multiply_by_parts(problem);
      return;
    }
  }
#endif
  D2L_CALL_BEST(multiply, problem);
}

template bool gemm_suits_parts(const Gemm<float>&);
template bool gemm_suits_parts(const Gemm<double>&);
template void gemm<float>(const Gemm<float>&);
template void gemm<double>(const Gemm<double>&);

}  // namespace d2l::cpu
