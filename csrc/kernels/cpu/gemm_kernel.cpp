// Matrix products of float and double.
#include "kernels/cpu/gemm_driver.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

template void multiply<float>(const Gemm<float>&);
template void multiply<double>(const Gemm<double>&);

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
