#include "kernels/cpu/gemm.h"

#include <type_traits>

#include "kernels/cpu/gemm_kernel.h"

namespace d2l::cpu {
namespace {

// Whether parts of float32 in tiles are faster than its multiply-adds.
template <typename T>
bool suits_parts([[maybe_unused]] const Gemm<T>& problem) {
  if (!std::is_same_v<T, float> || capability() != Capability::amx) return false;
  return problem.rows > 32 && problem.columns > 16 && problem.depth > 16;
}

}  // namespace

template <typename T>
void gemm(const Gemm<T>& problem) {
  if (problem.rows * problem.columns == 0) return;
#if defined(__x86_64__)
  if constexpr (std::is_same_v<T, float>) {
    if (suits_parts(problem)) {
      amx::multiply_by_parts(problem);
      return;
    }
  }
#endif
  D2L_CALL_BEST(multiply, problem);
}

template void gemm<float>(const Gemm<float>&);
template void gemm<double>(const Gemm<double>&);

}  // namespace d2l::cpu
