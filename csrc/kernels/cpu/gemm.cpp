#include "kernels/cpu/gemm.h"

#include "kernels/cpu/capability.h"

namespace d2l::cpu {

#define D2L_GEMM_KERNELS(capability)     \
  namespace capability {                 \
  template <typename T>                  \
  void multiply(const Gemm<T>& problem); \
  }
D2L_FOR_EACH_CAPABILITY(D2L_GEMM_KERNELS)
#undef D2L_GEMM_KERNELS

template <typename T>
void gemm(const Gemm<T>& problem) {
  if (problem.rows * problem.columns == 0) return;
  D2L_CALL_BEST(multiply, problem);
}

template void gemm<float>(const Gemm<float>&);
template void gemm<double>(const Gemm<double>&);

}  // namespace d2l::cpu
