#include "kernels/cpu/conv2d_weight_grad_driver.h"
#if defined(__AMX_BF16__)
#include "kernels/cpu/conv2d_weight_grad_tiles.h"
#endif

namespace d2l::cpu::D2L_CPU_CAPABILITY {

template void weight_gradient(const WeightGradient<float, BFloat16>&);

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
