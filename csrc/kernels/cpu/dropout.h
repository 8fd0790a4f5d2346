// Launcher of dropout on the CPU, for T = float and double: output[i] = input[i] * (kept ? 1 / (1 - p) : 0), where seed
// and i decide (see philox.h). Linear in the input, and its own transpose. Tensors are contiguous.
#pragma once

#include "kernels/shapes.h"

namespace d2l::cpu {

template <typename T>
void dropout(int64_t count, int64_t seed, double p, const T* input, T* output);

}  // namespace d2l::cpu
