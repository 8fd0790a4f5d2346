// Launcher of dropout on the CPU, for E = float, double and BFloat16: output[i] = input[i] * (kept ? 1 / (1 - p) : 0),
// where seed and i decide (see philox.h). Linear in the input, and its own transpose. Tensors are contiguous.
#pragma once

#include <cstdint>

#include "kernels/cpu/element.h"

namespace d2l::cpu {

template <typename E>
void dropout(int64_t count, int64_t seed, double p, const E* input, E* output);

}  // namespace d2l::cpu
