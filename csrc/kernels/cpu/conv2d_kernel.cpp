// The direct kernel of conv2d_driver.h for float, double and maps of bfloat16.
#include "kernels/cpu/conv2d_kernel.h"

#include "kernels/cpu/conv2d_driver.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

template <typename T, typename E>
void correlate(const Correlation<T, E>& problem) {
  run_correlation(problem);
}

template void correlate(const Correlation<float>&);
template void correlate(const Correlation<double>&);
template void correlate(const Correlation<float, BFloat16>&);

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
