// 1x1 convolutions with a stride as matrix products of the pixels that it meets, gathered or spread a block at a time
// in the L2 cache: where the product runs in tiles of AMX (gemm.h), that is faster than the direct kernel.
#pragma once

#include "kernels/cpu/conv2d_kernel.h"

namespace d2l::cpu {

// Whether it is possible and faster: NHWC maps, one group, no padding.
bool suits_gathering(const Correlation<float>& problem);

#if defined(__x86_64__)
namespace amx {
void correlate_gathered(const Correlation<float>& problem);
}  // namespace amx
#endif

}  // namespace d2l::cpu
